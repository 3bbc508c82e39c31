"""Wide residual networks: three stages of pre-activation blocks on small images."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Real, Shaped

from kd_jax.core.types import Array, ModelOutput
from kd_jax.models.image import cifar_resnet, vgg
from kd_jax.models.layers import normalization

CHANNELS = (16, 32, 64)
"""Of each stage, at widening 1; the first of them also of the stem, whatever the widening."""


class WideResNet(nn.Module):
    """WRN on small images: a 3x3 convolution, three stages of pre-activation blocks, global mean,
      classifier.

    Normalization and ReLU come before each convolution. Where the channels change, the shortcut is
    a 1x1 convolution without normalization of the block's normalized and rectified input. No
    dropout within blocks.

    Features, for each stage `i`: `block_i` `[B, H, W, C]`, its sum, which no ReLU has seen yet;
    `block_i_preact`, the same after the batch normalization that follows, before that one's ReLU
    (as the distillation literature takes it); `block_i_preact_margin` `[B, C]`, that
    normalization's (`BatchNorm.margin`). `stem` `[B, H, W, C]`, the first convolution's result;
    `pooled` `[B, C]`, the mean over positions, what the classifier reads.

    Attributes:
      num_classes: K.
      depth: 6 n + 4 for n blocks a stage: 10, 16, 22, 28, 40.
      widen: multiplies the channels (16, 32, 64) of the stages.

    References:
      Zagoruyko, Komodakis. `Wide Residual Networks <https://arxiv.org/abs/1605.07146>`_, 2016.
    """

    num_classes: int
    depth: int
    widen: int

    def __post_init__(self) -> None:
        # Three stages of n blocks of two convolutions, and four more layers.
        if self.depth < 10 or self.depth % 6 != 4:
            raise ValueError(f"depth must be 6 n + 4 from 10 on, got {self.depth}")
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
        # No normalization after the stem, as the first block begins with one.
        x = cifar_resnet.convolution(CHANNELS[0], 3, 1, "conv")(vgg.as_images(self, images))
        features = {"stem": x}
        for stage, channels in enumerate(CHANNELS):
            for i in range((self.depth - 4) // 6):
                stride, name = 2 if stage and not i else 1, f"stage_{stage}_{i}"
                block = PreactivationBlock(channels * self.widen, stride, name=name)
                x, *normalized = block(x, **options)
                # A stage's map is normalized only by the block that follows, the next stage's
                # first.
                if stage and not i:
                    self._enter(features, stage - 1, *normalized)
            features[f"block_{stage}"] = x
        # After the last stage no block follows, so the network normalizes its map itself.
        norm = normalization.BatchNorm(name="norm")
        before = norm(x, **options)
        self._enter(features, 2, before, norm.margin(before))
        pooled = features["pooled"] = jnp.mean(nn.relu(before), axis=(1, 2))
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        return ModelOutput(logits.astype(normalization.at_least_float32(logits.dtype)), features)

    def _enter(
        self, features: dict[str, jax.Array], stage: int, before: jax.Array, margin: jax.Array
    ) -> None:
        features |= {f"block_{stage}_preact": before, f"block_{stage}_preact_margin": margin}


class PreactivationBlock(nn.Module):
    """Twice batch normalization, ReLU and 3x3 convolution, beside a shortcut.

    Attributes:
      width: channels.
      stride: of the first convolution; other than 1 only where the channels change.
    """

    width: int
    stride: int

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "b h w c"], **options
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Maps `[B, H, W, C]` to the sum `[B, H', W', width]`, the normalized input `[B, H, W, C]`,
        its margin `[B, C]`.
        """
        first = normalization.BatchNorm(name="norm_0")
        before = first(x, **options)
        y = nn.relu(before)
        # The shortcut reads the raw input where it is the identity, else the normalized one.
        same = x.shape[-1] == self.width
        shortcut = (
            x if same else cifar_resnet.convolution(self.width, 1, self.stride, "conv_shortcut")(y)
        )
        y = cifar_resnet.convolution(self.width, 3, self.stride, "conv_0")(y)
        y = nn.relu(normalization.BatchNorm(name="norm_1")(y, **options))
        # Nothing normalizes the sum here: the next block begins with that.
        return (
            shortcut + cifar_resnet.convolution(self.width, 3, 1, "conv_1")(y),
            before,
            first.margin(before),
        )
