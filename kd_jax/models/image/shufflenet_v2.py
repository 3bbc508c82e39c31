"""ShuffleNetV2 in the form of the distillation literature for small images."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Real, Shaped

from kd_jax.core.types import Array, ModelOutput
from kd_jax.models.image import vgg
from kd_jax.models.image.shufflenet_v1 import normalized, shuffle
from kd_jax.models.layers import normalization


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 for small images: a 1x1 convolution, three stages, a 1x1 convolution, global
      mean, classifier.

    The distillation literature's form: unlike the paper's it begins with a 1x1 convolution, without
    stride or pool. The first block of a stage halves the size.

    Features, for each stage `i`: `block_i` `[B, H, W, C]`; `block_i_preact`, the same before its
    last ReLU (half of its channels have seen one in an earlier block). `stem` `[B, H, W, C]`;
    `pooled` `[B, C]`, the mean over positions, what the classifier reads.

    Attributes:
      num_classes: K.
      stem: channels of the first convolution, 24 as published.
      blocks: of the three stages, with the one that halves: (4, 8, 4) as published.
      widths: channels of the three stages, even: (116, 232, 464) as published at width 1.
      last: channels of the last convolution, 1024 as published at width 1.

    References:
      Ma et al. `ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design
      <https://arxiv.org/abs/1807.11164>`_, 2018. Tian et al. `Contrastive Representation
      Distillation <https://arxiv.org/abs/1910.10699>`_, 2020 (the form).
    """

    num_classes: int
    stem: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    last: int

    def __post_init__(self) -> None:
        # Blocks split their channels in half.
        if (
            len(self.blocks) != 3
            or len(self.widths) != 3
            or any(width % 2 for width in self.widths)
        ):
            raise ValueError(
                f"blocks and widths must be three each, widths even, got {self.blocks} and"
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
        x = nn.relu(normalized(vgg.as_images(self, images), self.stem, "", **options))
        features = {"stem": x}
        for stage, width in enumerate(self.widths):
            before = x
            for i in range(self.blocks[stage]):
                block = ShuffleBlock(width, downsample=not i, name=f"stage_{stage}_{i}")
                before = block(x, **options)
                x = nn.relu(before)
            features |= {f"block_{stage}": x, f"block_{stage}_preact": before}
        x = nn.relu(normalized(x, self.last, "_last", **options))
        pooled = features["pooled"] = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        return ModelOutput(logits.astype(normalization.at_least_float32(logits.dtype)), features)


class ShuffleBlock(nn.Module):
    """Two branches side by side, shuffled, up to the ReLU that follows.

    A branch of 1x1, 3x3 (each channel alone) and 1x1 convolutions beside, where the size is kept,
    the half of the channels that it does not read, as they are; else 3x3 (each channel alone) and
    1x1 convolutions.

    Attributes:
      width: channels of the result, even.
      downsample: whether to halve the size.
    """

    width: int
    downsample: bool

    @nn.compact
    def __call__(self, x: Float[jax.Array, "b h w c"], **options) -> jax.Array:
        """Maps `[B, H, W, C]` to before the ReLU, `[B, H', W', width]`."""
        half = self.width // 2
        if self.downsample:
            # Where the size changes, nothing can be passed on as it is: both branches compute.
            channels = x.shape[-1]
            other = normalized(x, channels, "_0", kernel=3, stride=2, groups=channels, **options)
            other = normalized(other, half, "_1", **options)
            first, stride = 2, 2
        else:
            # One half passes by untouched, which saves the memory traffic of a sum.
            other, x = x[..., :half], x[..., half:]
            first, stride = 0, 1
        y = nn.relu(normalized(x, half, f"_{first}", **options))
        y = normalized(y, half, f"_{first + 1}", kernel=3, stride=stride, groups=half, **options)
        y = normalized(y, half, f"_{first + 2}", **options)
        # In the next block each branch gets channels of both halves.
        return shuffle(jnp.concatenate([other, y], axis=-1), 2)
