"""VGG: plain deep convolutional teachers, and students by a smaller width or depth."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.models import normalization
from kd_jax.types import Array, ModelOutput

CHANNELS = (64, 128, 256, 512, 512)
"""Of each stage, at width 1."""

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Depth -> convolutions in each stage (the paper's table 1, columns A, B, D, E)."""


class Vgg(nn.Module):
    """VGG on images of any size: five stages of 3x3 convolutions, global mean, hidden layers, classifier.

    Unlike the paper's, which flattens 7x7 positions, it averages over positions before the head: so any image size
    fits one set of parameters and the head stays small. A pool for which a side is too short is left out. On positions
    that few, most of what a 3x3 kernel sees is the border of zeros and the signal fades with depth: images of 8x8 need
    `batch_norm`.

    Features: `block_0` to `block_4` `[B, H, W, C]`, each stage's result after its pool; `pooled` `[B, D]`, what the
    classifier reads, before its dropout: the last of `head`, or without a head the mean over positions.

    Attributes:
      num_classes: K.
      depth: 11, 13, 16 or 19, the paper's count of layers with weights.
      width: > 0, multiplies the channels (64 to 512) of every stage.
      batch_norm: whether each convolution is followed by batch normalization, in place of its bias.
      head: widths of the hidden layers before the classifier, `()` for none.
      dropout: rate in [0, 1), on the input of every dense layer.

    References:
      Simonyan, Zisserman. `Very Deep Convolutional Networks for Large-Scale Image Recognition
      <https://arxiv.org/abs/1409.1556>`_, 2014.
    """

    num_classes: int
    depth: Literal[11, 13, 16, 19]
    width: float
    batch_norm: bool
    head: tuple[int, ...]
    dropout: float

    @nn.compact
    def __call__(
        self, images: Array, *, train: bool = False, where: Array | None = None, axis_name: str | None = None
    ) -> ModelOutput:
        """Classifies images.

        Args:
          images: `[B, H, W, C]`, cast to the dtype of the parameters.
          train: whether to drop out (random stream "dropout") and to use the batch's statistics.
          where: `[B]` bool, the rows that count in the batch statistics; None: all.
          axis_name: the pmap axis over which the batch is spread, or None.

        Returns:
          Logits `[B, K]` in at least float32, and the features.
        """
        x = as_images(self, images)
        features = {}
        for i, (channels, count) in enumerate(zip(CHANNELS, CONVOLUTIONS[self.depth], strict=True)):
            for j in range(count):
                layer = Convolution(max(1, round(channels * self.width)), self.batch_norm, name=f"conv_{i}_{j}")
                x = layer(x, train=train, where=where, axis_name=axis_name)
            x = features[f"block_{i}"] = halve(x)
        x = jnp.mean(x, axis=(1, 2))
        drop = nn.Dropout(self.dropout, deterministic=not train)
        for i, width in enumerate(self.head):
            x = nn.relu(nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f"hidden_{i}")(drop(x)))
        features["pooled"] = x
        logits = nn.Dense(self.num_classes, name="classifier")(drop(x))
        return ModelOutput(logits.astype(normalization.at_least_float32(logits.dtype)), features)


class Convolution(nn.Module):
    """3x3 convolution that keeps the size, batch normalization or a bias, ReLU.

    Attributes:
      channels: of the result.
      batch_norm: whether to normalize; there is then no bias, which normalization would cancel.
    """

    channels: int
    batch_norm: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, where: Array | None, axis_name: str | None) -> jax.Array:
        """`[B, H, W, C]` -> `[B, H, W, channels]`; the keywords are those of `normalization.BatchNorm`."""
        init = nn.initializers.he_normal()
        x = nn.Conv(self.channels, (3, 3), use_bias=not self.batch_norm, kernel_init=init, name="conv")(x)
        if self.batch_norm:
            x = normalization.BatchNorm(name="norm")(x, train=train, where=where, axis_name=axis_name)
        return nn.relu(x)


def as_images(module: nn.Module, images: Array) -> jax.Array:
    """Images `[B, H, W, C]` in the dtype of the module's parameters; ValueError where they have another rank."""
    if images.ndim != 4:
        raise ValueError(f"images must be [B, H, W, C], got {images.shape}")
    return jnp.asarray(images).astype(normalization.parameter_dtype(module))


def halve(x: jax.Array) -> jax.Array:
    """2x2 max pool of `[B, H, W, C]`, an odd last row or column dropped; `x` itself where a side is shorter than 2."""
    return nn.max_pool(x, (2, 2), (2, 2)) if min(x.shape[1:3]) >= 2 else x
