"""Scaled dot-product self-attention that shows its scores, queries, keys and values."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from kd_jax.models.layers import normalization
from kd_jax.models.layers.dropout import Dropout
from kd_jax.models.layers.logical_axes import constrain, is_cutting


class Projections(nn.Module):
    """Projects to queries, keys and values by one matmul, which saves an eighth of the forward
    pass.

    Attributes:
      kernel_init: of the kernel `[D, 3 D]`.
      use_bias: whether a bias `[3 D]` is added.
    """

    kernel_init: nn.initializers.Initializer
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, T, D]` to `[B, T, 3, D]`."""
        width = x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (width, 3 * width), jnp.float32)
        bias = jnp.zeros(3 * width, x.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (3 * width,), jnp.float32)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=None)
        if not is_cutting():
            found = jax.lax.dot_general(x, kernel, (((2,), (0,)), ((), ())))
            found = found + bias[None, None] if self.use_bias else found
            return found.reshape(*x.shape[:2], 3, width)
        # Cut by heads it has to be seen as three kernels: a device has its heads of each.
        kernel = constrain(kernel.reshape(width, 3, width), None, None, "heads")
        bias = constrain(bias.reshape(3, width), None, "heads")
        return jnp.einsum("btd,dpe->btpe", x, kernel) + bias[None, None]


def attend(
    qkv: jax.Array,
    mask: jax.Array | None,
    heads: int,
    drop: Dropout,
    bias: jax.Array | None = None,
    *,
    chunk: int = 0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes self-attention from projected queries, keys and values, before its output layer.

    Args:
      qkv: `[B, T, 3, D]`, queries, keys and values, as `Projections` gives them.
      mask: bool, `[B, T]` true where a key counts, or `[B, T, T]` where it does for a query; None:
        everywhere. A row without any gives finite nonsense.
      heads: divides D.
      drop: applied to the attention weights.
      bias: `[1, heads, T, T]`, added to the scaled scores; None: nothing is.
      chunk: of how many queries the scores are in memory at once, computed again in the backward
        pass; 0: of all. Dropout then draws others.

    Returns:
      The weighted values `[B, T, D]`, and by name `attention` `[B, heads, T, T]`, the scaled scores
      before mask and softmax in at least float32, rows being queries; `query`, `key` and `value`
      `[B, heads, T, D / heads]`.

    References:
      Rabe and Staats `Self-attention Does Not Need O(n^2) Memory
      <https://arxiv.org/abs/2112.05682>`_, 2021, for the chunks of queries.
    """
    batch, length, _, width = qkv.shape
    size = width // heads
    parts = qkv.reshape(batch, length, 3, heads, size)
    parts = constrain(parts, None, None, None, "heads", None)
    query, key, value = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]
    scores = _scores(query, key, bias)
    # Over the queries a mask of keys is the same.
    seen = mask[:, None] if mask is not None and mask.ndim == 2 else mask
    # An exported network may leave T open, and then has no number of chunks.
    if chunk and isinstance(length, int) and length > chunk:
        context = _in_chunks(query, key, value, seen, bias, drop, chunk)
    else:
        context = _average(scores, value, seen, drop)
    context = jnp.swapaxes(context, 1, 2).reshape(batch, length, heads * size)
    # Losses on relations read these; without such a loss they cost nothing.
    by_head = {"query": query, "key": key, "value": value}
    return context, {"attention": scores} | {
        name: jnp.swapaxes(x, 1, 2) for name, x in by_head.items()
    }


def _scores(query: jax.Array, key: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Returns `[B, heads, Q, T]` of queries `[B, Q, heads, d]` and keys `[B, T, heads, d]`."""
    # Scores are summed in float32: in bfloat16 softmax would confuse close ones.
    dtype = normalization.at_least_float32(query.dtype)
    size = query.shape[-1]
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=dtype) * size**-0.5
    return scores if bias is None else scores + bias.astype(dtype)


def _average(
    scores: jax.Array,
    value: jax.Array,
    seen: jax.Array | None,
    drop: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Weighs values `[B, T, heads, d]` by scores `[B, heads, Q, T]`: `[B, heads, Q, d]`.

    `seen` is bool `[B, Q, T]` or `[B, 1, T]`.
    """
    # The smallest finite number, not -inf: softmax over a row without any valid token would be NaN.
    kept = scores
    if seen is not None:
        kept = jnp.where(seen[:, None], scores, jnp.finfo(scores.dtype).min)
    # Divided by their sum after the second matmul: fewer divisions, and a tenth of MiniLM's time on
    # CPU.
    powers = jnp.exp(kept - jax.lax.stop_gradient(jnp.max(kept, axis=-1, keepdims=True)))
    context = jnp.einsum(
        "bhqk,bkhd->bhqd",
        drop(powers).astype(value.dtype),
        value,
        preferred_element_type=scores.dtype,
    )
    return (context / jnp.sum(powers, axis=-1, keepdims=True)).astype(value.dtype)


def _in_chunks(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    seen: jax.Array | None,
    bias: jax.Array | None,
    drop: Dropout,
    chunk: int,
) -> jax.Array:
    """Does what `_average` does with `_scores`, some queries after the other."""
    length = query.shape[1]
    count = -(-length // chunk)

    def cut(x: jax.Array | None, axis: int) -> jax.Array | None:
        """Returns `x` as `[count, ...]` with `chunk` of its queries each, the last padded; None
        where it is the same for all queries."""
        if x is None or x.shape[axis] == 1:
            return None
        x = jnp.pad(x, [(0, count * chunk - length if i == axis else 0) for i in range(x.ndim)])
        x = x.reshape(*x.shape[:axis], count, chunk, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    stream = drop.draw_key()

    # Only a chunk's queries wait for the backward pass.
    @partial(jax.checkpoint, prevent_cse=False)
    def one(cuts: tuple[Any, ...]) -> jax.Array:
        number, query, own_bias, own_seen = cuts
        draw = None if stream is None else jax.random.fold_in(stream, number)
        return _average(
            _scores(query, key, own_bias),
            value,
            seen if own_seen is None else own_seen,
            lambda powers: drop.by_key(powers, draw),
        )

    cuts = jnp.arange(count), cut(query, 1), cut(bias, 2), cut(seen, 1)
    context = jnp.moveaxis(jax.lax.map(one, cuts), 0, 2)
    return context.reshape(*context.shape[:2], count * chunk, -1)[:, :, :length]
