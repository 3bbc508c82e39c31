"""Knowledge points: by hand where they are found, how they are counted, learned and kept, and what
is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.analysis.knowledge import (
    count_points,
    knowledge_points,
    learning_speed,
    stability,
    weight_distances,
)
from kd_jax.analysis.noise import entropy, feature_variance, learn_noise

pytestmark = pytest.mark.slow

FOREGROUND = np.array([[[True, True], [False, False]], [[True, False], [False, False]]])
ENTROPY = np.array([[[1.0, 0.5], [0.9, 1.1]], [[0.0, 1.0], [2.0, 3.0]]])
"""Mean background entropies 1 and 2."""


# Points


@pytest.mark.parametrize(
    ("threshold", "want"),
    [
        (0.2, [[[False, True], [False, False]], [[True, True], [False, False]]]),
        (0.05, [[[False, True], [True, False]], [[True, True], [False, False]]]),
        (1.5, [[[False, False], [False, False]], [[True, False], [False, False]]]),
        (-0.5, [[[True, True], [True, True]], [[True, True], [True, False]]]),
    ],
)
def test_a_point_is_a_unit_that_far_below_its_examples_mean_background(threshold, want):
    points = knowledge_points(ENTROPY, FOREGROUND, threshold=threshold)
    assert points.dtype == bool
    np.testing.assert_array_equal(points, want)


def test_a_unit_exactly_at_the_threshold_is_no_point():
    assert not knowledge_points(
        np.array([[0.5, 1.0]]), np.array([[True, False]]), threshold=0.5
    ).any()


def test_the_foreground_does_not_move_the_mean_background():
    changed = np.where(FOREGROUND, ENTROPY - 1e6, ENTROPY)
    points = knowledge_points(changed, FOREGROUND, threshold=0.2)
    np.testing.assert_array_equal(
        points[~FOREGROUND], knowledge_points(ENTROPY, FOREGROUND, threshold=0.2)[~FOREGROUND]
    )
    assert points[FOREGROUND].all()


@pytest.mark.parametrize(
    ("entropy", "foreground", "message"),
    [
        (ENTROPY, FOREGROUND[:1], r"both be \[N, U\], got \(2, 2, 2\) and \(1, 2, 2\)"),
        (ENTROPY[0, 0], FOREGROUND[0, 0], r"both be \[N, U\], got \(2,\) and \(2,\)"),
        (ENTROPY, FOREGROUND.astype(int), "foreground must be bool, got int64"),
        (np.where(FOREGROUND, ENTROPY, np.nan), FOREGROUND, "entropy of example 0 isn't finite"),
        (ENTROPY, np.array([FOREGROUND[0], np.ones((2, 2), bool)]), "example 1 has no background"),
    ],
)
def test_points_of_what_does_not_fit_are_refused(entropy, foreground, message):
    with pytest.raises(ValueError, match=message):
        knowledge_points(entropy, foreground, threshold=0.2)


# Counts


def test_points_are_counted_inside_and_outside_of_the_foreground():
    points = np.array([[[True, True], [True, False]], [[False, True], [True, False]]])
    foreground, background, ratio = count_points(points, FOREGROUND)
    np.testing.assert_array_equal(foreground, [2, 0])
    np.testing.assert_array_equal(background, [1, 2])
    np.testing.assert_allclose(ratio, [2 / 3, 0])


def test_the_ratio_of_an_example_without_points_is_not_a_number():
    counts = count_points(
        np.array([[False, False], [True, False]]), np.array([[True, False], [True, False]])
    )
    np.testing.assert_array_equal(counts.ratio, [math.nan, 1.0])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (FOREGROUND[:, 0], r"both be \[N, U\], got \(2, 2\) and \(2, 2, 2\)"),
        (ENTROPY, "points must be bool, got float64"),
    ],
)
def test_counts_of_what_does_not_fit_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        count_points(points, FOREGROUND)


# Learning speed


def test_weights_travel_the_sum_of_their_steps_in_lengths_of_the_initial_ones():
    initial = {"a": np.array([3.0, 0.0]), "b": {"c": np.array([[4.0]])}}
    first = {"a": np.array([3.0, 6.0]), "b": {"c": np.array([[12.0]])}}
    np.testing.assert_allclose(weight_distances([initial, first, initial, initial]), [2, 4, 4])


def test_steps_of_float32_weights_are_measured_in_float64():
    weights = [jax.random.normal(jax.random.key(seed), (50,)) for seed in range(3)]
    start, first, second = (np.float64(each) for each in weights)
    steps = [np.linalg.norm(first - start), np.linalg.norm(second - first)]
    np.testing.assert_allclose(
        weight_distances(weights), np.cumsum(steps) / np.linalg.norm(start), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([{"a": np.ones(2)}], "initial weights and a checkpoint, got 1"),
        (
            [{"a": np.ones(2)}, {"a": np.ones(2)}, {"b": np.ones(2)}],
            "checkpoint 2 has other parameters",
        ),
        ([{"a": np.ones(2)}, {"a": np.ones((2, 1))}], "checkpoint 1 has other parameters"),
        ([{"a": np.zeros(2)}, {"a": np.ones(2)}], "must have a length, got 0"),
        ([{"a": np.full(2, np.nan)}, {"a": np.ones(2)}], "must have a length, got nan"),
    ],
)
def test_weights_that_cannot_be_compared_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        weight_distances(weights)


def test_speed_is_the_distance_at_which_each_example_first_has_most_points():
    counts = np.array([[1, 5, 2], [4, 5, 2], [3, 0, 7]])
    speed = learning_speed(counts, np.array([0.5, 1.0, 3.0]))
    travelled = np.array([1.0, 0.5, 3.0])
    assert speed.mean == pytest.approx(travelled.mean())
    assert speed.variance == pytest.approx(travelled.var())


def test_examples_learned_at_once_have_no_variance():
    assert learning_speed(np.array([[0, 1], [3, 4]]), np.array([1.0, 2.0])) == (2.0, 0.0)


@pytest.mark.parametrize("shapes", [((2, 3), (3,)), ((2,), (2,)), ((2, 0), (2,)), ((0, 2), (0,))])
def test_speed_of_what_does_not_fit_is_refused(shapes):
    with pytest.raises(ValueError, match=r"\[M, N\] and distances \[M\], got") as refusal:
        learning_speed(np.zeros(shapes[0]), np.zeros(shapes[1]))
    assert str(shapes[0]) in str(refusal.value)


# Stability


def test_stability_is_what_the_last_checkpoint_keeps_of_all_points_ever_found():
    points = np.zeros((3, 4, 2, 2), bool)
    points[0, 0, 0, 0] = points[1, 0, 0, 1] = points[2, 0, 0, 1] = points[2, 0, 1, 1] = (
        True  # Keeps two of three.
    )
    points[:, 1, 0, 0] = True  # Keeps its one.
    points[1, 2] = True  # Gives all up.
    np.testing.assert_allclose(stability(points), [2 / 3, 1, 0, np.nan])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.ones((3, 2), bool), r"\[M, N, U\], at least one checkpoint, got \(3, 2\)"),
        (np.ones((0, 3, 2), bool), r"at least one checkpoint, got \(0, 3, 2\)"),
        (np.ones((2, 3, 2)), "points must be bool, got float64"),
    ],
)
def test_stability_of_what_does_not_fit_is_refused(points, message):
    with pytest.raises(ValueError, match=message):
        stability(points)


# From a network to its points


def test_a_network_knows_the_pixels_that_it_reads():
    images = np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype(np.float32)
    foreground = np.zeros((3, 4, 4), bool)
    foreground[:, 1:3, 1:3] = True

    def features_of(x):
        return jnp.tanh(x[:, 1:3, 1, :].reshape(-1, 2)) + x[:, 0, 0]

    sigma = learn_noise(
        features_of,
        images,
        key=jax.random.key(0),
        feature_variance=feature_variance(features_of(images)),
        units=(4, 4),
        entropy_weight=0.01,
        steps=100,
        learning_rate=0.1,
        samples=4,
        initial_sigma=0.1,
        max_sigma=4.0,
    )
    points = knowledge_points(entropy(sigma), foreground, threshold=0.5)
    counts = count_points(points, foreground)
    np.testing.assert_array_equal(counts.foreground, 2)
    np.testing.assert_array_equal(counts.background, 1)
    np.testing.assert_allclose(counts.ratio, 2 / 3)
    assert points[:, 1:3, 1].all()
    assert points[:, 0, 0].all()
