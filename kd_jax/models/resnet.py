"""Residual networks for CIFAR-sized images: three stages of basic blocks."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.models import normalization, vgg
from kd_jax.types import Array, ModelOutput


class CifarResNet(nn.Module):
    """ResNet on small images: a 3x3 convolution, three stages of basic blocks, global mean, classifier.

    Features, for each stage `i`: `block_i` `[B, H, W, C]`; `block_i_preact`, the same before its last ReLU;
    `block_i_preact_margin` `[B, C]`, the expected negative response there by the last batch normalization (OFD), alike
    in all rows. `stem` `[B, H, W, C]`; `pooled` `[B, C]`, the mean over positions, what the classifier reads.

    Attributes:
      num_classes: K.
      depth: 6 n + 2 for n blocks a stage: 8, 14, 20, 32, 44, 56, 110.
      stem: channels of the first convolution: 16, or 32 in the "x4" networks of the distillation literature.
      widths: channels of the three stages: (16, 32, 64), or (64, 128, 256) in "x4".
      shortcut: where size or channels change, "pad" takes every second pixel and adds channels of zeros (the paper's
        option A), "projection" a 1x1 convolution with batch normalization (option B).

    References:
      He et al. `Deep Residual Learning for Image Recognition <https://arxiv.org/abs/1512.03385>`_, 2015, section 4.2.
    """

    num_classes: int
    depth: int
    stem: int
    widths: tuple[int, ...]
    shortcut: Literal["pad", "projection"]

    def __post_init__(self) -> None:
        if self.depth < 8 or self.depth % 6 != 2 or len(self.widths) != 3:
            raise ValueError(f"depth must be 6 n + 2 from 8 on, and widths three, got {self.depth} and {self.widths}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Array, *, train: bool = False, where: Array | None = None, axis_name: str | None = None
    ) -> ModelOutput:
        """Classifies images.

        Args:
          images: `[B, H, W, C]`, cast to the dtype of the parameters.
          train: whether to use the batch's statistics.
          where: `[B]` bool, the rows that count in the batch statistics; None: all.
          axis_name: the pmap axis over which the batch is spread, or None.

        Returns:
          Logits `[B, K]` in at least float32, and the features.
        """
        options = {"train": train, "where": where, "axis_name": axis_name}
        x = vgg.as_images(self, images)
        x = nn.relu(normalization.BatchNorm(name="norm")(convolution(self.stem, 3, 1, "conv")(x), **options))
        features = {"stem": x}
        for stage, width in enumerate(self.widths):
            for i in range((self.depth - 2) // 6):
                block = BasicBlock(width, 2 if stage and not i else 1, self.shortcut, name=f"stage_{stage}_{i}")
                before, margin = block(x, **options)
                x = nn.relu(before)
            features |= {
                f"block_{stage}": x,
                f"block_{stage}_preact": before,
                f"block_{stage}_preact_margin": jnp.broadcast_to(margin[None].astype(x.dtype), (x.shape[0], width)),
            }
        pooled = features["pooled"] = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        return ModelOutput(logits.astype(normalization.at_least_float32(logits.dtype)), features)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, up to the ReLU that follows.

    Attributes:
      width: channels.
      stride: of the first convolution.
      shortcut: see `CifarResNet`.
    """

    width: int
    stride: int
    shortcut: str

    @nn.compact
    def __call__(self, x: jax.Array, **options) -> tuple[jax.Array, jax.Array]:
        """`[B, H, W, C]` -> the sum before the ReLU `[B, H', W', width]`, and its margin `[width]`."""
        y = convolution(self.width, 3, self.stride, "conv_0")(x)
        y = nn.relu(normalization.BatchNorm(name="norm_0")(y, **options))
        last = normalization.BatchNorm(name="norm_1")
        y = last(convolution(self.width, 3, 1, "conv_1")(y), **options)
        return y + self._shortcut(x, **options), negative_margin(
            *(last.get_variable("params", name) for name in ("scale", "bias"))
        )

    def _shortcut(self, x: jax.Array, **options) -> jax.Array:
        if self.stride == 1 and x.shape[-1] == self.width:
            return x
        if self.shortcut == "projection":
            x = convolution(self.width, 1, self.stride, "conv_shortcut")(x)
            return normalization.BatchNorm(name="norm_shortcut")(x, **options)
        missing = self.width - x.shape[-1]
        before = missing // 2
        return jnp.pad(x[:, :: self.stride, :: self.stride], [(0, 0)] * 3 + [(before, missing - before)])


def convolution(width: int, kernel: int, stride: int, name: str) -> nn.Conv:
    """A convolution without bias, padded alike on both sides as PyTorch does it."""
    pad = [(kernel // 2, kernel // 2)] * 2
    return nn.Conv(width, (kernel, kernel), (stride, stride), pad, use_bias=False, name=name,
                   kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"))  # fmt: skip


def negative_margin(scale: Array, bias: Array) -> jax.Array:
    """`[C]`: the mean of the negative part of a Gaussian with batch normalization's bias as mean and |scale| as spread.

    Where next to nothing is negative, three spreads below zero, as in the authors' code.
    """
    dtype = normalization.at_least_float32(jnp.asarray(scale).dtype)
    mean, spread = (jnp.asarray(x, dtype) for x in (bias, jnp.abs(scale)))
    ratio = mean / jnp.maximum(spread, 1e-12)
    below = jax.scipy.stats.norm.cdf(-ratio)
    expected = mean - spread * jax.scipy.stats.norm.pdf(ratio) / jnp.maximum(below, 1e-3)
    return jnp.where(below > 1e-3, expected, -3 * spread)
