"""What an ensemble's members are worth: by hand, and adding up to what the ensemble is."""

import numpy as np
import pytest

from kd_jax.teachers.ensemble import Ensemble
from kd_jax.teachers.member_values import shapley_of_members

LABELS = np.array([0, 1, 2, 3, 0, -1])
K = 4


def logits_that_are_right_at(rows, sure):
    """Right with the margin `sure` in some rows, wrong by 1 in the others."""
    logits = np.zeros((len(LABELS), K), np.float32)
    for row, label in enumerate(LABELS):
        logits[row, label if row in rows else (label + 1) % K] = sure if row in rows else 1.0
    return logits


def ensemble_of(names, combine="mean_probabilities", weights=None):
    count = len(names)
    return Ensemble(
        dict.fromkeys(names), combine, weights or (1 / count,) * count, (1.0,) * count, "v"
    )


def test_two_members_that_know_different_rows_by_hand():
    """a knows 3 of 5 labelled rows and b 1; together 4, each outvoting the other's error: v = 1/4,
    3/5, 1/5, 4/5."""
    logits = np.stack(
        [logits_that_are_right_at({0, 1, 2}, 5.0), logits_that_are_right_at({3}, 5.0)]
    )
    found = shapley_of_members(ensemble_of("ab"), logits, LABELS)
    assert found["empty"] == 0.25
    assert found["all"] == 0.8
    assert found["values"]["a"] == pytest.approx(((0.6 - 0.25) + (0.8 - 0.2)) / 2)
    assert found["values"]["b"] == pytest.approx(((0.2 - 0.25) + (0.8 - 0.6)) / 2)
    assert found["standard_errors"] == {"a": 0.0, "b": 0.0}


@pytest.mark.parametrize("combine", ["mean_probabilities", "mean_logits", "most_confident"])
def test_values_add_up_to_the_ensembles_accuracy_minus_a_guess(combine):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(4, 300, K)).astype(np.float32), rng.integers(0, K, 300)
    found = shapley_of_members(ensemble_of("abcd", combine), logits, labels)
    assert sum(found["values"].values()) == pytest.approx(found["all"] - found["empty"])


def test_members_that_say_the_same_are_worth_the_same():
    one = logits_that_are_right_at({0, 2}, 3.0)
    found = shapley_of_members(ensemble_of("ab"), np.stack([one, one]), LABELS)
    assert found["values"]["a"] == pytest.approx(found["values"]["b"])


def test_a_subset_keeps_its_weights_proportions():
    """c alone is right as often as if it had all the weight."""
    logits = np.stack([logits_that_are_right_at({0}, 5.0), logits_that_are_right_at({1, 2}, 5.0)])
    heavy = shapley_of_members(ensemble_of("ac", weights=(0.999, 0.001)), logits, LABELS)
    assert heavy["all"] == pytest.approx(0.2)
    assert heavy["values"]["c"] == pytest.approx(((0.4 - 0.25) + 0.0) / 2)
