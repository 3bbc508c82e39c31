"""Terms on class scores: hard labels, soft targets, the structure of predictions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax import losses
from kd_jax.core.checks import at_least_float32
from kd_jax.core.types import Batch, PyTree
from kd_jax.objective.terms.hyperparameters import Hyperparameter, Settings
from kd_jax.objective.terms.term import BoundTerm, LossTerm, StepContext, Term, TermSpec, TermValues

Classes = Sequence[int] | None


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Term):
    """Cross-entropy with the labels; examples without one are left out.

    Attributes:
      class_weights: how much an example of each class counts, one number a class; or "balanced":
        N / (K n) for a class with n of the N labels, so that all classes count the same. The mean
        divides by the sum of the weights. None: 1 each.
      label_smoothing: the share of the target that all classes get alike, from 0 to 1.
    """

    needs = "classes"
    class_weights: Literal["balanced"] | Sequence[float] | None = None
    label_smoothing: Hyperparameter = 0.0

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks both options; see `Term.bind`."""
        shape = spec.student.logits
        labels = jax.ShapeDtypeStruct(shape.shape[:-1], jnp.int32)
        given = {"label_smoothing": self.label_smoothing}
        settings = Settings(losses.cross_entropy, given, shape, labels)

        def compute(_params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            labels, options = jnp.asarray(context.batch.labels), settings.at(context.step)
            return losses.cross_entropy(context.student.logits, labels, **options), state

        weigh = None
        if self.class_weights is not None:
            weigh = _weigher(self.class_weights, spec.labels, shape.shape[-1])
        kind = spec.prediction
        return BoundTerm(kind, compute, spec.view, labelled=True, alone=True, weigh=weigh)


def _weigher(
    given: str | Sequence[float], labels: np.ndarray, classes: int
) -> Callable[[Batch], jax.Array]:
    """Returns what weighs the labels of a batch by their classes."""
    if given == "balanced":
        counts = np.bincount(labels[labels >= 0], minlength=classes)[:classes]
        # A class without an example is the label of none, whatever its weight.
        found = counts.sum() / (classes * np.maximum(counts, 1))
    else:
        found = np.asarray(given, np.float64)
        if found.shape != (classes,) or not (np.isfinite(found) & (found > 0)).all():
            raise ValueError(
                f"class_weights must be 'balanced' or {classes} positive numbers, one a class, got"
                f" {given!r}"
            )
    weights = jnp.asarray(found, jnp.float32)

    def weigh(batch: Batch) -> jax.Array:
        classes_of = jnp.asarray(batch.labels)
        # Of a soft label each class counts by its share.
        if jnp.issubdtype(classes_of.dtype, jnp.floating):
            return classes_of.astype(jnp.float32) @ weights
        return weights[jnp.maximum(classes_of, 0)]

    return weigh


def _selected(logits: Any, classes: Classes, owner: str) -> Callable[[jax.Array], jax.Array]:
    """Picks the classes that are compared; all for None.

    Raises:
      ValueError: for an index outside, or one given twice.
    """
    if classes is None:
        return lambda scores: scores
    # jax clamps an index that is out of range, so a wrong one would pick another class.
    known = logits.shape[-1]
    if any(not 0 <= index < known for index in classes) or len(set(classes)) < len(classes):
        raise ValueError(
            f"the classes of {owner} must be distinct numbers from 0 to {known - 1}, got"
            f" {tuple(classes)}"
        )
    return lambda scores: scores[..., jnp.asarray(classes)]


class TeacherLogits:
    """The logits that a term compares: how they are read, and their shapes.

    Args:
      spec: what the term may read.
      source: the teacher's name, or None for the only one.
      layer: a feature of the student that holds another head's logits, or None.
      student_classes: indices of the student's classes to compare, or None for all.
      teacher_classes: likewise of the teacher.
    """

    def __init__(
        self,
        spec: TermSpec,
        source: str | None,
        layer: str | None = None,
        student_classes: Classes = None,
        teacher_classes: Classes = None,
    ):
        # Shapes are compared when the term is bound; a step must never find out.
        self.teacher, self._layer = spec.teacher(source), layer
        ours = spec.student.logits
        if layer is not None:
            ours = spec.feature(spec.student, layer, "the student")
        theirs = spec.teachers[self.teacher].logits
        self._pick_ours = _selected(ours, student_classes, "the student")
        self._pick_theirs = _selected(theirs, teacher_classes, f"teacher {self.teacher!r}")
        self.shapes = (
            jax.eval_shape(self._pick_ours, ours),
            jax.eval_shape(self._pick_theirs, theirs),
        )

    def read(self, context: StepContext) -> tuple[jax.Array, jax.Array]:
        """Returns the student's and the teacher's logits of a microbatch."""
        scores = context.student.logits
        if self._layer is not None:
            scores = context.student.features[self._layer]
        return self._pick_ours(scores), self._pick_theirs(context.teachers[self.teacher].logits)

    def require_equal_classes(self) -> None:
        """Refuses to compare predictions of different classes.

        Raises:
          ValueError: with both numbers.
        """
        classes, taught = (shape.shape[-1] for shape in self.shapes)
        if classes != taught:
            raise ValueError(
                f"the student has {classes} classes and teacher {self.teacher!r} has {taught};"
                " student_classes and teacher_classes can pick those they share"
            )


@dataclass(frozen=True, kw_only=True)
class PredictionTerm(LossTerm):
    """A loss of predictions, example by example: `(student_logits, teacher_logits) -> [B]`.

    Attributes:
      source: the teacher's name, where there are several.
      student: a feature that holds another head's logits, such as DeiT's distillation head.
      student_classes: indices of the classes to compare where the label spaces differ.
      teacher_classes: the teacher's, in the same order.
    """

    needs = "classes"
    student: str | None = None
    student_classes: Classes = None
    teacher_classes: Classes = None

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks classes and hyperparameters; see `Term.bind`."""
        logits = TeacherLogits(
            spec, self.source, self.student, self.student_classes, self.teacher_classes
        )
        # Its predictions are sorted, so any numbers of classes can be compared.
        if type(self) is not UniversalLogitDistance:
            logits.require_equal_classes()
        loss, settings = self.loss, Settings(self.loss, self.hyperparameters(), *logits.shapes)

        def compute(_params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            return loss(*logits.read(context), **settings.at(context.step)), state

        return BoundTerm(spec.prediction, compute, spec.view)


@dataclass(frozen=True, kw_only=True)
class PredictionsTerm(LossTerm):
    """A loss of a whole batch of predictions: `(student, teacher, where=[B]) -> []`.

    Attributes:
      source: the teacher's name, where there are several.
      student_classes: indices of the classes to compare where the label spaces differ.
      teacher_classes: the teacher's, in the same order.
    """

    needs = "classes"
    student_classes: Classes = None
    teacher_classes: Classes = None

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks classes and hyperparameters; see `Term.bind`."""
        logits = TeacherLogits(spec, self.source, None, self.student_classes, self.teacher_classes)
        logits.require_equal_classes()
        several, shapes = spec.prediction == "position", logits.shapes
        if several:
            shapes = tuple(jax.ShapeDtypeStruct((2, s.shape[-1]), s.dtype) for s in shapes)
        loss, settings = self.loss, Settings(self.loss, self.hyperparameters(), *shapes)

        def compute(_params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            pair, valid = logits.read(context), jnp.asarray(context.batch.valid)
            # Of several predictions an example, each is a row.
            if several:
                there = valid[:, None] & jnp.asarray(context.batch.positions)
                pair = tuple(each.reshape(-1, each.shape[-1]) for each in pair)
                valid = there.reshape(-1)
            return loss(*pair, **settings.at(context.step), where=valid), state

        return BoundTerm("batch", compute, spec.view)


@dataclass(frozen=True, kw_only=True)
class SoftTargetKL(PredictionTerm):
    """Forward KL divergence from the teacher's soft targets (Hinton et al., 2015)."""

    loss = staticmethod(losses.soft_target_kl)
    temperature: Hyperparameter = 1.0


@dataclass(frozen=True, kw_only=True)
class ReverseKL(PredictionTerm):
    """Reverse KL divergence: the student seeks a mode of the teacher (MiniLLM, 2023)."""

    loss = staticmethod(losses.reverse_kl)
    temperature: Hyperparameter = 1.0


@dataclass(frozen=True, kw_only=True)
class JensenShannon(PredictionTerm):
    """Generalized Jensen-Shannon divergence (GKD, 2023)."""

    loss = staticmethod(losses.jensen_shannon)
    beta: Hyperparameter = 0.5


@dataclass(frozen=True, kw_only=True)
class SkewKL(PredictionTerm):
    """Skewed forward KL divergence (DistiLLM, 2024)."""

    loss = staticmethod(losses.skew_kl)
    alpha: Hyperparameter = 0.1


@dataclass(frozen=True, kw_only=True)
class SkewReverseKL(PredictionTerm):
    """Skewed reverse KL divergence (DistiLLM, 2024)."""

    loss = staticmethod(losses.skew_reverse_kl)
    alpha: Hyperparameter = 0.1


@dataclass(frozen=True, kw_only=True)
class StandardizedKL(PredictionTerm):
    """KL divergence of standardized logits (logit standardization, 2024)."""

    loss = staticmethod(losses.standardized_kl)
    temperature: Hyperparameter = 2.0


@dataclass(frozen=True, kw_only=True)
class TotalVariation(PredictionTerm):
    """Total variation distance of the predictions (f-distill, 2023)."""

    loss = staticmethod(losses.total_variation)


@dataclass(frozen=True, kw_only=True)
class UniversalLogitDistance(PredictionTerm):
    """Distance of sorted predictions; the label spaces may differ (ULD, 2024)."""

    loss = staticmethod(losses.universal_logit_distance)


@dataclass(frozen=True, kw_only=True)
class DeiTHard(PredictionTerm):
    """Cross-entropy with the teacher's own prediction (DeiT, 2020)."""

    loss = staticmethod(losses.deit_hard)


@dataclass(frozen=True, kw_only=True)
class BatchCorrelation(PredictionsTerm):
    """Gram matrices over the examples of a batch (multi-level logit distillation, 2023)."""

    loss = staticmethod(losses.batch_correlation)
    temperature: Hyperparameter = 4.0


@dataclass(frozen=True, kw_only=True)
class ClassCorrelation(PredictionsTerm):
    """Gram matrices over the classes (multi-level logit distillation, 2023)."""

    loss = staticmethod(losses.class_correlation)
    temperature: Hyperparameter = 4.0


@dataclass(frozen=True, kw_only=True)
class DIST(PredictionsTerm):
    """Correlation of the predictions, over classes and over examples (DIST, 2022)."""

    loss = staticmethod(losses.dist)
    temperature: Hyperparameter = 1.0
    inter_weight: Hyperparameter = 1.0
    intra_weight: Hyperparameter = 1.0


@dataclass(frozen=True, kw_only=True)
class DecoupledKD(LossTerm):
    """Target and non-target classes apart (DKD, 2022); examples without a label are left out."""

    needs = "classes"
    loss = staticmethod(losses.decoupled_kd)
    temperature: Hyperparameter = 4.0
    target_weight: Hyperparameter = 1.0
    nontarget_weight: Hyperparameter = 8.0

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks classes and hyperparameters; see `Term.bind`."""
        logits = TeacherLogits(spec, self.source)
        logits.require_equal_classes()
        # The loss reads labels too, so its checks need their shape.
        shape = jax.ShapeDtypeStruct(logits.shapes[0].shape[:-1], jnp.int32)
        settings = Settings(self.loss, self.hyperparameters(), *logits.shapes, shape)

        def compute(_params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            labels = jnp.asarray(context.batch.labels)
            # Of a soft label the largest class is the target.
            if jnp.issubdtype(labels.dtype, jnp.floating):
                labels = jnp.argmax(labels, axis=-1)
            values = losses.decoupled_kd(*logits.read(context), labels, **settings.at(context.step))
            return values, state

        return BoundTerm(spec.prediction, compute, spec.view, labelled=True)


@dataclass(frozen=True, kw_only=True)
class TopKKL(LossTerm):
    """KL divergence over the teacher's k largest classes and one bucket for all others.

    Attributes:
      k: how many classes are kept.
      source: the teacher's name, where there are several.
      temperature: of both predictions.
    """

    needs = "classes"
    loss = staticmethod(losses.topk_kl)
    k: int
    temperature: Hyperparameter = 1.0

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks classes, k and the temperature; see `Term.bind`."""
        logits = TeacherLogits(spec, self.source)
        logits.require_equal_classes()
        k, most = self.k, logits.shapes[1].shape[-1]
        # `top_k` with a wrong k fails only when the step is compiled.
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= most:
            raise ValueError(f"k must be a whole number from 1 to {most}, got {k!r}")

        def loss(student: jax.Array, teacher: jax.Array, *, temperature: Any = 1.0) -> jax.Array:
            # In bfloat16 many classes would share one logit, and their order would be arbitrary.
            (wide,) = at_least_float32(teacher)
            log_p, indices = jax.lax.top_k(jax.nn.log_softmax(wide / temperature), k)
            return losses.topk_kl(student, log_p, indices, temperature=temperature)

        settings = Settings(loss, self.hyperparameters(), *logits.shapes)

        def compute(_params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            return loss(*logits.read(context), **settings.at(context.step)), state

        return BoundTerm(spec.prediction, compute, spec.view)
