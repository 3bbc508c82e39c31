"""Which tokens or patches a prediction rests on: Shapley values of a network's logit, many
  coalitions a forward pass.

The players of an example are its parts: a coalition of them is shown, the others are masked, and
the coalition's value is the logit of one class. Everything here is traceable; the caller puts it
under `jax.jit`."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from kd_jax.analysis.masking import Masking
from kd_jax.core import checks
from kd_jax.core.types import Array, Batch, View

LogitsOf = Callable[[Any], jax.Array]
"""A network's logits `[N, K]` of a view, or a `Batch`, of `N` rows, each row by itself."""


class Attribution(NamedTuple):
    """What each player adds to the logit.

    Attributes:
      values: `[B, M]`, in the logit's unit; over the players they add up to the logit of the whole
        example minus that of the example with all players masked, but for rounding.
      errors: `[B, M]` standard errors, from the spread over pairs of permutations.
    """

    values: jax.Array
    errors: jax.Array


def draw_permutations(key: jax.Array, players: int, pairs: int) -> jax.Array:
    """Draws random orders of joining, `[pairs, players]` int32; `attribute` takes their reverses
    too.
    """
    return jax.vmap(lambda each: jax.random.permutation(each, players))(
        jax.random.split(key, pairs)
    ).astype(jnp.int32)


def attribute(
    logits_of: LogitsOf,
    mask: Masking,
    view: View | Batch,
    classes: Array | int,
    permutations: Array,
    *,
    rows: int,
) -> Attribution:
    """Estimates the players' Shapley values for each example, by random orders and their reverses.

    All coalitions that a permutation builds up are rows of one batch. The same permutations serve
    every example; give them to teacher and student, and the difference of the two isn't blurred by
    the draw.

    Args:
      logits_of: the network; it takes views of `rows` rows.
      mask: how players are hidden, see `kd_jax.analysis.masking`.
      view: leaves `[B, ...]`; a `Batch` for a network that reads several views.
      classes: `[B]` int, whose logit is attributed, or one class for all.
      permutations: `[P, M]` int of the `M` players, from `draw_permutations`, at least 2.
      rows: of a forward pass; of all `B (2 P (M - 1) + 2)` rows the last pass is filled up with
        repetitions.

    Returns:
      The attribution, in at least float32.

    Raises:
      ValueError: if shapes don't fit, a row of `permutations` isn't a permutation, or a class
        doesn't exist; traced values can't be checked.

    References:
      Štrumbelj, Kononenko. Explaining Prediction Models and Individual Predictions with Feature
      Contributions, 2014. Mitchell et al. `Sampling Permutations for Shapley Value Estimation
      <https://arxiv.org/abs/2104.12199>`_, 2022.
    """
    _require_permutations(permutations)
    examples = count_examples(view)
    wanted = np.full(examples, classes) if isinstance(classes, (int, np.integer)) else classes
    # The inverse of a permutation says for each player at which place it joins.
    forward = jnp.argsort(jnp.asarray(permutations), axis=1)
    pairs, players = forward.shape
    # When each player joins, in every permutation and then in every reverse.
    ranks = jnp.concatenate([forward, players - 1 - forward])
    worths = value_coalitions(logits_of, mask, view, wanted, _coalitions(ranks), rows=rows)
    # These two are the same in every permutation and are valued only once.
    nobody, everybody = (
        jnp.broadcast_to(worths[:, i, None, None], (examples, 2 * pairs, 1)) for i in range(2)
    )
    between = worths[:, 2:].reshape(examples, 2 * pairs, players - 1)
    # What the player who joins at each place adds.
    gains = jnp.diff(jnp.concatenate([nobody, between, everybody], axis=2), axis=2)
    # From places back to players.
    marginals = jnp.take_along_axis(gains, jnp.broadcast_to(ranks[None], gains.shape), axis=2)
    # An order and its reverse depend on each other, so their mean is one draw.
    draws = (marginals[:, :pairs] + marginals[:, pairs:]) / 2
    # A player that never changes the logit has variance 0, where a root has no gradient.
    errors = checks.safe_sqrt(jnp.var(draws, axis=1, ddof=1) / pairs)
    return Attribution(jnp.mean(draws, axis=1), errors)


def _coalitions(ranks: jax.Array) -> jax.Array:
    """Builds bool `[Q, M]`: nobody, everybody, then for each row of `ranks` the first `1..M - 1` to
    join.
    """
    players = ranks.shape[1]
    # A player is in the coalition of size s if its place is below s.
    between = ranks[:, None, :] < jnp.arange(1, players)[None, :, None]
    ends = jnp.array([False, True])[:, None]
    return jnp.concatenate([jnp.broadcast_to(ends, (2, players)), between.reshape(-1, players)])


