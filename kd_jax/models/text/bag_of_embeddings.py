"""A bag of embeddings: the smallest student of a text model."""

from typing import Literal

import flax.linen as nn
from jaxtyping import Int, Shaped

from kd_jax.core.types import Array, ModelOutput
from kd_jax.models.layers import normalization
from kd_jax.models.layers.dropout import Dropout
from kd_jax.models.text import bert


class BagOfEmbeddings(nn.Module):
    """The mean of the tokens' embeddings, hidden layers, classifier; the order of the tokens is
    lost.

    Features: `embeddings` `[B, T, width]`; `mean_embedding` `[B, width]`; `pooled` `[B, D]`, what
      the classifier reads,
    before its dropout: the last of `hidden`, or without any the mean embedding.

    Attributes:
      num_classes: K.
      vocabulary_size: number of token ids; an id outside gives NaN.
      width: of the embeddings.
      hidden: widths of the hidden layers, `()` for none.
      dropout: rate in [0, 1), on the input of every dense layer.
      predicts: "example", logits of the text; or "embedding": there is no classifier, and what it
        would read is the output.

    References:
      Iyyer et al. `Deep Unordered Composition Rivals Syntactic Methods for Text Classification
      <https://aclanthology.org/P15-1162>`_, 2015.
    """

    num_classes: int
    vocabulary_size: int
    width: int
    hidden: tuple[int, ...]
    dropout: float
    predicts: Literal["example", "embedding"] = "example"

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
            mean embedding 0.
          token_type_ids: must be None. A bag can't tell the sentences of a pair apart, and mixing
            them silently would make a pair task look learnable that is not.
          train: whether to drop out, by the random stream "dropout".

        Returns:
          Logits `[B, K]` in at least float32, and the features.

        Raises:
          ValueError: if shapes differ or `token_type_ids` are given.
        """
        refuse_pairs("bag_of_embeddings", token_type_ids)
        mask = bert.as_mask(input_ids, attention_mask)
        embeddings = nn.Embed(self.vocabulary_size, self.width, name="word_embeddings")(input_ids)
        # Over the tokens that count, so that padding changes nothing.
        x = mean = bert.masked_mean(embeddings, mask)
        drop = Dropout(self.dropout, deterministic=not train)
        for i, width in enumerate(self.hidden):
            x = nn.relu(
                nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f"hidden_{i}")(
                    drop(x)
                )
            )
        logits = x
        if self.predicts == "example":
            logits = nn.Dense(self.num_classes, name="classifier")(drop(x))
        logits = logits.astype(normalization.at_least_float32(logits.dtype))
        return ModelOutput(logits, {"embeddings": embeddings, "mean_embedding": mean, "pooled": x})


def refuse_pairs(model: str, token_type_ids: Int[Array, "b t"] | None) -> None:
    """Raises ValueError where a model of single texts gets token types."""
    if token_type_ids is not None:
        raise ValueError(
            f"{model} reads single texts and got token_type_ids, so sentence pairs; encoder reads"
            f" pairs"
        )
