"""A small convolutional student."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Real, Shaped

from kd_jax.core.types import Array, ModelOutput
from kd_jax.models.image import vgg
from kd_jax.models.layers import normalization


class Cnn(nn.Module):
    """One 3x3 convolution and 2x2 max pool for each of `widths`, global mean, classifier.

    Features: `block_0`, ... `[B, H, W, C]`, after each pool (left out where a side is too short);
    `pooled` `[B, D]`, the mean over positions, what the classifier reads.

    Attributes:
      num_classes: K.
      widths: channels of each convolution, at least one.
      batch_norm: whether each convolution is followed by batch normalization, in place of its bias.
    """

    num_classes: int
    widths: tuple[int, ...]
    batch_norm: bool

    def __post_init__(self) -> None:
        if not self.widths:
            raise ValueError("widths must name at least one convolution's channels, got ()")
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
        x = vgg.as_images(self, images)
        features = {}
        for i, width in enumerate(self.widths):
            # Batch normalization would cancel a bias.
            layer = vgg.Convolution(width, self.batch_norm, not self.batch_norm, name=f"conv_{i}")
            x, _ = layer(x, train=train, where=where, axis_name=axis_name)
            x = features[f"block_{i}"] = vgg.halve(nn.relu(x))
        # A mean, so that images of any size fit the same classifier.
        pooled = features["pooled"] = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_classes, name="classifier")(pooled)
        return ModelOutput(logits.astype(normalization.at_least_float32(logits.dtype)), features)
