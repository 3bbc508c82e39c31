"""Scaled dot-product self-attention that shows its scores, queries, keys and values."""

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
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes self-attention from projected queries, keys and values, before its output layer.

    Args:
      qkv: `[B, T, 3, D]`, queries, keys and values, as `Projections` gives them.
      mask: bool, `[B, T]` true where a key counts, or `[B, T, T]` where it does for a query; None:
        everywhere. A row without any gives finite
        nonsense.
      heads: divides D.
      drop: applied to the attention weights.
      bias: `[1, heads, T, T]`, added to the scaled scores; None: nothing is.

    Returns:
      The weighted values `[B, T, D]`, and by name `attention` `[B, heads, T, T]`, the scaled scores
      before mask and softmax in at least float32, rows being queries; `query`, `key` and `value`
      `[B, heads, T, D / heads]`.
    """
    batch, length, _, width = qkv.shape
    size = width // heads
    parts = qkv.reshape(batch, length, 3, heads, size)
    parts = constrain(parts, None, None, None, "heads", None)
    query, key, value = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]
    # Scores are summed in float32: in bfloat16 softmax would confuse close ones.
    dtype = normalization.at_least_float32(qkv.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=dtype) * size**-0.5
    if bias is not None:
        scores = scores + bias.astype(dtype)
    # The smallest finite number, not -inf: softmax over a row without any valid token would be NaN.
    kept = scores
    if mask is not None:
        keys = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
        kept = jnp.where(keys, scores, jnp.finfo(dtype).min)
    # Divided by their sum after the second matmul: fewer divisions, and a tenth of MiniLM's time on
    # CPU.
    powers = jnp.exp(kept - jax.lax.stop_gradient(jnp.max(kept, axis=-1, keepdims=True)))
    context = jnp.einsum(
        "bhqk,bkhd->bhqd", drop(powers).astype(qkv.dtype), value, preferred_element_type=dtype
    )
    context = (context / jnp.sum(powers, axis=-1, keepdims=True)).astype(qkv.dtype)
    context = jnp.swapaxes(context, 1, 2).reshape(batch, length, heads * size)
    # Losses on relations read these; without such a loss they cost nothing.
    by_head = {"query": query, "key": key, "value": value}
    return context, {"attention": scores} | {
        name: jnp.swapaxes(x, 1, 2) for name, x in by_head.items()
    }
