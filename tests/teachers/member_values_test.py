"""What an ensemble's members are worth: by hand, and adding up to what the ensemble is."""

import numpy as np
import pytest

from kd_jax.tasks import make_task
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


def test_members_that_give_numbers_are_worth_their_part_of_the_primary_metric():
    """a has the number itself, b its opposite: alone they are worth 1 and -1, together nothing."""
    numbers = np.array([[1.0], [2.0], [4.0], [np.nan]], np.float32)
    outputs = np.stack([numbers, -numbers])
    ensemble = ensemble_of("ab", "mean_logits", weights=(0.6, 0.4))
    found = shapley_of_members(ensemble, outputs, numbers, make_task("regression", "pearson"))
    assert found["empty"] == 0
    # Together 0.2 of the number are left, whose correlation is whole.
    assert found["all"] == pytest.approx(1)
    assert found["values"] == pytest.approx({"a": (1 + 2) / 2, "b": (-1 + 0) / 2})


def test_an_error_is_worth_less_the_larger_it_is():
    """a is right everywhere; without looking the error is the deviation of the numbers, 2."""
    numbers = np.array([[2.0], [-2.0], [2.0], [-2.0]], np.float32)
    outputs = np.stack([numbers, np.zeros_like(numbers)])
    found = shapley_of_members(
        ensemble_of("ab", "mean_logits"), outputs, numbers, make_task("regression", "rmse")
    )
    assert (found["empty"], found["all"]) == (-2.0, -1.0)
    # b alone adds nothing to a guess, and beside a it takes 1 away.
    assert found["values"] == pytest.approx({"a": (2 + 1) / 2, "b": (0 - 1) / 2})


def test_sets_are_valued_above_how_often_each_class_is_there():
    """Always the class that three of four examples have: F1 of 6/7 for it, 0 for the other."""
    labels = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], np.float32)
    outputs = np.stack([np.where(labels > 0, 3.0, -3.0)] * 2).astype(np.float32)
    ensemble = Ensemble(
        dict.fromkeys("ab"), "mean_probabilities", (0.5, 0.5), (1.0, 1.0), "v", kind="sets"
    )
    found = shapley_of_members(ensemble, outputs, labels, make_task("multilabel"))
    assert found["empty"] == pytest.approx(3 / 7)
    assert found["all"] == 1
    assert found["values"] == pytest.approx({"a": 2 / 7, "b": 2 / 7})
