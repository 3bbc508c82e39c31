"""Which tokens or patches a prediction rests on, by coin flips: Banzhaf values of a network's
logit."""

import jax
import jax.numpy as jnp

from kd_jax.analysis.attribution import LogitsOf, value_coalitions
from kd_jax.analysis.masking import Masking
from kd_jax.core.types import Array, Batch, View


def draw_coins(key: jax.Array, players: int, rounds: int) -> jax.Array:
    """Draws bool `[rounds, players]`: each player is kept with probability 1/2."""
    return jax.random.bernoulli(key, 0.5, (rounds, players))


def attribute_by_coins(
    logits_of: LogitsOf,
    mask: Masking,
    view: View | Batch,
    classes: Array,
    coins: Array,
    *,
    rows: int,
) -> jax.Array:
    """Estimates the players' Banzhaf values for each example: what each adds to those that a coin
    kept.

    In every round each player is added to the kept ones, or taken away from them, which takes `M +
    1` coalitions. Unlike Shapley values these need not add up to anything.

    Args:
      logits_of: the network; it takes views of `rows` rows.
      mask: how players are hidden, see `kd_jax.analysis.masking`.
      view: leaves `[B, ...]`; a `Batch` for a network that reads several views.
      classes: `[B]` int, whose logit is attributed.
      coins: bool `[R, M]`, from `draw_coins`, the same for every example.
      rows: of a forward pass.

    Returns:
      `[B, M]`, mean over the rounds, in the logit's unit and at least float32.

    Raises:
      ValueError: if shapes don't fit.

    References:
      Banzhaf. Weighted Voting Doesn't Work, 1965.
    """
    if coins.ndim != 2 or not coins.shape[0] or not coins.shape[1]:
        raise ValueError(f"coins must be [R, M], at least one round and player, got {coins.shape}")
    kept, (rounds, players) = jnp.asarray(coins, bool), coins.shape
    changed = kept[:, None, :] ^ jnp.eye(players, dtype=bool)[None]
    # The kept set is valued once for all players of its round.
    coalitions = jnp.concatenate([kept[:, None], changed], axis=1).reshape(-1, players)
    worths = value_coalitions(logits_of, mask, view, classes, coalitions, rows=rows).reshape(
        -1, rounds, players + 1
    )
    # A kept player was taken away, so that its share is the other way round.
    signs = jnp.where(kept, 1, -1).astype(worths.dtype)[None]
    return jnp.mean(signs * (worths[:, :, :1] - worths[:, :, 1:]), axis=1)
