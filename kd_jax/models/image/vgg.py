"""VGG: plain deep convolutional teachers, and students by a smaller width or depth."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real, Shaped

from kd_jax.core.types import Array, ModelOutput
from kd_jax.models.layers import normalization
from kd_jax.models.layers.dropout import Dropout

CHANNELS = (64, 128, 256, 512, 512)
"""Of each stage, at width 1."""

CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Depth -> convolutions in each stage (the paper's table 1, columns A, B, D, E; 8 is the
distillation literature's)."""

SIDE = 7
"""Positions a side that the published head flattens."""


class Vgg(nn.Module):
    """VGG on images of any size: five stages of 3x3 convolutions, pooling, hidden layers,
      classifier.

    By default, unlike the paper's, which flattens 7x7 positions, it averages over positions before
    the head: so the head stays small. Either way any image size fits one set of parameters. A pool
    for which a side is too short is left out. On positions that few, most of what a 3x3 kernel sees
    is the border of zeros and the signal fades with depth: images of 8x8 need `batch_norm`.

    Features: `block_0` to `block_4` `[B, H, W, C]`, each stage's result after its pool;
    `block_i_preact`, its last convolution's before ReLU and pool; with `batch_norm` also
    `block_i_preact_margin` `[B, C]` (`BatchNorm.margin`); `pooled` `[B, D]`, what the classifier
    reads, before its dropout: the last of `head`, or without a head the pooled positions.

    "flatten" orders a row by channel, height, width, as PyTorch does. So every kernel here is a
    pure transpose of PyTorch's: `hidden_0` `[C * 7 * 7, D]` that of `[D, C * 7 * 7]`, convolutions
    `[H, W, in, out]` that of `[out, in, H, W]`.

    Attributes:
      num_classes: K.
      depth: 8, 11, 13, 16 or 19, the paper's count of layers with weights.
      width: > 0, multiplies the channels (64 to 512) of every stage.
      batch_norm: whether each convolution is followed by batch normalization, in place of its bias.
      head: widths of the hidden layers before the classifier, `()` for none; (4096, 4096) as
        published.
      dropout: rate in [0, 1), on the input of every dense layer, but not of the first of `head`
        after "flatten", where the published networks have none.
      pooling: "mean" over positions, or as published "flatten": they are averaged into 7x7, by
        windows that overlap where 7 does not divide a side (PyTorch's adaptive pooling), and laid
        in a row.
      pools: of the first so many stages, at most 5. The distillation literature's networks for
        images of 32x32 have 3, for 64x64 4.
      keep_bias: whether convolutions keep their bias beside batch normalization, as the published
        networks do.

    References:
      Simonyan, Zisserman. `Very Deep Convolutional Networks for Large-Scale Image Recognition
      <https://arxiv.org/abs/1409.1556>`_, 2014. Tian et al. `Contrastive Representation
      Distillation <https://arxiv.org/abs/1910.10699>`_, 2020 (depth 8, pools).
    """

    num_classes: int
    depth: Literal[8, 11, 13, 16, 19]
    width: float
    batch_norm: bool
    head: tuple[int, ...]
    dropout: float
    pooling: Literal["mean", "flatten"] = "mean"
    pools: int = 5
    keep_bias: bool = False

    def __post_init__(self) -> None:
        if self.pools > len(CHANNELS):
            raise ValueError(f"pools must be at most 5, one a stage, got {self.pools}")
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
          train: whether to drop out (random stream "dropout") and to use the batch's statistics.
          where: `[B]` bool, the rows that count in the batch statistics; None: all.
          axis_name: the pmap axis over which the batch is spread, or None.

        Returns:
          Logits `[B, K]` in at least float32, and the features.
        """
        x, features = as_images(self, images), {}
        for i in range(len(CHANNELS)):
            x = self._stage(x, i, features, train=train, where=where, axis_name=axis_name)
        flat = self.pooling == "flatten"
        x = flattened(x) if flat else jnp.mean(x, axis=(1, 2))
        drop = Dropout(self.dropout, deterministic=not train)
        for i, width in enumerate(self.head):
            # The published network drops after each hidden layer, and never the flattened map.
            inputs = x if flat and i == 0 else drop(x)
            x = nn.relu(
                nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f"hidden_{i}")(inputs)
            )
        features["pooled"] = x
        logits = nn.Dense(self.num_classes, name="classifier")(drop(x))
        # In bfloat16 close logits would be equal, and a loss could not tell them apart.
        return ModelOutput(logits.astype(normalization.at_least_float32(logits.dtype)), features)

    def _stage(
        self, x: Float[jax.Array, "b h w c"], i: int, features: dict[str, jax.Array], **options
    ) -> jax.Array:
        """Applies stage `i`, and enters its features: `[B, H, W, C]` -> `[B, H / 2, W / 2, C']`."""
        # BatchNorm makes a bias superfluous, but published weights have one.
        bias = self.keep_bias or not self.batch_norm
        # Only a stage without convolutions would keep these, and there is none.
        before, margin = x, None
        for j in range(CONVOLUTIONS[self.depth][i]):
            channels = max(1, round(CHANNELS[i] * self.width))
            layer = Convolution(channels, self.batch_norm, bias, name=f"conv_{i}_{j}")
            before, margin = layer(x, **options)
            x = nn.relu(before)
        # Losses on responses read the map before the ReLU, and its margin.
        features[f"block_{i}_preact"] = before
        if margin is not None:
            features[f"block_{i}_preact_margin"] = margin
        x = features[f"block_{i}"] = halve(x) if i < self.pools else x
        return x


class Convolution(nn.Module):
    """3x3 convolution that keeps the size, batch normalization or a bias or both, up to the ReLU
    that follows.

    Attributes:
      channels: of the result.
      batch_norm: whether to normalize.
      bias: whether to add a bias, which normalization would cancel.
    """

    channels: int
    batch_norm: bool
    bias: bool

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "b h w c"], **options
    ) -> tuple[jax.Array, jax.Array | None]:
        """Maps `[B, H, W, C]` to `[B, H, W, channels]` and, where it normalizes, its margin `[B,
        channels]`.

        The keywords are those of `normalization.BatchNorm`.
        """
        # He's initializer keeps the variance through ReLUs, however deep the stack.
        init = nn.initializers.he_normal()
        x = nn.Conv(self.channels, (3, 3), use_bias=self.bias, kernel_init=init, name="conv")(x)
        if not self.batch_norm:
            return x, None
        norm = normalization.BatchNorm(name="norm")
        x = norm(x, **options)
        # Read after the call, since the parameters don't exist before it.
        return x, norm.margin(x)


def as_images(module: nn.Module, images: Real[Array, "b h w c"]) -> jax.Array:
    """Images `[B, H, W, C]` in the dtype of the module's parameters; ValueError where they have
    another rank."""
    if images.ndim != 4:
        raise ValueError(f"images must be [B, H, W, C], got {images.shape}")
    return jnp.asarray(images).astype(normalization.parameter_dtype(module))


def halve(x: Float[jax.Array, "b h w c"]) -> jax.Array:
    """Pools `[B, H, W, C]` by the largest of 2x2, an odd last row or column dropped.

    Returns `x` itself where a side is shorter than 2.
    """
    # A pool over a side of 1 would leave nothing.
    return nn.max_pool(x, window_shape=(2, 2), strides=(2, 2)) if min(x.shape[1:3]) >= 2 else x


def flattened(x: Float[jax.Array, "b h w c"]) -> jax.Array:
    """Maps `[B, H, W, C]` to `[B, C * 7 * 7]`: averaged into 7x7, then by channel, height,
    width.
    """
    # The published head flattens 7x7 positions, whatever the size of the pictures.
    if x.shape[1:3] != (SIDE, SIDE):
        dtype = normalization.at_least_float32(x.dtype)
        rows, columns = (jnp.asarray(_windows(size), dtype) for size in x.shape[1:3])
        means = jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x.astype(dtype), precision="highest")
        x = means.astype(x.dtype)
    # PyTorch flattens channels first, and the published head's weights have that order.
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def _windows(size: int) -> np.ndarray:
    """Returns `[7, size]`, weights of the mean over each of 7 windows.

    They cover all positions and may overlap.
    """
    windows = np.zeros((SIDE, size))
    for i in range(SIDE):
        # Windows as in PyTorch's adaptive pooling: they overlap where 7 doesn't divide the side.
        first, end = i * size // SIDE, -(-(i + 1) * size // SIDE)
        windows[i, first:end] = 1 / (end - first)
    return windows
