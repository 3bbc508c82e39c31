"""Learned noise: functions whose best noise is known, its bound, determinism, checkpoints,
refusals."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.analysis.noise import entropy, feature_variance, learn_noise
from kd_jax.models import registry

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(3, 4, 4, 2)).astype(np.float32)
WEIGHTS = (
    RNG.normal(size=(4, 4, 2, 5)) * np.array([0.3, 3.0, 1.0, 0.0])[:, None, None, None]
).astype(np.float32)
"""Of a linear feature that reads the second row most and the fourth not at all."""
OPTIONS = dict(
    key=jax.random.key(0),
    feature_variance=2.0,
    units=(4, 4),
    entropy_weight=0.01,
    steps=150,
    learning_rate=0.1,
    samples=16,
    initial_sigma=0.1,
    max_sigma=4.0,
)


def linear(images, weights=WEIGHTS):
    return jnp.einsum("nhwc,hwcd->nd", images, weights)


def learn(features_of, inputs, **changes):
    return np.asarray(
        jax.jit(lambda inputs: learn_noise(features_of, inputs, **OPTIONS | changes))(inputs)
    )


def best_of_linear(weights, units=(4, 4)):
    """Where the derivative by each sigma is zero: `2 sigma |w|^2 / variance = entropy_weight /
    sigma`."""
    squares = np.square(np.float64(weights)).sum(axis=(2, 3))
    grouped = squares.reshape(units[0], 4 // units[0], units[1], 4 // units[1]).sum(axis=(1, 3))
    return 0.1 / np.sqrt(np.maximum(grouped, 1e-30))


@pytest.fixture(scope="module")
def sigma():
    return learn(linear, IMAGES)


# Known answers


def test_pixels_that_a_linear_feature_reads_bear_the_noise_that_its_weights_allow(sigma):
    assert sigma.shape == (3, 4, 4)
    want = np.broadcast_to(best_of_linear(WEIGHTS)[:3], (3, 3, 4))
    np.testing.assert_allclose(sigma[:, :3], want, rtol=0.15)
    assert sigma[:, 1].max() < 0.1 < sigma[:, 0].min()


def test_pixels_that_are_not_read_drown_in_noise_up_to_the_bound(sigma):
    np.testing.assert_allclose(sigma[:, 3], 4.0, rtol=1e-6)
    assert sigma[:, :3].max() < 1


def test_neighbours_that_share_a_unit_bear_one_noise():
    found = learn(linear, IMAGES, units=(2, 4))
    assert found.shape == (3, 2, 4)
    want = best_of_linear(WEIGHTS, (2, 4))
    np.testing.assert_allclose(found, np.broadcast_to(want, (3, 2, 4)), rtol=0.15)


def test_tokens_of_embedded_texts_bear_one_noise_each():
    embeddings = RNG.normal(size=(2, 3, 6)).astype(np.float32)

    def first_two(texts):
        return texts[:, 0] + 3 * texts[:, 1]

    found = learn(first_two, embeddings, units=(3,))
    want = [0.1 / math.sqrt(6), 0.1 / math.sqrt(9 * 6), 4.0]
    np.testing.assert_allclose(found, np.broadcast_to(want, (2, 3)), rtol=0.15)


@pytest.mark.parametrize("changes", [{"entropy_weight": 0.04}, {"feature_variance": 8.0}])
def test_four_times_the_weight_or_the_variance_allows_twice_the_noise(sigma, changes):
    found = learn(linear, IMAGES, **changes)
    np.testing.assert_allclose(found[:, :3], 2 * sigma[:, :3], rtol=0.1)


def test_a_feature_and_its_multiple_bear_the_same_noise_when_measured_by_their_own_variance():
    results = []
    for scale in (1.0, 100.0):

        def features_of(images, scale=scale):
            return scale * linear(images)

        variance = feature_variance(features_of(IMAGES))
        results.append(learn(features_of, IMAGES, feature_variance=variance))
    np.testing.assert_allclose(*results, rtol=1e-3)


def test_each_example_is_learned_by_itself():
    def squares(images):
        return jnp.square(images).reshape(-1, 32)

    scaled = IMAGES * np.array([0.1, 1, 10], np.float32)[:, None, None, None]
    found = learn(squares, scaled)
    assert found[2].mean() < found[1].mean() < found[0].mean()
    alone = learn(squares, np.stack([scaled[0], scaled[0], scaled[0]]))
    np.testing.assert_allclose(alone[0], found[0], rtol=1e-4)


# Draws and compilation


def test_a_key_learns_the_same_noise_again_and_another_key_almost_the_same(sigma):
    np.testing.assert_array_equal(learn(linear, IMAGES), sigma)
    other = learn(linear, IMAGES, key=jax.random.key(1))
    assert (other != sigma)[:, :3].all()
    np.testing.assert_allclose(other, sigma, rtol=0.25)


def test_without_jit_it_learns_the_same(sigma):
    np.testing.assert_allclose(learn_noise(linear, IMAGES, **OPTIONS), sigma, rtol=1e-3)


def test_one_compilation_serves_all_checkpoints(sigma):
    traces = []

    @jax.jit
    def learn_for(weights):
        traces.append(weights)
        return learn_noise(functools.partial(linear, weights=weights), IMAGES, **OPTIONS)

    np.testing.assert_allclose(learn_for(WEIGHTS), sigma, rtol=1e-4)
    np.testing.assert_allclose(learn_for(WEIGHTS / 2)[:, :3], sigma[:, :3] * 2, rtol=0.15)
    assert len(traces) == 1


def test_the_background_of_an_image_bears_more_noise_than_what_a_network_reads():
    module = registry.build(dict(name="cnn", num_classes=3, widths=(4,), batch_norm=False))
    variables = module.init(jax.random.key(0), IMAGES)

    # The network sees the upper half alone.
    def features_of(x):
        return module.apply(variables, x[:, :2]).features["pooled"]

    variance = feature_variance(features_of(IMAGES))
    found = entropy(learn(features_of, IMAGES, feature_variance=variance, samples=4))
    np.testing.assert_allclose(found[:, 2:], entropy(4.0), rtol=1e-6)
    assert (found[:, :2] < entropy(4.0) - 0.2).all()


# Entropy and variance


def test_entropy_is_that_of_a_normal_distribution():
    np.testing.assert_allclose(entropy(np.array([1.0, math.e])), [1.4189385, 2.4189385], rtol=1e-6)


def test_the_variance_is_the_mean_squared_distance_from_the_mean_feature():
    features = RNG.normal(3.0, 2.0, size=(50, 7)).astype(np.float32)
    want = np.float64(features).var(axis=0).sum()
    np.testing.assert_allclose(feature_variance(features), want, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(feature_variance)(features), want, rtol=1e-5)
    assert feature_variance(jnp.asarray(features, jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((5, 3)), "features of 5 inputs must differ, got variance 0"),
        (np.ones((1, 3)), "features of 1 inputs must differ"),
        (np.full((2, 3), np.nan), "must differ, got variance nan"),
        (np.ones((5, 3, 1)), r"features must be \[N, D\], got \(5, 3, 1\)"),
    ],
)
def test_features_without_a_variance_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        feature_variance(features)


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": (4,)}, r"divide the positions \(4, 4\) of inputs \(3, 4, 4, 2\), got \(4,\)"),
        ({"units": (3, 4)}, r"divide the positions \(4, 4\)"),
        ({"units": (4, 0)}, r"divide the positions \(4, 4\)"),
        (
            {"inputs": np.ones((3, 4), np.float32), "units": ()},
            r"divide the positions \(\) of inputs \(3, 4\)",
        ),
        ({"inputs": IMAGES.astype(np.int32)}, "inputs must be floating point, got int32"),
        ({"inputs": np.where(IMAGES > 1, np.inf, IMAGES)}, "inputs must be finite"),
        ({"features_of": lambda x: x}, r"\[N, D\] for N = 3 inputs, got \(3, 4, 4, 2\)"),
        ({"features_of": lambda x: linear(x)[:1]}, r"\[N, D\] for N = 3 inputs, got \(1, 5\)"),
        ({"features_of": lambda x: linear(x) / 0}, "features must be finite"),
        ({"feature_variance": 0.0}, "feature_variance must be positive and finite, got 0"),
        ({"entropy_weight": -1.0}, "entropy_weight must be positive and finite, got -1"),
        ({"steps": 0}, "steps must be positive and finite, got 0"),
        ({"samples": 0}, "samples must be positive and finite, got 0"),
        ({"learning_rate": math.nan}, "learning_rate must be positive and finite, got nan"),
        ({"max_sigma": math.inf}, "max_sigma must be positive and finite, got inf"),
        ({"initial_sigma": 5.0}, "initial_sigma 5.0 exceeds max_sigma 4.0"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        learn_noise(**(OPTIONS | dict(features_of=linear, inputs=IMAGES) | changes))


def test_noise_that_leads_to_features_that_are_not_finite_is_refused():
    highest = np.abs(IMAGES).max()

    def bursting(x):
        return linear(x) + jnp.where(jnp.abs(x).max() > highest, jnp.inf, 0.0)

    with pytest.raises(ValueError, match="features of noisy inputs, hence sigma, must be finite"):
        learn_noise(bursting, IMAGES, **OPTIONS | dict(steps=40))
