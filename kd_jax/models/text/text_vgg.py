"""VGG on text: a plain deep convolutional teacher that reads tokens in place of pixels."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Shaped

from kd_jax.core.types import Array, ModelOutput
from kd_jax.models.image import vgg
from kd_jax.models.layers import normalization
from kd_jax.models.layers.dropout import Dropout
from kd_jax.models.text import bag_of_embeddings, bert
from kd_jax.models.text.text_cnn import zero_outside


class TextVgg(nn.Module):
    """VGG's stages along the tokens of a text: convolutions of width 3, max pools of 2, hidden
      layers, classifier.

    How far a text is padded changes nothing: positions that don't count are zero before each
    convolution, which then sees the same zeros beyond the text's end as beyond the array's, and
    pools keep an odd last position, so that their number is five for every length and a text of one
    position passes them unchanged. After the last stage each channel
    keeps its maximum: a mean would count a last position made from one token as much as one made
      from thirty-two.

    In the late stages most of what a kernel sees of a short text is zero, and nothing of a long
    one. A response is therefore multiplied by the square root of 3 over the positions that count
    under its kernel, as if its variance came from all three. Without it batches of short and of
    long texts have other statistics in each layer, and the running ones fit neither.

    Features: `embeddings` `[B, T, embedding]`; `block_0` to `block_4` `[B, T / 2^(i+1) rounded up,
    C]`, each stage's result after its pool, 0 where no token counts; `pooled` `[B, D]`, what the
    classifier reads, before its dropout: the last of `head`, or without a head the maxima.

    Attributes:
      num_classes: K.
      vocabulary_size: number of token ids; an id outside gives NaN.
      embedding: width of the embeddings.
      depth: 11, 13, 16 or 19, VGG's count of layers with weights.
      width: > 0, multiplies the channels (64 to 512) of every stage.
      batch_norm: whether each convolution is followed by batch normalization, in place of its bias.
      head: widths of the hidden layers before the classifier, `()` for none.
      dropout: rate in [0, 1), on the embeddings and the input of every dense layer.

    References:
      Simonyan, Zisserman. `Very Deep Convolutional Networks for Large-Scale Image Recognition
      <https://arxiv.org/abs/1409.1556>`_, 2014. Conneau et al. `Very Deep Convolutional Networks
      for Text Classification <https://arxiv.org/abs/1606.01781>`_, 2016: VGG's design along the
      characters of a text. Liu et al. `Partial Convolution based Padding
      <https://arxiv.org/abs/1811.11718>`_, 2018: responses at a border multiplied by the ratio,
      whose square root is taken here.
    """

    num_classes: int
    vocabulary_size: int
    embedding: int
    depth: Literal[11, 13, 16, 19]
    width: float
    batch_norm: bool
    head: tuple[int, ...]
    dropout: float

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "b t"],
        attention_mask: Shaped[Array, "b t"],
        token_type_ids: Int[Array, "b t"] | None = None,
        *,
        train: bool = False,
        where: Shaped[Array, " b"] | None = None,
        axis_name: str | None = None,
    ) -> ModelOutput:
        """Classifies single texts.

        Args:
          input_ids: `[B, T]` int.
          attention_mask: `[B, T]` bool or int, nonzero where a token counts. A row without any has
            maxima 0.
          token_type_ids: must be None, as for the bag of embeddings.
          train: whether to drop out (random stream "dropout") and to use the batch's statistics.
          where: `[B]` bool, the rows whose tokens count in the batch statistics; None: all.
          axis_name: the pmap axis over which the batch is spread, or None.

        Returns:
          Logits `[B, K]` in at least float32, and the features.

        Raises:
          ValueError: if shapes differ or `token_type_ids` are given.
        """
        bag_of_embeddings.refuse_pairs("text_vgg", token_type_ids)
        mask = bert.as_mask(input_ids, attention_mask)
        drop = Dropout(self.dropout, deterministic=not train)
        x = nn.Embed(self.vocabulary_size, self.embedding, name="word_embeddings")(input_ids)
        features = {"embeddings": x}
        # A convolution reads over the end of a text, and padding must be nothing there.
        x = zero_outside(drop(x), mask)
        for i, (channels, count) in enumerate(
            zip(vgg.CHANNELS, vgg.CONVOLUTIONS[self.depth], strict=True)
        ):
            for j in range(count):
                layer = Convolution(
                    max(1, round(channels * self.width)), self.batch_norm, name=f"conv_{i}_{j}"
                )
                x = layer(x, mask, train=train, where=where, axis_name=axis_name)
            x, mask = halve(x, mask)
            features[f"block_{i}"] = x
        # After a ReLU nothing is below 0, so zeros outside never win.
        x = jnp.max(x, axis=1)
        for i, width in enumerate(self.head):
            x = nn.relu(
                nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f"hidden_{i}")(
                    drop(x)
                )
            )
        features["pooled"] = x
        logits = nn.Dense(self.num_classes, name="classifier")(drop(x))
        return ModelOutput(logits.astype(normalization.at_least_float32(logits.dtype)), features)


class Convolution(nn.Module):
    """Convolution of width 3 that keeps length and variance, normalization over the tokens that
    count or a bias, ReLU.

    Attributes:
      channels: of the result.
      batch_norm: whether to normalize; there is then no bias, which normalization would cancel.
    """

    channels: int
    batch_norm: bool

    @nn.compact
    def __call__(
        self,
        x: Float[jax.Array, "b t d"],
        mask: Shaped[Array, "b t"],
        *,
        train: bool,
        where: Shaped[Array, " b"] | None,
        axis_name: str | None,
    ) -> jax.Array:
        """Maps `x` `[B, T, C]`, 0 outside `mask` `[B, T]`, to `[B, T, channels]`, likewise.

        Keywords as for `TextVgg`.
        """
        init = nn.initializers.he_normal()
        # A bias comes after the rescaling below, which must not change it.
        x = nn.Conv(self.channels, (3,), use_bias=False, kernel_init=init, name="conv")(x)
        # Far from any token the count is 0; what stands there is cleared below.
        count = jnp.maximum(count_under_kernel(mask), 1).astype(
            normalization.at_least_float32(x.dtype)
        )
        # At the ends fewer tokens lie under the kernel; this keeps the variance the same.
        x = x * jnp.sqrt(3 / count).astype(x.dtype)[:, :, None]
        if self.batch_norm:
            counted = mask if where is None else mask & jnp.asarray(where).astype(bool)[:, None]
            x = normalization.BatchNorm(name="norm")(
                x, train=train, where=counted, axis_name=axis_name
            )
        else:
            x = x + self.param("bias", nn.initializers.zeros, (self.channels,))[None, None]
        # A bias or a normalization has made the padding nonzero again.
        return zero_outside(nn.relu(x), mask)


def count_under_kernel(mask: Shaped[Array, "b t"]) -> jax.Array:
    """Counts how many of each position and its two neighbours `mask` has: `[B, T]` int32, 0
    to 3.
    """
    # As integers, since a sum of bools would only be an "or".
    around = jnp.pad(mask.astype(jnp.int32), ((0, 0), (1, 1)))
    return around[:, :-2] + around[:, 1:-1] + around[:, 2:]


def halve(x: Float[jax.Array, "b t d"], mask: Shaped[Array, "b t"]) -> tuple[jax.Array, jax.Array]:
    """Pools the largest of 2 along the tokens, an odd last one kept.

    The input is nowhere negative, and 0 outside the mask.

    Args:
      x: `[B, T, C]`.
      mask: `[B, T]` bool.

    Returns:
      `[B, T / 2 rounded up, C]`, and the mask of the pools in which a token counts.
    """
    length = x.shape[1]
    # A pooled position counts if one of its two does, as the pool itself sees it.
    pairs = jnp.pad(mask, ((0, 0), (0, length % 2))).reshape(mask.shape[0], -1, 2)
    return nn.max_pool(x, window_shape=(2,), strides=(2,), padding="SAME"), jnp.any(pairs, axis=-1)
