"""The dtype rule of all models, and a batch normalization that knows which rows or positions count.

Dtypes: no module has a dtype option. What is computed follows the variables: cast those and the
module follows. The exceptions are the sums that a small dtype would spoil (softmax, the statistics
of LayerNorm and BatchNorm, means over tokens) and the logits, which are computed and the logits
returned in at least float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.core.types import Array


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the dtype for sums, softmax and logits: float32, or `dtype` where that is wider."""
    return jnp.promote_types(dtype, jnp.float32)


def parameter_dtype(module: nn.Module) -> jnp.dtype:
    """Returns the dtype of a bound module's parameters, to which it casts its inputs.

    float32 while they are being made.
    """
    leaves = jax.tree.leaves(module.variables.get("params", {}))
    # A module's parameters have one dtype, so the first speaks for all.
    return leaves[0].dtype if leaves else jnp.dtype(jnp.float32)


def masked_moments(
    x: jax.Array, where: Array | None, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes each channel's mean and biased variance over what counts, on all devices together.

    Sums and counts are added over the axis, not the devices' means: those would be wrong where
    devices hold unequal numbers of what counts. Two passes, deviations from the common mean, since
    E[x^2] - E[x]^2 cancels where the mean is large against the spread.

    Args:
      x: `[B, ..., C]`, in the dtype to compute in.
      where: bool of the shape of one or more leading axes of `x`, channels not among them: `[B]`,
        the rows that count, or `[B, T]`, the positions; None: all. What does not count may hold any
        finite number.
      axis_name: the pmap axis over which the batch is spread; None: the batch is all here.

    Returns:
      Mean `[C]`, biased variance `[C]` (both 0 where nothing counts), and the count `[]` of values
      in each channel.

    Raises:
      ValueError: if `where` has another shape.
    """
    counted = jnp.ones(x.shape[0], bool) if where is None else jnp.asarray(where).astype(bool)
    if not 1 <= counted.ndim < x.ndim or counted.shape != x.shape[: counted.ndim]:
        raise ValueError(
            f"where must have the shape of leading axes of {x.shape[:-1]}, got {counted.shape}"
        )

    def total(values):
        return jax.lax.psum(values, axis_name) if axis_name else values

    valid = counted.reshape(counted.shape + (1,) * (x.ndim - counted.ndim))
    axes = tuple(range(x.ndim - 1))
    # A mask over rows stands for all positions of those rows.
    values_each = x.size // (counted.size * x.shape[-1])
    count = total(jnp.sum(counted, dtype=x.dtype)) * values_each
    # Where nothing counts the sums are 0 too, and stay finite when divided by 1.
    divisor = jnp.maximum(count, 1)
    mean = total(jnp.sum(jnp.where(valid, x, 0), axis=axes)) / divisor
    # Masked before squaring: the square of a huge value that does not count would overflow, its
    # gradient be 0 * inf.
    deviation = jnp.where(valid, x - _per_channel(mean, x.ndim), 0)
    return mean, total(jnp.sum(deviation**2, axis=axes)) / divisor, count


class BatchNorm(nn.Module):
    """Batch normalization over the rows or positions that count, on one device or over a pmap axis.

    Linen's own averages the devices' means, so its result depends on how padding falls on devices.
    Statistics are computed in at least float32; the result has the dtype of `x`. Running averages
    live in `batch_stats` (`mean`, `var` `[C]`); as in PyTorch the running variance is the unbiased
    one, while the biased one normalizes.

    Attributes:
      momentum: how much of the running average a step keeps, in [0, 1]; PyTorch's `momentum` is one
        minus this.
      epsilon: added to the variance.

    References:
      Ioffe, Szegedy. `Batch Normalization <https://arxiv.org/abs/1502.03167>`_, 2015.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool = False,
        where: Array | None = None,
        axis_name: str | None = None,
    ) -> jax.Array:
        """Normalizes `x`.

        Args:
          x: `[B, ..., C]`.
          train: whether to use, and fold into the running averages, the statistics of this batch.
            The caller then makes the collection `batch_stats` mutable.
          where: bool, what counts in the statistics: rows `[B]`, positions `[B, T]` of `x` `[B, T,
            C]`, or further leading axes; None: all.
          axis_name: the pmap axis over which the batch is spread, or None.

        Returns:
          The shape and dtype of `x`; what does not count is normalized too.
        """
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        # In float32 whatever the parameters are, since small steps would be rounded away.
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        dtype = at_least_float32(x.dtype)
        wide = x.astype(dtype)
        if train:
            mean, var, count = masked_moments(wide, where, axis_name)
            # Initialization sees a made-up batch, which must not move the averages.
            if not self.is_initializing():
                self._follow(running_mean, mean, count)
                self._follow(running_var, var * count / jnp.maximum(count - 1, 1), count)
        else:
            mean, var = running_mean.value.astype(dtype), running_var.value.astype(dtype)
        factor = scale.astype(dtype) * jax.lax.rsqrt(var + self.epsilon)
        y = (wide - _per_channel(mean, x.ndim)) * _per_channel(factor, x.ndim)
        return (y + _per_channel(bias.astype(dtype), x.ndim)).astype(x.dtype)

    def margin(self, like: jax.Array) -> jax.Array:
        """Computes OFD's margin `[B, C]`, the expected negative response, alike in all rows.

        In the dtype of `like` `[B, ..., C]`.

        To be called after the module itself.
        """
        scale, bias = (self.get_variable("params", name) for name in ("scale", "bias"))
        margin = negative_margin(scale, bias).astype(like.dtype)
        return jnp.broadcast_to(margin[None], (like.shape[0], margin.size))

    def _follow(self, running: nn.Variable, new: jax.Array, count: jax.Array) -> None:
        """Moves a running average towards a batch's statistic, unless nothing counted in that
        batch."""
        old = running.value
        moved = self.momentum * old.astype(new.dtype) + (1 - self.momentum) * new
        # A batch of nothing but padding has statistics of 0, which mean nothing.
        running.value = jnp.where(count > 0, moved, old.astype(new.dtype)).astype(old.dtype)


def negative_margin(scale: Array, bias: Array) -> jax.Array:
    """Computes `[C]`, the mean of the negative part of a Gaussian.

    Batch normalization's bias is its mean and the size of its scale its spread.

    Where next to nothing is negative, three spreads below zero, as in the authors' code.
    """
    dtype = at_least_float32(jnp.asarray(scale).dtype)
    # A negative scale only mirrors the Gaussian, so its size is the spread.
    mean, spread = (jnp.asarray(x, dtype) for x in (bias, jnp.abs(scale)))
    ratio = mean / jnp.maximum(spread, 1e-12)
    below = jax.scipy.stats.norm.cdf(-ratio)
    # Bounded from below, else the branch that is not taken could be NaN, and so its gradient.
    expected = mean - spread * jax.scipy.stats.norm.pdf(ratio) / jnp.maximum(below, 1e-3)
    return jnp.where(below > 1e-3, expected, -3 * spread)


def _per_channel(values: jax.Array, rank: int) -> jax.Array:
    """Reshapes `[C]` to `[1, ..., C]`, so that no rank is promoted silently."""
    return values.reshape((1,) * (rank - 1) + values.shape)
