"""Residual networks for ImageNet-sized images: four stages of basic or bottleneck blocks."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Real, Shaped

from kd_jax.core.types import Array, ModelOutput
from kd_jax.models.image import cifar_resnet, vgg
from kd_jax.models.layers import normalization

EXPANSION = 4
"""A bottleneck block's result has so many times the channels of its 3x3 convolution."""


class ResNet(nn.Module):
    """ResNet: a 7x7 convolution and a max pool, both of stride 2, four stages of blocks, global
      mean, classifier.

    A bottleneck block has its stride in the 3x3 convolution, as in torchvision ("v1.5") and, with
    `downsample_in_bottleneck` false, in transformers; the paper has it in the 1x1 convolution
    before. Shortcuts are 1x1 convolutions with batch normalization where size or channels change
    (the paper's option B).

    Features, for each stage `i`: `block_i` `[B, H, W, C]`; `block_i_preact`, the same before its
    last ReLU; `block_i_preact_margin` `[B, C]`, that of the last batch normalization there
    (`BatchNorm.margin`). `stem` `[B, H, W, C]`, before the pool; `pooled` `[B, C]`, the mean over
    positions, what the classifier reads.

    Attributes:
      num_classes: K.
      stem: channels of the first convolution, 64 as published.
      blocks: of the four stages: (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3).
      widths: channels of the 3x3 convolutions of the four stages, (64, 128, 256, 512) as published.
      bottleneck: whether a block is 1x1, 3x3 and 1x1 convolutions, the last to four times the
        channels, or two 3x3.
      entry: "imagenet" as above, or "cifar", a 3x3 convolution of stride 1 without pool, as the
        distillation literature's ResNet-50 for images of 32x32 has it.

    References:
      He et al. `Deep Residual Learning for Image Recognition <https://arxiv.org/abs/1512.03385>`_,
      2015, table 1. Goyal et al. `Accurate, Large Minibatch SGD
      <https://arxiv.org/abs/1706.02677>`_, 2017, section 5.1 (the stride).
    """

    num_classes: int
    stem: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck: bool
    entry: Literal["imagenet", "cifar"] = "imagenet"

    def __post_init__(self) -> None:
        if len(self.blocks) != 4 or len(self.widths) != 4:
            raise ValueError(
                f"blocks and widths must be four each, got {self.blocks} and {self.widths}"
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
        # On small images a stride and a pool at the start would leave too few positions.
        kernel, stride = (7, 2) if self.entry == "imagenet" else (3, 1)
        x = cifar_resnet.convolution(self.stem, kernel, stride, "conv")(vgg.as_images(self, images))
        x = nn.relu(normalization.BatchNorm(name="norm")(x, **options))
        features = {"stem": x}
        if self.entry == "imagenet":
            # Nothing is below 0 after the ReLU, so a border of zeros is as good as none; ONNX
            # converters need it apart.
            x = jnp.pad(x, ((0, 0), *cifar_resnet.ONE_AROUND, (0, 0)))
            x = nn.max_pool(x, window_shape=(3, 3), strides=(2, 2))
        for stage in range(4):
            x = self._stage(x, stage, features, **options)
        pooled = features["pooled"] = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        return ModelOutput(logits.astype(normalization.at_least_float32(logits.dtype)), features)

    def _stage(
        self, x: Float[jax.Array, "b h w c"], stage: int, features: dict[str, jax.Array], **options
    ) -> jax.Array:
        """Applies a stage, and enters its features: `[B, H, W, C]` -> `[B, H', W', C']`."""
        width, before, margin = self.widths[stage], x, x
        for i in range(self.blocks[stage]):
            # The first stage keeps the size: in the paper a pool has halved it already.
            stride, name = 2 if stage and not i else 1, f"stage_{stage}_{i}"
            if self.bottleneck:
                block = BottleneckBlock(width, stride, name=name)
            else:
                block = cifar_resnet.BasicBlock(width, stride, "projection", name=name)
            before, margin = block(x, **options)
            x = nn.relu(before)
        features |= {
            f"block_{stage}": x,
            f"block_{stage}_preact": before,
            f"block_{stage}_preact_margin": margin,
        }
        return x


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut, up to the ReLU that follows.

    Attributes:
      width: channels of the first two convolutions; the last has four times as many.
      stride: of the 3x3 convolution.
    """

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[jax.Array, "b h w c"], **options) -> tuple[jax.Array, jax.Array]:
        """Maps `[B, H, W, C]` to the sum before the ReLU `[B, H', W', 4 width]`, and its margin
        `[B, 4 width]`.
        """
        y = cifar_resnet.convolution(self.width, 1, 1, "conv_0")(x)
        y = nn.relu(normalization.BatchNorm(name="norm_0")(y, **options))
        # A stride in the 1x1 convolution would never read three of four positions.
        y = cifar_resnet.convolution(self.width, 3, self.stride, "conv_1")(y)
        y = nn.relu(normalization.BatchNorm(name="norm_1")(y, **options))
        last, wide = normalization.BatchNorm(name="norm_2"), EXPANSION * self.width
        y = last(cifar_resnet.convolution(wide, 1, 1, "conv_2")(y), **options)
        return y + cifar_resnet.shortcut(
            x, wide, self.stride, "projection", **options
        ), last.margin(y)
