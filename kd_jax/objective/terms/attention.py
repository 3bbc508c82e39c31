"""Terms on attention scores of text models, and on the relations of their queries, keys and
values."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax.losses.attention import self_relations
from kd_jax.objective.terms.features import Layers, add, layer_pairs
from kd_jax.objective.terms.hyperparameters import adopts, bind
from kd_jax.objective.terms.term import StepContext, Term, TermSpec

VECTORS = ("query", "key", "value")
"""Layers that hold each head's vectors, `query_0` and so on."""


def _scores_of(layer: str, heads: int | None) -> Callable[[jax.Array], jax.Array]:
    """How scores are had from a layer: as they are, or as relations of its vectors among
      themselves.

    Raises:
      ValueError: if it holds vectors and the number of relation heads isn't given.
    """
    if layer.partition("_")[0] not in VECTORS:
        return lambda scores: scores
    if heads is None:
        raise ValueError(
            f"layer {layer!r} holds vectors, not scores; give heads, the number of relation heads"
        )
    return lambda vectors: self_relations(vectors, heads)


def of_scores(loss: Callable[..., jax.Array]) -> Callable[..., Term]:
    """A term's constructor from a loss `(student_scores, teacher_scores, mask) -> [B]`.

    Options: `student` and `teacher`, a layer of scores `[B, heads, T, T]` or several in pairs
    (their losses are added); `heads`, for layers of `VECTORS` in place of scores, how many heads
    their relations among themselves have; `source`, the teacher where there are several."""

    @adopts(loss)
    def build(
        site: TermSpec,
        *,
        student: Layers,
        teacher: Layers,
        heads: int | None = None,
        source: str | None = None,
        **given: Any,
    ) -> Term:
        name, pairs = site.teacher(source), layer_pairs(student, teacher)
        site.require_one_tokenizer(name)
        bound = []
        for ours, theirs in pairs:
            found = (
                site.feature(site.student, ours, "the student"),
                site.feature(site.teachers[name], theirs, f"teacher {name!r}"),
            )
            shapes = [
                jax.eval_shape(_scores_of(layer, heads), shape)
                for layer, shape in zip((ours, theirs), found, strict=True)
            ]
            mask = jax.ShapeDtypeStruct((shapes[0].shape[0], shapes[0].shape[-1]), jnp.bool_)
            bound.append(bind(loss, given, *shapes, mask))

        def values(_params, memory, seen: StepContext):
            mask = jnp.asarray(seen.batch.views[site.view]["attention_mask"])
            found = [
                each(
                    seen.step,
                    _scores_of(ours, heads)(seen.student.features[ours]),
                    _scores_of(theirs, heads)(seen.teachers[name].features[theirs]),
                    mask,
                )
                for each, (ours, theirs) in zip(bound, pairs, strict=True)
            ]
            return add(found), memory

        return Term("example", values, site.view)

    return build
