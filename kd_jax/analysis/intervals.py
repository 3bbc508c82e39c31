"""How far a difference between two models can be trusted: intervals over test rows and over seeds.

Both are of paired differences: two models are compared on the same rows, and two trainings by the
same seed. What they have in common, such as rows that are hard for everybody, falls away."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from scipy import stats

from kd_jax.core.types import Sample

LEVEL = 0.95
"""Confidence of all intervals."""

POWER = 0.8
"""Probability of showing a difference of the size found, with as many rows as are said to be
needed."""

DRAWS = 2_000
FEWEST = 2
"""Rows, or seeds, from which there is an interval."""


@dataclass(frozen=True)
class Interval:
    """Where a difference lies.

    Attributes:
      low: lower bound.
      high: upper bound.
      size: how many rows or seeds it is over.
      needed: how many would show a difference as large as the one found; None: it is 0.
    """

    low: float
    high: float
    size: int
    needed: int | None


def bootstrap(ours: Sample, theirs: Sample, *, seed: int, draws: int = DRAWS) -> Interval | None:
    """Computes the percentile interval of the difference of two models' metrics on the same rows.

    Args:
      ours: of one model.
      theirs: of the other, on the same rows in the same order.
      seed: of the draws.
      draws: how often as many rows are drawn, with replacement.

    Returns:
      That of ours minus theirs; None for fewer than two rows, or where more than one draw in a
      hundred leaves a metric undefined.

    Raises:
      ValueError: if they have different numbers of rows.

    References:
      Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13. Koehn, Statistical
      Significance Tests for Machine Translation Evaluation, 2004.
    """
    if ours.size != theirs.size:
        raise ValueError(f"{ours.size} rows and {theirs.size} rows are no pairs")
    if ours.size < FEWEST:
        return None
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        rows = rng.integers(ours.size, size=ours.size)
        one, other = ours.value(rows), theirs.value(rows)
        if one is not None and other is not None:
            found.append(one - other)
    if len(found) < 0.99 * draws:
        return None
    everything = np.arange(ours.size)
    one, other = ours.value(everything), theirs.value(everything)
    if one is None or other is None:
        return None
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # The deviation of the mean over N rows, times the root of N, is that of a single row.
    deviation = float(np.std(found)) * sqrt(ours.size)
    return Interval(float(low), float(high), ours.size, needed(one - other, deviation))


def mcnemar(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Computes the p-value of McNemar's exact test: two models are right equally often.

    Args:
      ours: [N] bool, which rows one model has right.
      theirs: [N] bool, likewise of the other.

    References:
      McNemar, Note on the sampling error of the difference between correlated proportions, 1947.
    """
    only_ours, only_theirs = int(np.sum(ours & ~theirs)), int(np.sum(theirs & ~ours))
    # Rows that both or neither have right say nothing of which is better.
    apart = only_ours + only_theirs
    return float(stats.binomtest(only_ours, apart, 0.5).pvalue) if apart else 1.0


def over_seeds(differences: Sequence[float]) -> Interval | None:
    """Computes Student's interval of the mean of differences, one a seed.

    Args:
      differences: [S], of two models that were trained by the same seed each.

    Returns:
      None for fewer than two.
    """
    count = len(differences)
    if count < FEWEST:
        return None
    mean, deviation = float(np.mean(differences)), float(np.std(differences, ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * deviation / sqrt(count)
    return Interval(mean - half, mean + half, count, needed(mean, deviation, student=True))


def needed(difference: float, deviation: float, *, student: bool = False) -> int | None:
    """Returns how many rows, or seeds, show a difference with probability `POWER`.

    Args:
      difference: to show.
      deviation: standard deviation of the difference on one row, or of one seed.
      student: whether the deviation is estimated from so few that Student's distribution counts.

    Returns:
      The number, 2 at least; None for a difference of 0.
    """
    if difference == 0:
        return None
    both = stats.norm.ppf((1 + LEVEL) / 2) + stats.norm.ppf(POWER)
    count = max(FEWEST, ceil((float(both) * deviation / difference) ** 2))
    if not student:
        return count
    # Student's quantiles shrink with the number that is sought: a few steps reach it.
    while count < 1_000:
        both = stats.t.ppf((1 + LEVEL) / 2, count - 1) + stats.t.ppf(POWER, count - 1)
        if count >= (float(both) * deviation / difference) ** 2:
            break
        count += 1
    return count
