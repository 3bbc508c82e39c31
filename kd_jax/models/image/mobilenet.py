"""MobileNetV2 in the form of the distillation literature for small images."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Real, Shaped

from kd_jax.core.types import Array, ModelOutput
from kd_jax.models.image import cifar_resnet, vgg
from kd_jax.models.layers import normalization

STEM, LAST = 32, 1280
"""Channels of the first and of the last convolution, at width 1."""

STAGES = (
    (1, 16, 1, 1),
    (0, 24, 2, 1),
    (0, 32, 3, 2),
    (0, 64, 4, 2),
    (0, 96, 3, 1),
    (0, 160, 3, 2),
    (0, 320, 1, 1),
)
"""Expansion (0: the model's option), channels at width 1, blocks, stride of the first block (the
paper's table 2)."""

KEPT = (1, 2, 4, 6)
"""The last stage at each size, whose results are features."""


class MobileNetV2(nn.Module):
    """MobileNetV2 for images of 32x32 on: a 3x3 convolution, seven stages, a 1x1 convolution,
      global mean, classifier.

    The distillation literature's form. Unlike the paper's, the second stage keeps the size, so
    images are halved four times and not five; ReLU is not cut off at 6; channels are rounded down
    and not to multiples of 8; the first block has a 1x1 convolution although it expands nothing.

    Features: `block_0` to `block_3` `[B, H, W, C]`, the last result at each of the four sizes, from
      stages 2, 3, 5 and
    7 of seven, which no ReLU follows: `block_i_preact` is the same; `block_i_preact_margin` `[B,
    C]`, that of the last batch normalization there (`BatchNorm.margin`). `stem` `[B, H, W, C]`;
    `pooled` `[B, C]`, the mean over positions, what the classifier reads.

    Attributes:
      num_classes: K.
      width: > 0, multiplies the channels; below 1 not the last convolution's 1280.
      expansion: how many times wider a block is inside, 6 as published.

    References:
      Sandler et al. `MobileNetV2: Inverted Residuals and Linear Bottlenecks
      <https://arxiv.org/abs/1801.04381>`_, 2018. Tian et al. `Contrastive Representation
      Distillation <https://arxiv.org/abs/1910.10699>`_, 2020 (the form).
    """

    num_classes: int
    width: float
    expansion: int

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
        x = cifar_resnet.convolution(self._channels(STEM), 3, 2, "conv")(
            vgg.as_images(self, images)
        )
        x = nn.relu(normalization.BatchNorm(name="norm")(x, **options))
        features = {"stem": x}
        for stage in range(len(STAGES)):
            x = self._stage(x, stage, features, **options)
        # A narrow network keeps the wide last layer, as the paper does.
        x = cifar_resnet.convolution(max(LAST, self._channels(LAST)), 1, 1, "conv_last")(x)
        x = nn.relu(normalization.BatchNorm(name="norm_last")(x, **options))
        pooled = features["pooled"] = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        return ModelOutput(logits.astype(normalization.at_least_float32(logits.dtype)), features)

    def _stage(
        self, x: Float[jax.Array, "b h w c"], stage: int, features: dict[str, jax.Array], **options
    ) -> jax.Array:
        """Applies a stage, and enters its features where they are kept: `[B, H, W, C]` -> `[B, H',
        W', C']`.
        """
        expansion, channels, count, stride = STAGES[stage]
        margin = x
        for i in range(count):
            step, name = 1 if i else stride, f"stage_{stage}_{i}"
            block = InvertedResidual(
                self._channels(channels), expansion or self.expansion, step, name=name
            )
            x, margin = block(x, **options)
        if stage in KEPT:
            key = f"block_{KEPT.index(stage)}"
            # No ReLU follows, so before it and after it are one.
            features |= {key: x, f"{key}_preact": x, f"{key}_preact_margin": margin}
        return x

    def _channels(self, at_width_1: int) -> int:
        # Rounded down as in the code whose results are compared, not to multiples of 8.
        return max(1, int(at_width_1 * self.width))


class InvertedResidual(nn.Module):
    """A 1x1 convolution that widens, a 3x3 of each channel alone, a 1x1 that narrows; added to its
    input if it fits.

    Attributes:
      channels: of the result.
      expansion: how many times wider than its input it is inside.
      stride: of the 3x3 convolution.
    """

    channels: int
    expansion: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[jax.Array, "b h w c"], **options) -> tuple[jax.Array, jax.Array]:
        """Maps `[B, H, W, C]` to the result `[B, H', W', channels]`, and its margin `[B,
        channels]`.
        """
        wide = x.shape[-1] * self.expansion
        y = cifar_resnet.convolution(wide, 1, 1, "conv_0")(x)
        y = nn.relu(normalization.BatchNorm(name="norm_0")(y, **options))
        # One filter for each channel makes the wide inside affordable.
        y = cifar_resnet.convolution(wide, 3, self.stride, "conv_1", groups=wide)(y)
        y = nn.relu(normalization.BatchNorm(name="norm_1")(y, **options))
        last = normalization.BatchNorm(name="norm_2")
        # Linear, since a ReLU on so few channels would destroy information (the paper's section
        # 3.2).
        y = last(cifar_resnet.convolution(self.channels, 1, 1, "conv_2")(y), **options)
        # A shortcut has no weights here, so it needs equal shapes.
        return x + y if self.stride == 1 and x.shape == y.shape else y, last.margin(y)
