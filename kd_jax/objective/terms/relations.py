"""Terms on the relations of a batch's examples, and contrastive ones; each sees the whole batch."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax import losses
from kd_jax.core.checks import masked_mean
from kd_jax.core.types import PyTree
from kd_jax.models.network import cast
from kd_jax.models.projectors.projectors import build_projector
from kd_jax.objective.terms.features import ProjectedPair
from kd_jax.objective.terms.hyperparameters import Hyperparameter, Settings
from kd_jax.objective.terms.term import BoundTerm, LossTerm, StepContext, Term, TermSpec, TermValues


@dataclass(frozen=True, kw_only=True)
class RelationTerm(LossTerm):
    """A loss `(student [B, ...], teacher [B, ...], where=[B])`, to `[]` or `[B]`.

    Attributes:
      student: a layer of the student.
      teacher: a layer of the teacher.
      mapping: name of the projector from the student's layer to the teacher's width, or None.
      source: the teacher's name, where there are several.
    """

    equal: ClassVar[bool] = False

    student: str = "pooled"
    teacher: str = "pooled"
    mapping: str | None = None

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks layers, shapes and hyperparameters; see `Term.bind`."""
        layers = (self.student, self.teacher)
        pair = ProjectedPair(spec, spec.teacher(self.source), layers, self.mapping)
        # Losses that subtract vectors need one width; those of relations don't.
        if self.equal:
            pair.require_equal_shapes()
        loss, settings = self.loss, Settings(self.loss, self.hyperparameters(), *pair.shapes)

        def compute(params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            valid = jnp.asarray(context.batch.valid)
            found = loss(*pair.read(params, context), **settings.at(context.step), where=valid)
            # A term over the batch counts once, so a loss by example is averaged here.
            return (found if found.ndim == 0 else masked_mean(found, valid)), state

        return BoundTerm("batch", compute, spec.view, init=lambda key: (pair.init(key), {}))


@dataclass(frozen=True, kw_only=True)
class CorrelationCongruenceAdjacent(RelationTerm):
    """Products of the deviations of neighbours in the batch (CCKD as in RepDistiller, 2019)."""

    loss = staticmethod(losses.correlation_congruence_adjacent)
    equal: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class CorrelationCongruenceRBF(RelationTerm):
    """Gaussian kernel matrices of the batch (CCKD, 2019)."""

    loss = staticmethod(losses.correlation_congruence_rbf)
    gamma: Hyperparameter = 0.4
    order: int = 2


@dataclass(frozen=True, kw_only=True)
class InfoNCE(RelationTerm):
    """Picking one's own teacher vector among the batch's (InfoNCE, 2018)."""

    loss = staticmethod(losses.info_nce)
    equal: ClassVar[bool] = True
    temperature: Hyperparameter = 0.07


@dataclass(frozen=True, kw_only=True)
class ProbabilisticTransfer(RelationTerm):
    """Similarities of examples as probabilities (PKT, 2018)."""

    loss = staticmethod(losses.probabilistic_transfer)


@dataclass(frozen=True, kw_only=True)
class RKDAngle(RelationTerm):
    """Angles of all triplets of examples (relational knowledge distillation, 2019)."""

    loss = staticmethod(losses.rkd_angle)


@dataclass(frozen=True, kw_only=True)
class RKDDistance(RelationTerm):
    """Distances of all pairs of examples (relational knowledge distillation, 2019)."""

    loss = staticmethod(losses.rkd_distance)


@dataclass(frozen=True, kw_only=True)
class SimilarityPreserving(RelationTerm):
    """Gram matrices of the batch, rows of length 1 (similarity-preserving distillation, 2019)."""

    loss = staticmethod(losses.similarity_preserving)


@dataclass(frozen=True, kw_only=True)
class ContrastiveRepresentation(Term):
    """Embeddings of student and teacher told apart from other classes' (CRD, 2019).

    The embeddings are trained parameters of the term; the banks are state of it, one row for each
    example of the training data.

    Attributes:
      student: a layer of the student.
      teacher: a layer of the teacher.
      width: of both embeddings.
      negatives: examples of other classes drawn for each example.
      temperature: of the scores.
      momentum: of the banks' running averages, in [0, 1).
      source: the teacher's name, where there are several.
    """

    student: str = "pooled"
    teacher: str = "pooled"
    width: int = 128
    negatives: int = 16384
    temperature: float = 0.07
    momentum: float = 0.5
    source: str | None = None

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks layers and hyperparameters; see `Term.bind`."""
        name, examples, width = spec.teacher(self.source), len(spec.labels), self.width
        layers = {
            "student": spec.feature(spec.student, self.student, "the student"),
            "teacher": spec.feature(spec.teachers[name], self.teacher, f"teacher {name!r}"),
        }
        for option, value in (("width", width), ("negatives", self.negatives)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{option} must be a whole number from 1 on, got {value!r}")
        # These don't follow a schedule: the banks mix embeddings of many steps.
        temperature, momentum = self.temperature, self.momentum
        if not temperature > 0 or not 0 <= momentum < 1:
            raise ValueError(
                "temperature must be positive and momentum in [0, 1), got"
                f" {temperature} and {momentum}"
            )
        # Both sides are embedded by a trained linear map of their own.
        embedding = build_projector("linear", width)
        # Examples sorted by class, so that negatives are drawn without a search.
        order = np.argsort(spec.labels, kind="stable").astype(np.int32)
        classes = np.arange(spec.num_classes + 1)
        starts = np.searchsorted(spec.labels[order], classes).astype(np.int32)

        def init(key: jax.Array) -> tuple[Any, Any]:
            # One key for each embedding, and one for the memory.
            *keys, banks = jax.random.split(key, 3)
            params = {}
            for k, (owner, layer) in zip(keys, layers.items(), strict=True):
                vector = jnp.zeros((1, int(np.prod(layer.shape[1:]))), layer.dtype)
                params[owner] = embedding.init(k, vector)["params"]
            state = losses.init_contrast_memory(banks, examples, width)
            return cast(params, jnp.promote_types(jnp.float32, layers["student"].dtype)), state

        def compute(params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            batch, valid = context.batch, jnp.asarray(context.batch.valid)
            features = {
                "student": context.student.features[self.student],
                "teacher": jax.lax.stop_gradient(context.teachers[name].features[self.teacher]),
            }

            def embed(owner):
                flat = features[owner].reshape(features[owner].shape[0], -1)
                return jnp.asarray(embedding.apply({"params": params[owner]}, flat))

            # Negatives are of other classes; of a soft label the largest one counts.
            labels = jnp.asarray(batch.labels)
            labels = labels if labels.ndim == 1 else jnp.argmax(labels, axis=-1)
            drawn = losses.sample_negatives(
                context.key, labels, jnp.asarray(order), jnp.asarray(starts), self.negatives
            )
            found, state = losses.contrastive_representation(
                embed("student"),
                embed("teacher"),
                jnp.asarray(batch.index),
                drawn,
                state,
                temperature=temperature,
                momentum=momentum,
                where=valid,
            )
            return masked_mean(found, valid), state

        return BoundTerm("batch", compute, spec.view, init=init)
