"""A convolutional student of a text model: one layer of convolutions, maxima over time."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Shaped

from kd_jax.core.types import Array, ModelOutput
from kd_jax.models.layers import normalization
from kd_jax.models.layers.dropout import Dropout
from kd_jax.models.text import bag_of_embeddings, bert


class TextCnn(nn.Module):
    """Convolutions of several widths over the tokens' embeddings, ReLU, the maximum over time of
    each, classifier.

    A window stands at every token that counts and sees zeros outside the text, so that a text
    shorter than a kernel has windows too, and how far it is padded changes nothing.

    Features: `embeddings` `[B, T, width]`; `block_i` `[B, T, filters]` for the i-th of `kernels`, 0
    where the mask excludes a token; `pooled` `[B, D]`, their maxima, `D` the number of kernels
    times `filters`, what the classifier reads, before its dropout.

    Attributes:
      num_classes: K.
      vocabulary_size: number of token ids; an id outside gives NaN.
      width: of the embeddings.
      kernels: widths of the convolutions in tokens, at least one; the paper's are (3, 4, 5).
      filters: channels of each convolution; the paper's are 100.
      dropout: rate in [0, 1), on the classifier's input; the paper's is 0.5.

    References:
      Kim. `Convolutional Neural Networks for Sentence Classification
      <https://arxiv.org/abs/1408.5882>`_, 2014.
    """

    num_classes: int
    vocabulary_size: int
    width: int
    kernels: tuple[int, ...]
    filters: int
    dropout: float

    def __post_init__(self) -> None:
        if not self.kernels:
            raise ValueError("kernels must name at least one convolution's width, got ()")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "b t"],
        attention_mask: Shaped[Array, "b t"],
        token_type_ids: Int[Array, "b t"] | None = None,
        *,
        train: bool = False,
    ) -> ModelOutput:
        """Classifies single texts.

        Args:
          input_ids: `[B, T]` int.
          attention_mask: `[B, T]` bool or int, nonzero where a token counts. A row without any has
            pooled features 0.
          token_type_ids: must be None, as for the bag of embeddings.
          train: whether to drop out, by the random stream "dropout".

        Returns:
          Logits `[B, K]` in at least float32, and the features.

        Raises:
          ValueError: if shapes differ or `token_type_ids` are given.
        """
        bag_of_embeddings.refuse_pairs("text_cnn", token_type_ids)
        mask = bert.as_mask(input_ids, attention_mask)
        embeddings = nn.Embed(self.vocabulary_size, self.width, name="word_embeddings")(input_ids)
        # Padding has an embedding too, which the windows at the text's end would see.
        x = zero_outside(embeddings, mask)
        blocks = {}
        for i, kernel in enumerate(self.kernels):
            layer = nn.Conv(
                self.filters, (kernel,), kernel_init=nn.initializers.he_normal(), name=f"conv_{i}"
            )
            # Windows in the padding may see tokens of the text, so their responses are cleared.
            blocks[f"block_{i}"] = zero_outside(nn.relu(layer(x)), mask)
        # After a ReLU nothing is below the zeros of the positions that don't count.
        pooled = jnp.concatenate([jnp.max(block, axis=1) for block in blocks.values()], axis=-1)
        drop = Dropout(self.dropout, deterministic=not train)
        logits = nn.Dense(self.num_classes, name="classifier")(drop(pooled))
        logits = logits.astype(normalization.at_least_float32(logits.dtype))
        return ModelOutput(logits, {"embeddings": embeddings, **blocks, "pooled": pooled})


def zero_outside(x: Float[jax.Array, "b t d"], mask: Shaped[Array, "b t"]) -> jax.Array:
    """Replaces `x` `[B, T, D]` by 0 where `mask` `[B, T]` is false."""
    return jnp.where(mask[:, :, None], x, 0)
