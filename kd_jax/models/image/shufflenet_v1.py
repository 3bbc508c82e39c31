"""ShuffleNets in the form of the distillation literature for small images, and the shuffle."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Real, Shaped

from kd_jax.core.types import Array, ModelOutput
from kd_jax.models.image import cifar_resnet, vgg
from kd_jax.models.layers import normalization

FAN_IN = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's own initializer of a convolution, which the literature's networks keep."""


class ShuffleNetV1(nn.Module):
    """ShuffleNet for small images: a 1x1 convolution, three stages, global mean, classifier.

    The distillation literature's form: unlike the paper's it begins with a 1x1 convolution, without
    stride or pool, and a ReLU follows the 3x3 convolution of a block. The first block of a stage
    halves the size.

    Features, for each stage `i`: `block_i` `[B, H, W, C]`; `block_i_preact`, the same before its
    last ReLU. `stem` `[B, H, W, C]`; `pooled` `[B, C]`, the mean over positions, what the
    classifier reads.

    Attributes:
      num_classes: K.
      stem: channels of the first convolution, 24 as published.
      blocks: of the three stages, (4, 8, 4) as published.
      widths: channels of the three stages, (240, 480, 960) as published for 3 groups. Each, and its
        surplus over the one before or the stem, is a multiple of 4 x groups.
      groups: of the 1x1 convolutions, but for the very first after the stem.

    References:
      Zhang et al. `ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
      Devices <https://arxiv.org/abs/1707.01083>`_, 2017. Tian et al. `Contrastive Representation
      Distillation <https://arxiv.org/abs/1910.10699>`_, 2020 (the form).
    """

    num_classes: int
    stem: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    groups: int

    def __post_init__(self) -> None:
        if len(self.blocks) != 3 or len(self.widths) != 3:
            raise ValueError(
                f"blocks and widths must be three each, got {self.blocks} and {self.widths}"
            )
        # A block that halves the size appends its result, so it makes only the surplus.
        steps = [
            after - before
            for before, after in zip((self.stem, *self.widths), self.widths, strict=False)
        ]
        # A block is a quarter as wide inside, and every width must divide into the groups.
        if min(steps) <= 0 or any(
            channels % (4 * self.groups) for channels in (*self.widths, *steps)
        ):
            raise ValueError(
                f"widths must grow from the stem's {self.stem}, and they and their steps be"
                f" multiples of "
                f"{4 * self.groups}, four times the groups, got {self.widths}"
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
        x = nn.relu(normalized(vgg.as_images(self, images), self.stem, "", **options))
        features = {"stem": x}
        for stage, width in enumerate(self.widths):
            before = x
            for i in range(self.blocks[stage]):
                # The stem has too few channels to be divided into groups (the paper's section 3.2).
                entry = 1 if stage == i == 0 else self.groups
                block = GroupedBottleneck(
                    width, entry, self.groups, downsample=not i, name=f"stage_{stage}_{i}"
                )
                before = block(x, **options)
                x = nn.relu(before)
            features |= {f"block_{stage}": x, f"block_{stage}_preact": before}
        pooled = features["pooled"] = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        return ModelOutput(logits.astype(normalization.at_least_float32(logits.dtype)), features)


class GroupedBottleneck(nn.Module):
    """1x1 in groups, shuffle, 3x3 of each channel alone, 1x1 in groups, beside a shortcut, up to
    the ReLU that follows.

    Attributes:
      width: channels of the result.
      entry: groups of the first 1x1 convolution.
      groups: of the last.
      downsample: whether to halve the size: the input's 3x3 mean then fills the last channels
        instead of being added.
    """

    width: int
    entry: int
    groups: int
    downsample: bool

    @nn.compact
    def __call__(self, x: Float[jax.Array, "b h w c"], **options) -> jax.Array:
        """Maps `[B, H, W, C]` to before the ReLU, `[B, H', W', width]`."""
        channels, stride = (self.width - x.shape[-1], 2) if self.downsample else (self.width, 1)
        # The 3x3 convolution works on a quarter of the channels, as in a bottleneck.
        inner = channels // 4
        y = nn.relu(normalized(x, inner, "_0", groups=self.entry, **options))
        # Without a shuffle, a group would only ever see its own channels.
        y = normalized(
            shuffle(y, self.entry), inner, "_1", kernel=3, stride=stride, groups=inner, **options
        )
        y = normalized(nn.relu(y), channels, "_2", groups=self.groups, **options)
        if not self.downsample:
            return x + y
        # The border of zeros counts in the mean, as in PyTorch.
        mean = nn.avg_pool(
            x,
            window_shape=(3, 3),
            strides=(2, 2),
            padding=cifar_resnet.ONE_AROUND,
            count_include_pad=True,
        )
        return jnp.concatenate([y, mean], axis=-1)


def normalized(
    x: Float[jax.Array, "b h w c"],
    width: int,
    suffix: str,
    *,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    **options,
) -> jax.Array:
    """Applies a convolution, named "conv" and the suffix, and its batch normalization.

    Called within a compact method.
    """
    x = cifar_resnet.convolution(width, kernel, stride, f"conv{suffix}", groups, FAN_IN)(x)
    return normalization.BatchNorm(name=f"norm{suffix}")(x, **options)


def shuffle(x: Float[jax.Array, "b h w c"], groups: int) -> jax.Array:
    """Takes the channels of `[B, H, W, C]` from each group in turn: the first of every group, then
    the second, ..."""
    # Transposing (group, channel) puts channels of all groups next to each other.
    return x.reshape(*x.shape[:-1], groups, -1).swapaxes(-1, -2).reshape(x.shape)
