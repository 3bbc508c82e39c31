"""A term as a user writes it, what it is bound to, and what it computes in a step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.core.types import Batch, Mean, ModelOutput, PyTree, View
from kd_jax.objective.terms.hyperparameters import Hyperparameter, of_loss
from kd_jax.tasks import CLASSIFICATION, Task

LogitsOf = Callable[[Batch], jax.Array]
"""A model as it is evaluated: a batch of any number of rows -> logits `[N, K]`."""


@dataclass(frozen=True)
class TermSpec:
    """What a term may read: names, shapes and facts of the data, known before anything runs.

    Attributes:
      view: name of the student's view.
      student: the student's output as `jax.ShapeDtypeStruct`s.
      teachers: teacher's name -> its output, likewise.
      tokens: length `T` of the student's view for text, None for images.
      teacher_views: teacher's name -> name of its view.
      labels: [N] int, the classes of the training examples, -1 where unlabelled; an example's
        position is its `Batch.index`.
      num_classes: of the data.
      inputs: name -> view of one example, likewise.
      cached: teachers whose outputs on the training data are all there is of them.
      task: what the student predicts.
      reads: pairs of a teacher's name and a feature of it that was asked for.
    """

    view: str
    student: ModelOutput
    teachers: Mapping[str, ModelOutput]
    tokens: int | None
    teacher_views: Mapping[str, str]
    labels: np.ndarray
    num_classes: int
    inputs: Mapping[str, View] = field(default_factory=dict)
    cached: tuple[str, ...] = ()
    task: Task = CLASSIFICATION
    reads: set[tuple[str, str]] = field(default_factory=set)

    def teacher(self, name: str | None) -> str:
        """Returns the name of the teacher that a term reads: the one it names, or the only one.

        Raises:
          ValueError: if there is none, no such one, or several and none is named.
        """
        if not self.teachers:
            raise ValueError("it needs a teacher and the model has none (teachers=())")
        # With one teacher there is nothing to choose.
        if name is None and len(self.teachers) == 1:
            return next(iter(self.teachers))
        if name is None or name not in self.teachers:
            wanted = (
                "it must say which teacher (source=...)"
                if name is None
                else f"unknown teacher {name!r}"
            )
            raise ValueError(f"{wanted}; there are {', '.join(sorted(self.teachers))}")
        return name

    def feature(self, output: ModelOutput, layer: str, owner: str) -> Any:
        """Returns a feature's shape.

        Args:
          output: of the student or a teacher.
          layer: name of the feature.
          owner: whose output it is, for the message.

        Raises:
          ValueError: if the output has no such feature; lists those it has.
        """
        if layer not in output.features:
            raise ValueError(
                f"{owner} has no layer {layer!r}; it has {', '.join(sorted(output.features))}"
            )
        self.reads.update((name, layer) for name, each in self.teachers.items() if each is output)
        return output.features[layer]

    def is_by_token(self, shape: tuple[int, ...]) -> bool:
        """Tells whether a feature `[B, T, D]` has a vector for each token of the student's view."""
        return self.tokens is not None and len(shape) == 3 and shape[1] == self.tokens

    @property
    def prediction(self) -> str:
        """Returns what kind of term one on the student's outputs is; see `BoundTerm.kind`."""
        # Outputs [B, P, K] are of P predictions an example, each of which counts by itself.
        return "position" if self.student.logits.ndim == 3 else "example"

    def require_one_tokenizer(self, teacher: str) -> None:
        """Refuses to compare tokens of two tokenizers.

        Raises:
          ValueError: if the teacher reads another view.
        """
        # Token 5 of another tokenizer is another piece of the text.
        if self.teacher_views.get(teacher) != self.view:
            raise ValueError(
                f"token by token it can't be compared with {teacher!r}, which reads another view"
                f" (tokenizer or length)"
            )


@dataclass(frozen=True)
class StepContext:
    """What a term sees in one step.

    Attributes:
      student: the student's output on the microbatch.
      teachers: each teacher's, by name.
      batch: the microbatch.
      step: [] training step, for schedules.
      key: for what it draws; the same on all devices.
      axis_name: pmap's axis where the rows are one device's, None where they are the whole
        microbatch.
      student_logits: the student with the parameters that are trained, asked about other examples:
        no dropout, stored statistics.
      teacher_logits: each teacher's name -> the teacher, likewise, without gradient.
    """

    student: ModelOutput
    teachers: Mapping[str, ModelOutput]
    batch: Batch
    step: Any
    key: jax.Array
    axis_name: str | None = None
    student_logits: LogitsOf | None = None
    teacher_logits: Mapping[str, LogitsOf] = field(default_factory=dict)

    def gathered(self) -> "StepContext":
        """Returns the same with the rows of all devices, in the global batch's order."""
        if self.axis_name is None:
            return self
        # Rows stay in the order of the devices, which is that of the global batch.
        student, teachers, batch = jax.lax.all_gather(
            (self.student, dict(self.teachers), self.batch), self.axis_name, tiled=True
        )
        return replace(self, student=student, teachers=teachers, batch=batch, axis_name=None)


