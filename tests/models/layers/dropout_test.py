"""Dropout zeroes at its rate, keeps the expectation, and draws each value by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models.layers.dropout import Dropout, random_halves


def drop(x, rate, key=0, *, deterministic=False):
    return Dropout(rate, deterministic).apply({}, x, rngs={"dropout": jax.random.key(key)})


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.9])
def test_the_rate_is_kept_and_the_others_are_scaled(rate):
    values = np.asarray(drop(jnp.ones((100, 1001)), rate))
    assert abs(np.mean(values == 0) - rate) < 4 * np.sqrt(rate * (1 - rate) / values.size)
    np.testing.assert_allclose(values[values > 0], 1 / (1 - rate), rtol=2e-4)
    assert np.mean(values) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4, 6), (4, 1)])
def test_any_shape_keeps_its_shape_and_dtype(shape):
    for dtype in (jnp.float32, jnp.bfloat16):
        result = drop(jnp.ones(shape, dtype), 0.5)
        assert result.shape == shape
        assert result.dtype == dtype


def test_without_training_or_rate_nothing_is_drawn():
    x = jnp.arange(6.0)
    for rate, deterministic in ((0.5, True), (0.0, False)):
        np.testing.assert_array_equal(Dropout(rate, deterministic).apply({}, x), x)


def test_what_is_dropped_has_no_gradient_even_where_it_is_infinite():
    x = jnp.full((64,), jnp.inf)
    kept = np.asarray(drop(jnp.ones(64), 0.5)) > 0
    assert 0 < kept.sum() < 64
    np.testing.assert_array_equal(np.asarray(drop(x, 0.5))[~kept], 0)


def test_halves_are_uniform_and_both_halves_of_a_word_are_independent():
    draws = np.asarray(random_halves(jax.random.key(1), (2000, 64))).astype(float) / 2**16
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.005
    assert np.std(draws) == pytest.approx(12**-0.5, abs=0.005)
    correlations = np.corrcoef(draws.T) - np.eye(64)
    assert np.abs(correlations).max() < 0.12


def test_other_keys_drop_other_values():
    x = jnp.ones(1000)
    np.testing.assert_array_equal(drop(x, 0.5, 3), drop(x, 0.5, 3))
    assert np.mean(np.asarray(drop(x, 0.5, 3)) == np.asarray(drop(x, 0.5, 4))) < 0.6
