"""Terms on attention scores of text models, and on the relations of their queries, keys and
values."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from kd_jax import losses
from kd_jax.core.types import PyTree
from kd_jax.losses.attention import self_relations
from kd_jax.objective.terms.features import Layers, add, layer_pairs
from kd_jax.objective.terms.hyperparameters import Settings
from kd_jax.objective.terms.term import BoundTerm, LossTerm, StepContext, TermSpec, TermValues

VECTORS = ("query", "key", "value")
"""Layers that hold each head's vectors, `query_0` and so on."""


def _scores_of(layer: str, heads: int | None) -> Callable[[jax.Array], jax.Array]:
    """Returns how scores are read from a layer: as they are, or as relations of its vectors.

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


@dataclass(frozen=True, kw_only=True)
class ScoresTerm(LossTerm):
    """A loss `(student_scores, teacher_scores, mask) -> [B]` of attention scores.

    Attributes:
      student: a layer of scores `[B, heads, T, T]`, or several; or of vectors (`query_0`, ...),
        whose relations among themselves are compared.
      teacher: as many layers of the teacher, in the same order; their losses are added.
      heads: how many heads the relations of vectors have; None for layers of scores.
      source: the teacher's name, where there are several.
    """

    student: Layers
    teacher: Layers
    heads: int | None = None

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks tokenizer, layers and shapes; see `Term.bind`."""
        name, pairs = spec.teacher(self.source), layer_pairs(self.student, self.teacher)
        spec.require_one_tokenizer(name)
        loss, heads, settings = self.loss, self.heads, []
        for ours, theirs in pairs:
            found = (
                spec.feature(spec.student, ours, "the student"),
                spec.feature(spec.teachers[name], theirs, f"teacher {name!r}"),
            )
            shapes = [
                jax.eval_shape(_scores_of(layer, heads), shape)
                for layer, shape in zip((ours, theirs), found, strict=True)
            ]
            mask = jax.ShapeDtypeStruct((shapes[0].shape[0], shapes[0].shape[-1]), jnp.bool_)
            settings.append(Settings(loss, self.hyperparameters(), *shapes, mask))

        def compute(_params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            mask = jnp.asarray(context.batch.views[spec.view]["attention_mask"])
            found = [
                loss(
                    _scores_of(ours, heads)(context.student.features[ours]),
                    _scores_of(theirs, heads)(context.teachers[name].features[theirs]),
                    mask,
                    **each.at(context.step),
                )
                for each, (ours, theirs) in zip(settings, pairs, strict=True)
            ]
            return add(found), state

        return BoundTerm("example", compute, spec.view)


@dataclass(frozen=True, kw_only=True)
class AttentionScoresMSE(ScoresTerm):
    """Mean squared difference of attention scores (TinyBERT, 2020)."""

    loss = staticmethod(losses.attention_scores_mse)


@dataclass(frozen=True, kw_only=True)
class RelationKL(ScoresTerm):
    """KL divergence of relations of queries, keys or values (MiniLM, 2020; MiniLMv2, 2021)."""

    loss = staticmethod(losses.relation_kl)
