"""Residual networks for CIFAR-sized images: three stages of basic blocks."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Real, Shaped

from kd_jax.core.types import Array, ModelOutput
from kd_jax.models.image import vgg
from kd_jax.models.layers import normalization

FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He's initializer by the number of outputs, as the published networks have it."""

ONE_AROUND: Any = ((1, 1), (1, 1))
"""Padding of a 3x3 pool as in PyTorch. Linen annotates it as str, and takes this."""


class CifarResNet(nn.Module):
    """ResNet on small images: a 3x3 convolution, three stages of basic blocks, global mean,
      classifier.

    Features, for each stage `i`: `block_i` `[B, H, W, C]`; `block_i_preact`, the same before its
    last ReLU; `block_i_preact_margin` `[B, C]`, that of the last batch normalization there
    (`BatchNorm.margin`). `stem` `[B, H, W, C]`; `pooled` `[B, C]`, the mean over positions, what
    the classifier reads.

    Attributes:
      num_classes: K.
      depth: 6 n + 2 for n blocks a stage: 8, 14, 20, 32, 44, 56, 110.
      stem: channels of the first convolution: 16, or 32 in the "x4" networks of the distillation
        literature.
      widths: channels of the three stages: (16, 32, 64), or (64, 128, 256) in "x4".
      shortcut: where size or channels change, "pad" takes every second pixel and adds channels of
        zeros (the paper's option A), "projection" a 1x1 convolution with batch normalization
        (option B).

    References:
      He et al. `Deep Residual Learning for Image Recognition <https://arxiv.org/abs/1512.03385>`_,
      2015, section 4.2.
    """

    num_classes: int
    depth: int
    stem: int
    widths: tuple[int, ...]
    shortcut: Literal["pad", "projection"]

    def __post_init__(self) -> None:
        # Three stages of n blocks of two convolutions, the first convolution and the classifier.
        if self.depth < 8 or self.depth % 6 != 2 or len(self.widths) != 3:
            raise ValueError(
                f"depth must be 6 n + 2 from 8 on, and widths three, got {self.depth} and"
                f" {self.widths}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        images: Real[Array, "b h w c"],
        *,
        train: bool = False,
        where: Shaped[Array, " b"] | None = None,
        axis_name: str | None = None,
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
        x = nn.relu(
            normalization.BatchNorm(name="norm")(convolution(self.stem, 3, 1, "conv")(x), **options)
        )
        features = {"stem": x}
        for stage, width in enumerate(self.widths):
            for i in range((self.depth - 2) // 6):
                # Only the first block of the second and third stage halves the size.
                block = BasicBlock(
                    width, 2 if stage and not i else 1, self.shortcut, name=f"stage_{stage}_{i}"
                )
                # The block stops before its ReLU, as several losses compare that map.
                before, margin = block(x, **options)
                x = nn.relu(before)
            features |= {
                f"block_{stage}": x,
                f"block_{stage}_preact": before,
                f"block_{stage}_preact_margin": margin,
            }
        pooled = features["pooled"] = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        # Losses of bfloat16 logits would lose most of their digits.
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
    def __call__(self, x: Float[jax.Array, "b h w c"], **options) -> tuple[jax.Array, jax.Array]:
        """Maps `[B, H, W, C]` to the sum before the ReLU `[B, H', W', width]`, and its margin `[B,
        width]`.
        """
        y = convolution(self.width, 3, self.stride, "conv_0")(x)
        y = nn.relu(normalization.BatchNorm(name="norm_0")(y, **options))
        last = normalization.BatchNorm(name="norm_1")
        y = last(convolution(self.width, 3, 1, "conv_1")(y), **options)
        # OFD takes the margin of the last BatchNorm, although a shortcut is added after it.
        return y + shortcut(x, self.width, self.stride, self.shortcut, **options), last.margin(y)


def shortcut(
    x: Float[jax.Array, "b h w c"], width: int, stride: int, kind: str, **options
) -> jax.Array:
    """Computes what a block adds to its result, `[B, H', W', width]`; called within a compact
    method.
    """
    # The identity costs nothing and is what makes depth trainable.
    if stride == 1 and x.shape[-1] == width:
        return x
    if kind == "projection":
        x = convolution(width, 1, stride, "conv_shortcut")(x)
        return normalization.BatchNorm(name="norm_shortcut")(x, **options)
    # Option A of the paper has no parameters: new channels are zeros on both sides.
    missing = width - x.shape[-1]
    before = missing // 2
    return jnp.pad(x[:, ::stride, ::stride], [(0, 0)] * 3 + [(before, missing - before)])


def convolution(
    width: int,
    kernel: int,
    stride: int,
    name: str,
    groups: int = 1,
    initializer: nn.initializers.Initializer = FAN_OUT,
) -> nn.Conv:
    """Builds a convolution without bias, padded alike on both sides as PyTorch does it."""
    # "SAME" pads unevenly at stride 2, which would shift published weights by a pixel.
    pad = [(kernel // 2, kernel // 2)] * 2
    return nn.Conv(
        width,
        (kernel, kernel),
        (stride, stride),
        pad,
        feature_group_count=groups,
        use_bias=False,
        kernel_init=initializer,
        name=name,
    )