def count_examples(view: View | Batch) -> int:
    """Returns `B`, of leaves `[B, ...]`."""
    return jax.tree.leaves(view)[0].shape[0]


def value_coalitions(
    logits_of: LogitsOf,
    mask: Masking,
    view: View | Batch,
    classes: Array,
    coalitions: jax.Array,
    *,
    rows: int,
) -> jax.Array:
    """Computes the logit of each example's class with each coalition shown.

    Args:
      logits_of: the network.
      mask: how players are hidden.
      view: leaves `[B, ...]`.
      classes: `[B]` int.
      coalitions: bool `[Q, M]`, who is shown.
      rows: of a forward pass.

    Returns:
      `[B, Q]`, in at least float32.

    Raises:
      ValueError: for less than one row, or classes of another shape or that don't exist.
    """
    examples, count = count_examples(view), coalitions.shape[0]
    if rows < 1:
        raise ValueError(f"a forward pass needs at least one row, got rows = {rows}")
    if classes.shape != (examples,):
        raise ValueError(f"classes must be one int or [B], {(examples,)}, got {classes.shape}")
    # A pass larger than all there is would only repeat rows.
    rows = min(rows, examples * count)
    passes = math.ceil(examples * count / rows)

    def run(row: jax.Array) -> jax.Array:
        # Rows are numbered example by example, and coalition by coalition within one.
        example = row // count
        shown = mask(
            jax.tree.map(lambda leaf: jnp.asarray(leaf)[example], view), coalitions[row % count]
        )
        logits = logits_of(shown)
        _require_logits(logits, rows, classes)
        (logits,) = checks.at_least_float32(logits)
        return jnp.take_along_axis(logits, jnp.asarray(classes)[example][:, None], axis=1)[:, 0]

    # The last pass repeats the last row, since every pass has the same shape.
    every = jnp.minimum(jnp.arange(passes * rows), examples * count - 1)
    return (
        # A loop and not a vmap: all coalitions at once would not fit the memory.
        jax.lax.map(run, every.reshape(passes, rows))
        .reshape(-1)[: examples * count]
        .reshape(examples, count)
    )


def _require_permutations(permutations: Array) -> None:
    if permutations.ndim != 2 or permutations.shape[0] < 2 or not permutations.shape[1]:
        raise ValueError(
            f"permutations must be [P, M], at least 2 of at least 1 player, got"
            f" {permutations.shape}"
        )
    # Traced values are unknown here; only their shapes can be checked.
    if not isinstance(permutations, Tracer):
        players = np.arange(permutations.shape[1])
        for row in np.asarray(permutations):
            if not np.array_equal(np.sort(row), players):
                raise ValueError(
                    f"a permutation must hold each of 0..{players[-1]} once, got {row.tolist()}"
                )


def _require_logits(logits: jax.Array, rows: int, classes: Array) -> None:
    if logits.ndim != 2 or logits.shape[0] != rows:
        raise ValueError(f"logits_of must give [N, K] for N = {rows} rows, got {logits.shape}")
    if not isinstance(classes, Tracer):
        wrong = [c for c in np.asarray(classes).tolist() if not 0 <= c < logits.shape[1]]
        if wrong:
            raise ValueError(f"there are classes 0..{logits.shape[1] - 1}, got {wrong[0]}")


def attribution_matching(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Computes the mean squared difference of two attributions, each scaled to length 1 over the
    players.

    The L2 norm takes away the scale of the logits, which distillation needn't copy; an attribution
    of zero stays zero, with a finite gradient. Computed in at least float32. No gradient reaches
    the teacher.

    Args:
      student: `[..., M]` attributions.
      teacher: `[..., M]`, the same shape.
      where: bool `[..., M]`, the players that count, in norm and mean, such as tokens that aren't
        padding; None: all.

    Returns:
      `[...]` mean over the players that count, unreduced; zero where the two are proportional with
      a positive factor.

    Raises:
      ValueError: if shapes don't fit, or an argument holds integers.

    References:
      Wu et al. `AD-KD: Attribution-Driven Knowledge Distillation
      <https://arxiv.org/abs/2305.10010>`_, 2023, who match integrated gradients, scaled alike.
    """
    student, teacher = checks.prepare(student, teacher, "attributions")
    checks.require_equal_shapes(student, teacher, "attributions")
    counts = checks.as_where(where, student.shape, "player")
    # Zeros first, so that players which don't count stay out of the length too.
    student, teacher = (checks.normalize(jnp.where(counts, x, 0)) for x in (student, teacher))
    return checks.masked_mean(jnp.square(student - teacher), counts, -1)
