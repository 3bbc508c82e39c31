"""Terms on class scores: hard labels, soft targets, the structure of predictions."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax import losses
from kd_jax.losses.checks import at_least_float32
from kd_jax.objective.terms.hyperparameters import adopts, bind
from kd_jax.objective.terms.term import StepContext, Term, TermSpec


def cross_entropy(site: TermSpec) -> Term:
    """Hard labels."""

    def values(_params, memory, seen: StepContext):
        return losses.cross_entropy(seen.student.logits, jnp.asarray(seen.batch.labels)), memory

    return Term("example", values, site.view, labelled=True)


def _selected(
    logits: Any, classes: Sequence[int] | None, owner: str
) -> Callable[[jax.Array], jax.Array]:
    """Picks the classes that are compared; all for None.

    Raises:
      ValueError: for an index outside, or one given twice.
    """
    if classes is None:
        return lambda scores: scores
    known = logits.shape[-1]
    if any(not 0 <= index < known for index in classes) or len(set(classes)) < len(classes):
        raise ValueError(
            f"the classes of {owner} must be distinct numbers from 0 to {known - 1}, got {tuple(classes)}"
        )
    return lambda scores: scores[..., jnp.asarray(classes)]


def _pair(site: TermSpec, source: str | None, layer: str | None, student_classes, teacher_classes):
    """The teacher's name, how both logits are read from what is seen, and their shapes."""
    name = site.teacher(source)
    ours = (
        site.student.logits if layer is None else site.feature(site.student, layer, "the student")
    )
    theirs = site.teachers[name].logits
    pick_ours = _selected(ours, student_classes, "the student")
    pick_theirs = _selected(theirs, teacher_classes, f"teacher {name!r}")

    def read(seen: StepContext) -> tuple[jax.Array, jax.Array]:
        scores = seen.student.logits if layer is None else seen.student.features[layer]
        return pick_ours(scores), pick_theirs(seen.teachers[name].logits)

    return name, read, (jax.eval_shape(pick_ours, ours), jax.eval_shape(pick_theirs, theirs))


def _require_equal_classes(shapes: Any, name: str) -> None:
    classes, taught = (shape.shape[-1] for shape in shapes)
    if classes != taught:
        raise ValueError(
            f"the student has {classes} classes and teacher {name!r} has {taught}; student_classes and teacher_classes"
            " can pick those they share"
        )


def of_predictions(
    loss: Callable[..., jax.Array], *, any_classes: bool = False
) -> Callable[..., Term]:
    """A term's constructor from a loss `(student_logits, teacher_logits) -> [B]`.

    Its options beside the loss's own: `source`, the teacher where there are several; `student`, a
    feature that holds the logits of another head, such as DeiT's distillation head;
    `student_classes` and `teacher_classes`, indices of the classes to compare, in the same order,
    where the label spaces differ."""

    @adopts(loss)
    def build(
        site: TermSpec,
        *,
        source: str | None = None,
        student: str | None = None,
        student_classes: Sequence[int] | None = None,
        teacher_classes: Sequence[int] | None = None,
        **given: Any,
    ) -> Term:
        name, read, shapes = _pair(site, source, student, student_classes, teacher_classes)
        if not any_classes:
            _require_equal_classes(shapes, name)
        bound = bind(loss, given, *shapes)

        def values(_params, memory, seen: StepContext):
            return bound(seen.step, *read(seen)), memory

        return Term("example", values, site.view)

    return build


def of_batch_of_predictions(loss: Callable[..., jax.Array]) -> Callable[..., Term]:
    """A term's constructor from a loss `(student_logits, teacher_logits, where=[B]) -> []`; options
    as above."""

    @adopts(loss)
    def build(
        site: TermSpec,
        *,
        source: str | None = None,
        student_classes: Sequence[int] | None = None,
        teacher_classes: Sequence[int] | None = None,
        **given: Any,
    ) -> Term:
        name, read, shapes = _pair(site, source, None, student_classes, teacher_classes)
        _require_equal_classes(shapes, name)
        bound = bind(loss, given, *shapes)

        def values(_params, memory, seen: StepContext):
            return bound(seen.step, *read(seen), where=jnp.asarray(seen.batch.valid)), memory

        return Term("batch", values, site.view)

    return build


@adopts(losses.decoupled_kd)
def decoupled_kd(site: TermSpec, *, source: str | None = None, **given: Any) -> Term:
    """DKD needs the label, so examples without one are left out; of a soft label the largest
    class."""
    name, read, shapes = _pair(site, source, None, None, None)
    _require_equal_classes(shapes, name)
    labels = jax.ShapeDtypeStruct(shapes[0].shape[:-1], jnp.int32)
    bound = bind(losses.decoupled_kd, given, *shapes, labels)

    def values(_params, memory, seen: StepContext):
        hard = jnp.asarray(seen.batch.labels)
        hard = hard if hard.ndim == 1 else jnp.argmax(hard, axis=-1)
        return bound(seen.step, *read(seen), hard), memory

    return Term("example", values, site.view, labelled=True)


@adopts(losses.topk_kl)
def topk_kl(site: TermSpec, *, k: int, source: str | None = None, **given: Any) -> Term:
    """The teacher kept by its `k` largest classes at this step's temperature."""
    name, read, shapes = _pair(site, source, None, None, None)
    _require_equal_classes(shapes, name)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= shapes[1].shape[-1]:
        raise ValueError(f"k must be a whole number from 1 to {shapes[1].shape[-1]}, got {k!r}")

    def loss(student: jax.Array, teacher: jax.Array, *, temperature: Any = 1.0) -> jax.Array:
        (wide,) = at_least_float32(teacher)
        log_p, indices = jax.lax.top_k(jax.nn.log_softmax(wide / temperature), k)
        return losses.topk_kl(student, log_p, indices, temperature=temperature)

    bound = bind(loss, given, *shapes)

    def values(_params, memory, seen: StepContext):
        return bound(seen.step, *read(seen)), memory

    return Term("example", values, site.view)
