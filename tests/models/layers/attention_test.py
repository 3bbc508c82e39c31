"""Attention against the textbook order of its steps: softmax, dropout of the weights, then the
values."""

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

    @nn.compact
    def __call__(self, qkv, mask):
        return attend(qkv, mask, HEADS, Dropout(self.rate, deterministic=False, name="drop"))[0]


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
