"""Scaled dot-product self-attention that shows its scores, queries, keys and values."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.models import normalization


def attend(
    qkv: jax.Array, mask: jax.Array | None, heads: int, drop: nn.Dropout
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Self-attention from projected queries, keys and values, before its output layer.

    Args:
      qkv: `[B, T, 3 D]`, queries, keys and values side by side, as one matmul gives them.
      mask: `[B, T]` bool, true where a key counts; None: everywhere. A row without any gives finite nonsense.
      heads: divides D.
      drop: applied to the attention weights.

    Returns:
      The weighted values `[B, T, D]`, and by name `attention` `[B, heads, T, T]`, the scaled scores before mask and
      softmax in at least float32, rows being queries; `query`, `key` and `value` `[B, heads, T, D / heads]`.
    """
    batch, length, triple = qkv.shape
    size = triple // 3 // heads
    parts = qkv.reshape(batch, length, 3, heads, size)
    query, key, value = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]
    dtype = normalization.at_least_float32(qkv.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=dtype) * size**-0.5
    # The smallest finite number, not -inf: softmax over a row without any valid token would be NaN.
    kept = scores if mask is None else jnp.where(mask[:, None, None, :], scores, jnp.finfo(dtype).min)
    weights = drop(nn.softmax(kept).astype(qkv.dtype))
    context = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, length, heads * size)
    by_head = {"query": query, "key": key, "value": value}
    return context, {"attention": scores} | {name: jnp.swapaxes(x, 1, 2) for name, x in by_head.items()}
