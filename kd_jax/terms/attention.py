"""Terms on attention scores of text models."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax.terms.features import Layers, add, layer_pairs
from kd_jax.terms.hyperparameters import adopts, bind
from kd_jax.terms.term import Seen, Site, Term


def of_scores(loss: Callable[..., jax.Array]) -> Callable[..., Term]:
    """A term's constructor from a loss `(student_scores, teacher_scores, mask) -> [B]`.

    Options: `student` and `teacher`, a layer of scores `[B, heads, T, T]` or several in pairs (their losses are added);
    `source`, the teacher where there are several.
    """

    @adopts(loss)
    def build(site: Site, *, student: Layers, teacher: Layers, source: str | None = None, **given: Any) -> Term:
        name, pairs = site.teacher(source), layer_pairs(student, teacher)
        site.require_one_tokenizer(name)
        bound = []
        for ours, theirs in pairs:
            shapes = site.feature(site.student, ours, "the student"), site.feature(
                site.teachers[name], theirs, f"teacher {name!r}")  # fmt: skip
            mask = jax.ShapeDtypeStruct((shapes[0].shape[0], shapes[0].shape[-1]), jnp.bool_)
            bound.append(bind(loss, given, *shapes, mask))

        def values(_params, memory, seen: Seen):
            mask = jnp.asarray(seen.batch.views[site.view]["attention_mask"])
            found = [
                each(seen.step, seen.student.features[ours], seen.teachers[name].features[theirs], mask)
                for each, (ours, theirs) in zip(bound, pairs, strict=True)
            ]
            return add(found), memory

        return Term("example", values, site.view)

    return build
