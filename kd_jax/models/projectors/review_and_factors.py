"""The parts of the knowledge mapping network that read several maps, or both sides: ReviewKD's
fusion, FT's factors."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.core.types import Array
from kd_jax.models.layers import normalization


class Convolution(nn.Module):
    """Convolution without bias, then batch normalization by the batch.

    Attributes:
      width: channels of the result.
      kernel: side of the kernel.
    """

    width: int
    kernel: int

    @nn.compact
    def __call__(self, x: jax.Array, *, where: Array | None, axis_name: str | None) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H, W, width]`."""
        x = nn.Conv(self.width, (self.kernel, self.kernel), use_bias=False, name="conv")(x)
        return normalization.BatchNorm(name="norm")(x, train=True, where=where, axis_name=axis_name)


class Review(nn.Module):
    """ReviewKD's attention-based fusion: each student map is fused with what the deeper ones gave.

    From the deepest map on: a 1x1 convolution to `middle` channels; the deeper result, enlarged by
    repetition, and this one are added with weights for each position that an attention of both
    decides; a 3x3 convolution gives the map that is compared with the teacher's.

    Attributes:
      widths: channels of the teacher's maps, shallow to deep.
      middle: channels in which maps are fused.

    References:
      Chen et al. `Distilling Knowledge via Knowledge Review <https://arxiv.org/abs/2104.09044>`_,
      2021.
    """

    widths: tuple[int, ...]
    middle: int

    @nn.compact
    def __call__(
        self, maps: tuple[Array, ...], *, where: Array | None = None, axis_name: str | None = None
    ) -> tuple[jax.Array, ...]:
        """Returns student maps `[B, H_i, W_i, C_i]`, shallow to deep -> fused maps `[B, H_i, W_i,
        widths[i]]`, likewise.
        """
        dtype, options = (
            normalization.parameter_dtype(self),
            {"where": where, "axis_name": axis_name},
        )
        fused, deeper = [], None
        # From the deepest map to the first: knowledge of deep layers reviews shallow ones.
        for i in reversed(range(len(maps))):
            x = Convolution(self.middle, 1, name=f"reduce_{i}")(
                jnp.asarray(maps[i]).astype(dtype), **options
            )
            if deeper is not None:
                # Nearest as in the paper's code: deeper maps are smaller.
                deeper = jax.image.resize(deeper, (*x.shape[:3], self.middle), "nearest")
                both = jnp.concatenate([x, deeper], axis=-1)
                # Two weights a position decide how much of each map goes on.
                attention = nn.sigmoid(nn.Conv(2, (1, 1), name=f"attention_{i}")(both))
                x = x * attention[..., :1] + deeper * attention[..., 1:]
            deeper = x
            fused.append(Convolution(self.widths[i], 3, name=f"expand_{i}")(x, **options))
        return tuple(reversed(fused))


class Paraphraser(nn.Module):
    """FT's factors of a teacher's map: an auto-encoder of 3x3 convolutions with fewer channels in
      the middle.

    Attributes:
      width: the map's channels.
      factors: channels of the factors.

    References:
      Kim, Park, Kwak. `Paraphrasing Complex Network <https://arxiv.org/abs/1802.04977>`_, 2018.
    """

    width: int
    factors: int

    @nn.compact
    def __call__(
        self, x: Array, *, where: Array | None = None, axis_name: str | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Maps `[B, H, W, width]` to factors `[B, H, W, factors]` and the reconstruction `[B, H, W,
        width]`.
        """
        x = jnp.asarray(x).astype(normalization.parameter_dtype(self))
        factors = _rectified_stack(
            x, (self.width, self.factors, self.factors), "encode", where, axis_name
        )
        # The decoder mirrors the encoder, and is needed only while the paraphraser learns.
        widths = (self.factors, self.width, self.width)
        return factors, _rectified_stack(factors, widths, "decode", where, axis_name)


class Translator(nn.Module):
    """FT's factors of a student's map, to be compared with the paraphraser's.

    Attributes:
      width: the map's channels.
      factors: channels of the factors.
    """

    width: int
    factors: int

    @nn.compact
    def __call__(
        self, x: Array, *, where: Array | None = None, axis_name: str | None = None
    ) -> jax.Array:
        """Maps `[B, H, W, width]` to `[B, H, W, factors]`."""
        x = jnp.asarray(x).astype(normalization.parameter_dtype(self))
        return _rectified_stack(
            x, (self.width, self.factors, self.factors), "translate", where, axis_name
        )


def _rectified_stack(x, widths, name, where, axis_name):
    """Convolutions to each of `widths`, each followed by a leaky ReLU; called within a compact
    method."""
    for i, width in enumerate(widths):
        x = Convolution(width, 3, name=f"{name}_{i}")(x, where=where, axis_name=axis_name)
        # Slope 0.1 as in RepDistiller's code.
        x = nn.leaky_relu(x, 0.1)
    return x
