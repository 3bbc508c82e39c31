"""Attention against the textbook order of its steps: softmax, dropout of the weights, then the
values."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models.layers.attention import attend
from kd_jax.models.layers.dropout import Dropout

B, T, HEADS, D = 3, 5, 2, 8
QKV = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, 3, D)), jnp.float32)
MASK = jnp.asarray(np.arange(T) < np.array([[5], [3], [1]]))


class Ours(nn.Module):
    rate: float
    chunk: int = 0

    @nn.compact
    def __call__(self, qkv, mask, bias=None):
        drop = Dropout(self.rate, deterministic=False, name="drop")
        return attend(qkv, mask, HEADS, drop, bias, chunk=self.chunk)[0]


class Textbook(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, qkv, mask):
        query, key, value = (x.reshape(B, T, HEADS, D // HEADS) for x in jnp.split(qkv, 3, axis=2))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(D // HEADS)
        weights = nn.softmax(jnp.where(mask[:, None, None], scores, -jnp.inf))
        weights = Dropout(self.rate, deterministic=False, name="drop")(weights)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(B, T, D)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_dropping_before_the_division_is_dropping_the_weights(rate):
    rngs = {"dropout": jax.random.key(3)}
    found, want = (module(rate).apply({}, QKV, MASK, rngs=rngs) for module in (Ours, Textbook))
    np.testing.assert_allclose(found, want, atol=1e-6)
    plain = Textbook(0.0).apply({}, QKV, MASK)
    assert np.allclose(found, plain, atol=1e-6) == (rate == 0.0)


def test_a_row_without_any_token_is_finite():
    assert np.isfinite(Ours(0.0).apply({}, QKV, jnp.zeros((B, T), bool))).all()


NEAR = jnp.asarray(np.abs(np.arange(T)[:, None] - np.arange(T)) < 2)


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("mask", [None, MASK, MASK[:, None] & NEAR[None]], ids=["no", "keys", "by"])
@pytest.mark.parametrize("biased", [False, True])
def test_in_chunks_of_queries_values_and_gradients_are_the_same(chunk, mask, biased):
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        qkv, bias = jnp.asarray(rng.normal(size=(B, T, 3, D))), None
        if biased:
            bias = jnp.asarray(rng.normal(size=(1, HEADS, T, T)))
        # A query that sees no key reads nonsense.
        weights = rng.normal(size=(B, T, D))
        if mask is not None:
            weights = (
                weights * np.asarray(mask if mask.ndim == 3 else mask[:, None]).any(-1)[..., None]
            )

        def read(chunk, qkv):
            return jnp.sum(weights * Ours(0.0, chunk).apply({}, qkv, mask, bias))

        found, want = (jax.value_and_grad(partial(read, n))(qkv) for n in (chunk, 0))
        np.testing.assert_allclose(found[0], want[0], rtol=1e-12)
        np.testing.assert_allclose(found[1], want[1], rtol=1e-11, atol=1e-13)


def test_in_chunks_other_values_are_dropped_at_the_same_rate():
    qkv = jnp.asarray(np.random.default_rng(0).normal(size=(8, 96, 3, D)), jnp.float32)
    # With equal scores and values of 1 a query reads the share of keys that were kept, scaled.
    qkv = qkv.at[:, :, :2].set(0).at[:, :, 2].set(1)

    def draw(chunk, key):
        rngs = {"dropout": jax.random.key(key)}
        return np.asarray(Ours(0.25, chunk).apply({}, qkv, None, rngs=rngs))

    found = draw(32, 0)
    assert found.mean() == pytest.approx(1, abs=0.01)
    assert found.std() == pytest.approx((0.25 / 0.75 / 96) ** 0.5, rel=0.1)
    np.testing.assert_array_equal(found, draw(32, 0))
    # Each chunk draws its own, and each key others.
    for one, other in ((found[:, :32], found[:, 32:64]), (found, draw(32, 1))):
        assert np.abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.1


def temporary_bytes(chunk):
    """Bytes beside arguments and results of a training step of attention over 1,024 tokens."""
    qkv = jax.ShapeDtypeStruct((1, 1024, 3, 16), jnp.float32)

    def read(qkv):
        return jnp.sum(Ours(0.0, chunk).apply({}, qkv, None) ** 2)

    return jax.jit(jax.grad(read)).lower(qkv).compile().memory_analysis().temp_size_in_bytes


def test_in_chunks_a_step_never_holds_all_scores():
    scores = HEADS * 1024 * 1024 * 4
    assert temporary_bytes(0) > scores
    assert temporary_bytes(64) < scores / 4
