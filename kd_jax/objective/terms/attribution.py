"""A term on what predictions rest on: attributions of an example's parts by student and teacher."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax.analysis.attribution import attribute, draw_permutations
from kd_jax.analysis.attribution import attribution_matching as match
from kd_jax.analysis.banzhaf import attribute_by_coins, draw_coins
from kd_jax.analysis.masking import (
    Masking,
    hide_tokens,
    mask_batch,
    replace_patches,
    replace_tokens,
)
from kd_jax.core.checks import masked_mean
from kd_jax.core.types import Batch, PyTree
from kd_jax.objective.terms.term import BoundTerm, LogitsOf, StepContext, Term, TermSpec, TermValues

TOKENS = "tokens"
Attribute = Callable[[LogitsOf, Batch, jax.Array], jax.Array]
"""A model, examples `[B]` and classes `[B]` -> attributions `[B, M]`."""


@dataclass(frozen=True, kw_only=True)
class AttributionMatching(Term):
    """Attributions of the logit of the class that the teacher predicts, under the same draws.

    Each example takes `draws * (M - 1) + 2` forward passes of both models for Shapley values of `M`
    players, and `draws * (M + 1)` for Banzhaf values.

    Attributes:
      players: rows and columns of a grid of patches, or "tokens", which student and teacher must
        share.
      value: "shapley", by random orders of joining and their reverses, or "banzhaf", by coins that
        keep each player with probability 1/2.
      draws: orders of joining, reverses included, an even number from 4 on; or rounds of coins,
        from 1 on.
      examples: how many of a microbatch's examples, the first ones; each device then computes all
        of them. None: all.
      baseline: of hidden patches, in the unit of both models' views; the id of the token in place
        of hidden ones; None takes hidden tokens out of the attention mask.
      fixed_ids: of tokens that are always shown, and don't count.
      source: the teacher's name, where there are several.
    """

    players: str | Sequence[int]
    value: str
    draws: int
    examples: int | None
    baseline: float | None
    fixed_ids: Sequence[int] = ()
    source: str | None = None

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks the teacher, the parts and the draws; see `Term.bind`."""
        name = spec.teacher(self.source)
        if name in spec.cached:
            raise ValueError(
                f"teacher {name!r} can't be asked about masked examples while it is cached"
            )
        examples, players, fixed_ids = self.examples, self.players, tuple(self.fixed_ids)
        if examples is not None and (
            isinstance(examples, bool) or not isinstance(examples, int) or examples < 1
        ):
            raise ValueError(f"examples must be None or a whole number from 1 on, got {examples!r}")
        mask = _masking(spec, name, players, self.baseline, fixed_ids)
        estimate = _estimator(self.value, self.draws, mask, spec.view, players)

        def matched(context: StepContext) -> jax.Array:
            """Returns `[B]`, or one value for each of the first examples."""
            assert context.student_logits is not None
            batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:examples], context.batch)
            classes = jnp.argmax(context.teachers[name].logits[:examples], axis=-1)
            both = [
                estimate(model, batch, classes, context.key)
                for model in (context.student_logits, context.teacher_logits[name])
            ]
            return match(*both, where=_counted(batch.views[spec.view], players, fixed_ids))

        def compute(_params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            found = matched(context)
            if examples is not None:
                found = masked_mean(found, jnp.asarray(context.batch.valid)[:examples])
            return found, state

        return BoundTerm("example" if examples is None else "batch", compute, spec.view)


def _masking(
    spec: TermSpec, teacher: str, players: Any, baseline: float | None, fixed_ids: tuple[int, ...]
) -> Masking:
    """Says how players are hidden from student and teacher; tried on one example."""
    if players == TOKENS:
        if spec.tokens is None:
            raise ValueError("pictures have no tokens: players must be (rows, columns)")
        spec.require_one_tokenizer(teacher)
        count, hide = spec.tokens, hide_tokens(fixed_ids=fixed_ids)
        if baseline is not None:
            hide = replace_tokens(baseline_id=_whole(baseline, "baseline", 0), fixed_ids=fixed_ids)
    else:
        grid = (
            tuple(_whole(side, "each of players", 1) for side in players)
            if not isinstance(players, str)
            else ()
        )
        if spec.tokens is not None or len(grid) != 2 or fixed_ids or baseline is None:
            wanted = (
                f"{TOKENS!r}"
                if spec.tokens is not None
                else "(rows, columns), with a baseline and no fixed_ids"
            )
            raise ValueError(
                f"players must be {wanted}, got {players!r}, baseline {baseline},"
                f" fixed_ids {fixed_ids}"
            )
        count, hide = math.prod(grid), replace_patches(grid=(grid[0], grid[1]), baseline=baseline)
    # An ensemble of several views has none of its own.
    theirs = spec.teacher_views[teacher]
    views = {spec.view, theirs} if theirs else set(spec.inputs)
    for view in views:
        jax.eval_shape(hide, spec.inputs[view], jax.ShapeDtypeStruct((1, count), jnp.bool_))
    return mask_batch(dict.fromkeys(sorted(views), hide))


def _whole(number: Any, what: str, least: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ValueError(f"{what} must be a whole number from {least} on, got {number!r}")
    return number


def _estimator(
    value: str, draws: int, mask: Masking, view: str, players: Any
) -> Callable[..., jax.Array]:
    """Returns `(model, batch, classes, key) -> [B, M]`."""
    if value not in ("shapley", "banzhaf"):
        raise ValueError(f"unknown value {value!r}; there are banzhaf, shapley")
    _whole(draws, "draws", 1)
    if value == "shapley" and (draws < 4 or draws % 2):
        raise ValueError(
            f"draws of orders of joining must be an even number from 4 on, got {draws}"
        )

    def estimate(model: LogitsOf, batch: Batch, classes: jax.Array, key: jax.Array) -> jax.Array:
        count = _texts(batch.views[view]).shape[1] if players == TOKENS else math.prod(players)
        # All coalitions at once: a gradient through several passes would keep all of them in memory
        # anyway.
        rows = classes.shape[0] * (draws + 2) * (count + 1)
        if value == "shapley":
            orders = draw_permutations(key, count, draws // 2)
            return attribute(model, mask, batch, classes, orders, rows=rows).values
        return attribute_by_coins(
            model, mask, batch, classes, draw_coins(key, count, draws), rows=rows
        )

    return estimate


def _texts(view: Any) -> jax.Array:
    """Returns `[B, T]` token ids; refuses texts that others are mixed into.

    Masking them would not hide the others.
    """
    if "partner_ids" in view:
        raise ValueError(
            "attributions of mixed texts are not defined: training.mixing must be None"
        )
    return jnp.asarray(view["input_ids"])


def _counted(view: Any, players: Any, fixed_ids: Sequence[int]) -> jax.Array | None:
    """Returns bool `[B, T]`: tokens that neither fill up nor are always shown.

    None for patches, all of which count.
    """
    if players != TOKENS:
        return None
    ids = _texts(view)
    return (jnp.asarray(view["attention_mask"]) > 0) & ~jnp.isin(
        ids, jnp.array(tuple(fixed_ids), ids.dtype)
    )