TermValues = tuple[jax.Array, PyTree]
"""A term's unreduced values on a microbatch, and its new state."""

Compute = Callable[[PyTree, PyTree, StepContext], TermValues]
"""`(params, state, context) -> (unreduced values, new state)` of a term."""


@dataclass(frozen=True)
class BoundTerm:
    """A term that knows the shapes it works on: what an objective computes.

    Attributes:
      kind: what a value belongs to, and so which mask counts it: "example" [B, ...] (further axes
        are averaged first), "position" [B, P] (an example's predictions that are there), "token"
        [B, T] (the student view's attention mask), or "batch" [] (sees the whole microbatch; counts
        once, and must itself leave out the rows that are not valid).
      compute: `(params, state, context) -> (unreduced values, new state)`.
      view: the student's view, whose mask a "token" term uses.
      labelled: whether examples without a label are left out.
      alone: whether it reads no teacher, so that all predictions of the student's view count;
        else those that the student and all of its teachers have.
      weigh: how much each of what counts does, by a batch; the mean divides by the sum of these
        weights. None: all the same.
      init: `key -> (params, state)`; nothing trained and nothing kept unless a term says so.
    """

    kind: str
    compute: Compute
    view: str
    labelled: bool = False
    alone: bool = False
    weigh: Callable[[Batch], jax.Array] | None = None
    init: Callable[[jax.Array], tuple[PyTree, PyTree]] = field(default=lambda _: ({}, {}))

    def mask(self, batch: Batch) -> jax.Array:
        """Returns what counts, bool with the batch's leading axes; [] for a "batch" term."""
        # Rows that only fill a batch never count, in any term.
        valid = jnp.asarray(batch.valid)
        if self.labelled:
            valid = valid & batch.label_valid
        if self.kind == "batch":
            # Every device counts the microbatch, also one that holds none of its valid rows.
            return jnp.ones(valid.shape[:-1], bool)
        if self.kind == "position":
            read = batch.as_read(self.view) if self.alone else batch
            there = valid[..., None] & jnp.asarray(read.positions)
            return there & (jnp.asarray(batch.labels) >= 0) if self.labelled else there
        if self.kind == "token":
            return valid[..., None] & (jnp.asarray(batch.views[self.view]["attention_mask"]) > 0)
        return valid

    def count(self, batch: Batch) -> jax.Array:
        """Returns [], how many values count, by their weights: known before any model has run."""
        return jnp.sum(self._weights(batch))

    def _weights(self, batch: Batch) -> jax.Array:
        """Returns how much each value counts, 0 for what doesn't; bool where all count the same."""
        mask = self.mask(batch)
        return mask if self.weigh is None else jnp.where(mask, self.weigh(batch), 0)

    def mean(self, values: jax.Array, batch: Batch) -> Mean:
        """Returns the sum of a microbatch's values over what counts, and how many count."""
        mask = self.mask(batch)
        # Values of one example are averaged first, so that each example weighs the same.
        if self.kind == "example":
            values = values.reshape(*mask.shape, -1).mean(axis=-1)
        weights = self._weights(batch)
        weighed = values if self.weigh is None else weights * values
        return Mean(jnp.sum(jnp.where(mask, weighed, 0)), jnp.sum(weights))


@dataclass(frozen=True, kw_only=True)
class Term:
    """One loss of an objective, as users write it; its hyperparameters are its fields.

    Attributes:
      weight: of the term in the loss, a number from 0 on, or a schedule as in configs:
        `dict(name=..., start=..., stop=..., ...)`.
      needs: the kind of outputs that it is for, as `Task.kind`; None: any. The same for all terms
        of a class.
    """

    needs: ClassVar[str | None] = None

    weight: Hyperparameter = 1.0

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks the term against the shapes it will work on, and returns what computes it.

        Args:
          spec: what the term may read.

        Raises:
          ValueError: in one line, for a teacher, layer, shape or hyperparameter that doesn't fit.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class LossTerm(Term):
    """A term that is one loss and has a field for each of the loss's hyperparameters.

    Attributes:
      loss: the function of `kd_jax.losses`; the same for all terms of a class.
      source: the teacher's name, where there are several.
    """

    loss: ClassVar[Callable[..., jax.Array]]

    source: str | None = None

    def hyperparameters(self) -> dict[str, Any]:
        """Returns the loss's hyperparameters by name, as numbers or schedules."""
        return {name: getattr(self, name) for name in of_loss(self.loss)}
