"""Intervals of paired differences: against formulas by hand, scipy, and what they promise."""

import numpy as np
import pytest
from scipy import stats

from kd_jax.analysis import intervals
from kd_jax.analysis.intervals import bootstrap, mcnemar, needed, over_seeds
from kd_jax.core.types import Sample


def mean_of(values):
    values = np.asarray(values, np.float64)
    return Sample(len(values), lambda rows: float(values[rows].mean()))


def test_the_interval_is_scipys_percentile_interval_of_the_paired_differences():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0.2, 1, 200), rng.normal(0, 1, 200)
    found = bootstrap(mean_of(ours), mean_of(theirs), seed=1, draws=20_000)
    wanted = stats.bootstrap(
        (ours - theirs,), np.mean, n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    assert found is not None
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.01)
    assert found.size == 200


def test_what_both_models_have_in_common_falls_away():
    hard = np.random.default_rng(0).normal(0, 100, 50)
    found = bootstrap(mean_of(hard + 1), mean_of(hard), seed=0)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((1, 1))
    assert found.needed == 2


def test_the_same_seed_draws_the_same_rows():
    one, other = mean_of([1, 0, 1, 1]), mean_of([0, 1, 0, 1])
    assert bootstrap(one, other, seed=3) == bootstrap(one, other, seed=3)
    assert bootstrap(one, other, seed=3) != bootstrap(one, other, seed=4)


def test_one_row_and_metrics_that_are_mostly_undefined_have_no_interval():
    assert bootstrap(mean_of([1]), mean_of([0]), seed=0) is None
    undefined = Sample(5, lambda rows: None if 0 in rows else 1.0)
    assert bootstrap(undefined, mean_of([0, 1, 0, 1, 1]), seed=0) is None
    with pytest.raises(ValueError, match="3 rows and 2 rows are no pairs"):
        bootstrap(mean_of([1, 2, 3]), mean_of([1, 2]), seed=0)


def test_mcnemar_is_the_binomial_test_of_the_rows_that_differ():
    ours = np.array([True] * 9 + [False] * 2 + [True] * 20 + [False] * 5)
    theirs = np.array([False] * 9 + [True] * 2 + [True] * 20 + [False] * 5)
    # Of eleven rows nine and more, or two and fewer: 2 (1 + 11 + 55) / 2^11.
    assert mcnemar(ours, theirs) == pytest.approx(2 * 67 / 2048)
    assert mcnemar(ours, ours) == 1


def test_over_seeds_it_is_students():
    found = over_seeds([1.0, 2.0, 3.0])
    assert found is not None
    half = 4.30265 / np.sqrt(3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-4)
    assert found.low < 0 < found.high
    wanted = stats.ttest_1samp([1.0, 2.0, 3.0], 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert over_seeds([1.0]) is None


def test_as_many_as_are_needed_show_it_four_times_in_five():
    # (1.96 + 0.84)^2 = 7.85 times the squared ratio of deviation and difference.
    assert needed(0.1, 1.0) == 785
    assert needed(-0.1, 1.0) == 785
    assert needed(0.0, 1.0) is None
    assert needed(5.0, 0.1) == 2
    count = needed(1.0, 1.0, student=True)
    assert count is not None
    rng = np.random.default_rng(0)
    drawn = rng.normal(1, 1, (4000, count))
    shown = stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05
    assert 0.76 < shown.mean() < 0.9


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_of_95_percent_intervals_93_to_97_hold_the_truth(share):
    """Two models of which one is right on 2 % more of all rows there are."""
    rng, rows, held = np.random.default_rng(0), 400, 0
    truth = 0.02
    chances = [share / 2 + truth / 2, share / 2 - truth / 2, (1 - share) * 0.8]
    for trial in range(300):
        kinds = rng.choice(4, rows, p=[*chances, 1 - sum(chances)])
        ours, theirs = (kinds == 0) | (kinds == 2), (kinds == 1) | (kinds == 2)
        found = bootstrap(mean_of(ours), mean_of(theirs), seed=trial, draws=400)
        assert found is not None
        held += found.low <= truth <= found.high
    assert 0.93 <= held / 300 <= 0.97
    assert intervals.LEVEL == 0.95
