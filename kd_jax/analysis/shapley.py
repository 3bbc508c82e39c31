"""What each player of a cooperative game is worth: Shapley and Banzhaf values, exact or sampled.

A game values every subset of its players; its values must not change between calls, since each
subset is valued once."""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

import numpy as np

Player = TypeVar("Player", bound=Hashable)
Worth = tuple[dict[Player, float], dict[Player, float]]
"""Values and their standard errors, by player."""

EXACT_PLAYERS = 16
"""The most players of whom all subsets, 65,536, are valued."""
LEAST_PAIRS = 16
"""Pairs of permutations before a tolerance may end sampling; standard errors of fewer are
unreliable."""


def shapley_values(
    value: Callable[[frozenset], float],
    players: Iterable[Player],
    *,
    permutations: int | None = None,
    seed: int = 0,
    tolerance: float | None = None,
) -> Worth:
    """Computes each player's marginal contribution, averaged over the orders in which they may
    join.

    Exact: `phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S))`. Sampled:
    the mean over random permutations, each followed by its reverse, of what `i` adds to those
    before it; the standard errors treat such a pair as one draw. Either way the values add up to
    `v(all) - v({})`, but for rounding.

    Args:
      value: of a subset of the players, from the empty one to all of them.
      players: hashable and distinct; their order decides which permutations a seed draws.
      permutations: how many to sample, even and at least 4; None: exact, valuing all `2^n` subsets
        of at most `EXACT_PLAYERS` players.
      seed: of the permutations.
      tolerance: in `value`'s unit; sampling ends once no standard error exceeds it, after
        `LEAST_PAIRS` pairs at the earliest and `permutations` at the latest.

    Returns:
      Values and standard errors, by player; the errors are 0.0 when exact.

    Raises:
      ValueError: if there are no players, duplicates or too many of them, if another argument is
        out of range, or if a subset's value isn't finite.

    References:
      Shapley. A Value for n-Person Games, 1953. Castro et al. Polynomial Calculation of the Shapley
      Value Based on Sampling, 2009. Mitchell et al. `Sampling Permutations for Shapley Value
      Estimation <https://arxiv.org/abs/2104.12199>`_, 2022.
    """
    order = _distinct(players)
    valued = _valued_once(value, order)
    if permutations is None:
        if tolerance is not None:
            raise ValueError("tolerance ends sampling; give permutations too, the most to sample")
        # In a random order `s` players precede a given one with probability 1 / n, and all subsets
        # of that size are equally likely.
        return _exact(
            valued,
            order,
            # |S|! (n - |S| - 1)! / n!, written with a binomial so that no factorial grows large.
            [1 / (len(order) * math.comb(len(order) - 1, s)) for s in range(len(order))],
        )
    # A pair is one draw, and a spread needs two draws.
    if permutations < 4 or permutations % 2:
        raise ValueError(
            f"permutations come in pairs, of which an error needs two: got {permutations}"
        )
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    generator = np.random.default_rng(seed)
    draws = (
        # Drawn one by one, so that a tolerance may end the sampling early.
        _marginals_of_pair(valued, order, generator.permutation(len(order)))
        for _ in range(permutations // 2)
    )
    return _averaged(draws, order, tolerance)


def banzhaf_values(
    value: Callable[[frozenset], float],
    players: Iterable[Player],
    *,
    samples: int | None = None,
    seed: int = 0,
) -> Worth:
    """Computes each player's marginal contribution, averaged over all subsets of the others alike.

    Exact: `2^(1 - n) sum over S without i of (v(S + i) - v(S))`. Sampled: a coin decides for each
    player whether it is in, and every player is then added or taken away. Unlike Shapley values
    these need not add up to `v(all) - v({})`.

    Args:
      value: of a subset of the players, from the empty one to all of them.
      players: hashable and distinct; their order decides which subsets a seed draws.
      samples: how many subsets to draw, at least 2, each of which takes up to `n + 1` values; None:
        exact, valuing all `2^n` subsets of at most `EXACT_PLAYERS` players.
      seed: of the subsets.

    Returns:
      Values and standard errors, by player; the errors are 0.0 when exact.

    Raises:
      ValueError: as `shapley_values`.

    References:
      Banzhaf. Weighted Voting Doesn't Work, 1965.
      Wang, Jia. `Data Banzhaf <https://arxiv.org/abs/2205.15466>`_, 2023.
    """
    order = _distinct(players)
    valued = _valued_once(value, order)
    if samples is None:
        return _exact(valued, order, [0.5 ** (len(order) - 1)] * len(order))
    if samples < 2:
        raise ValueError(f"a standard error needs at least 2 samples, got {samples}")
    generator = np.random.default_rng(seed)
    draws = (
        # A fair coin for each player gives every subset the same probability.
        _marginals_of_coins(valued, order, generator.random(len(order)) < 0.5)
        for _ in range(samples)
    )
    return _averaged(draws, order, None)


def _distinct(players: Iterable[Player]) -> list[Player]:
    order, seen = list(players), set()
    if not order:
        raise ValueError("a game needs at least one player, got none")
    for player in order:
        # A set is looked up by hash, and an unhashable player gives a TypeError of no help.
        try:
            repeated = player in seen
        except TypeError:
            raise ValueError(f"players must be hashable, got {player!r}") from None
        if repeated:
            raise ValueError(f"players must be distinct, got {player!r} twice")
        seen.add(player)
    return order


def _valued_once(
    value: Callable[[frozenset], float], order: list[Player]
) -> Callable[[frozenset], float]:
    """Wraps `value`: each subset is valued once, and a value that isn't finite is refused."""
    # A value may be the training of a model, so none is asked for twice.
    kept: dict[frozenset, float] = {}

    def valued(subset: frozenset) -> float:
        if subset not in kept:
            worth = float(value(subset))
            # One NaN would spread into the values of all players.
            if not math.isfinite(worth):
                members = ", ".join(repr(player) for player in order if player in subset)
                raise ValueError(f"the value of {{{members}}} is {worth}")
            kept[subset] = worth
        return kept[subset]

    return valued


def _exact(
    valued: Callable[[frozenset], float], order: list[Player], weights: list[float]
) -> Worth:
    """Computes marginal contributions to all subsets of the others, one of size `s` weighing
    `weights[s]`.
    """
    count = len(order)
    # The number of subsets doubles with each player.
    if count > EXACT_PLAYERS:
        raise ValueError(
            f"exact values need all subsets and are limited to {EXACT_PLAYERS} players, got"
            f" {count}; sample instead, "
            "permutations for Shapley values, subsets for Banzhaf values"
        )
    subsets = np.arange(2**count)
    # A subset is a number whose bit i says whether player i is in it.
    present = (subsets[:, None] >> np.arange(count)) & 1 == 1
    table = np.array([valued(frozenset(order[i] for i in np.flatnonzero(row))) for row in present])
    sizes = present.sum(axis=1)
    values = {}
    for i, player in enumerate(order):
        without = subsets[~present[:, i]]
        values[player] = float(
            # Setting bit i is adding player i.
            np.asarray(weights)[sizes[without]] @ (table[without | 1 << i] - table[without])
        )
    return values, dict.fromkeys(order, 0.0)


def _marginals_of_pair(
    valued: Callable[[frozenset], float], order: list[Player], drawn: np.ndarray
) -> np.ndarray:
    """Computes `[n]`, what each player adds to those before it, mean over an order and its
    reverse.
    """
    marginals = np.zeros(len(order))
    # Who joins late in an order joins early in its reverse, so much of the noise cancels.
    for permutation in (drawn, drawn[::-1]):
        joined: frozenset = frozenset()
        for i in permutation:
            before, joined = joined, joined | {order[i]}
            marginals[i] += 0.5 * (valued(joined) - valued(before))
    return marginals


def _marginals_of_coins(
    valued: Callable[[frozenset], float], order: list[Player], present: np.ndarray
) -> np.ndarray:
    """Computes `[n]`, what each player adds to the others that are present."""
    subset = frozenset(player for player, here in zip(order, present, strict=True) if here)
    # One of the two is the drawn subset itself, which is valued only once.
    return np.array([valued(subset | {player}) - valued(subset - {player}) for player in order])


def _averaged(draws: Iterator[np.ndarray], order: list[Player], tolerance: float | None) -> Worth:
    """Computes mean and standard error of independent draws `[n]`, as many as the tolerance asks
    for.
    """
    count, mean, squares = 0, np.zeros(len(order)), np.zeros(len(order))
    for drawn in draws:
        # Welford's update: a game's values may be large next to their differences.
        count += 1
        change = drawn - mean
        mean = mean + change / count
        squares = squares + change * (drawn - mean)
        # The standard error of a few draws may be small by chance.
        if (
            tolerance is not None
            and count >= LEAST_PAIRS
            and (_standard_error(squares, count) <= tolerance).all()
        ):
            break
    errors = _standard_error(squares, count)
    return dict(zip(order, mean.tolist(), strict=True)), dict(
        zip(order, errors.tolist(), strict=True)
    )


def _standard_error(squares: np.ndarray, count: int) -> np.ndarray:
    # The unbiased variance of one draw, divided by the number of draws in the mean.
    return np.sqrt(squares / (count - 1) / count)
