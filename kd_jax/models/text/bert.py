"""Text encoders, BERT and its kin, with a classifier: teachers from Hugging Face folders, and
smaller students."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Shaped

from kd_jax.core.types import Array, Count, ModelOutput
from kd_jax.models.layers import normalization, transformer
from kd_jax.models.layers.dropout import Dropout
from kd_jax.models.layers.logical_axes import constrain


@dataclass(frozen=True)
class Family:
    """What sets a published encoder apart from BERT.

    Attributes:
      first_position: the row of the position table that the first token reads. Where it is not 0,
        the row before it is padding's, padding has that row's number as token id, and only other
        tokens advance the position.
      pooler: activation of the dense layer between the first token's state and the classifier.
      drops_before_pooler: whether dropout is applied there too.
      relative: whether every block's attention scores also have a bias by the distance of two
        tokens.
    """

    first_position: int
    pooler: Callable[[jax.Array], jax.Array]
    drops_before_pooler: bool
    relative: bool = False


FAMILIES = {
    "bert": Family(0, nn.tanh, False),
    "roberta": Family(2, nn.tanh, True),
    "distilbert": Family(0, nn.relu, False),
    "electra": Family(0, transformer.gelu, True),
    "mpnet": Family(2, nn.tanh, True, relative=True),
}
"""Name -> family; MiniLM is a "bert"."""


class Encoder(nn.Module):
    """Embeddings, post-LayerNorm blocks, pooling, classifier.

    Features: `embeddings` `[B, T, width]`; for each block `i`, `block_i` `[B, T, width]`, the last
    one also as `last_block`,
    `attention_i` `[B, heads, T, T]`, scaled scores before mask and softmax, in at least float32,
    and `query_i`, `key_i`, `value_i` `[B, heads, T, width / heads]`; `pooled` `[B, width]`, what
    the classifier reads, before its dropout; with a language head `vocabulary_logits` `[B, T,
    vocabulary_size]`, in at least float32. What the features hold at positions that the mask
    excludes is meaningless.

    Attributes:
      num_classes: K.
      vocabulary_size: number of token ids; an id outside gives NaN.
      width: of the blocks, a multiple of `heads`.
      layers: number of blocks.
      heads: attention heads of a block.
      intermediate: width of a block's hidden layer.
      max_positions: the longest T.
      type_vocabulary: number of token types; at 0 or 1 the types of a pair are not read, as in
        DistilBERT, MPNet and RoBERTa.
      dropout: rate in [0, 1), on embeddings, attention weights, both sublayers' results and the
        classifier's input.
      pooling: "cls", the first token's state through the family's dense layer, as in its published
        classifier; "mean", the mean state over the tokens that count, as in sentence encoders
        such as all-MiniLM; or "first", the first token's state as it is, as in others.
      family: whose positions and classifier, see `FAMILIES`.
      embedding_width: of the embeddings, projected to `width` where it differs (ELECTRA); 0: as
        `width`.
      language_head: whether each token is also predicted, by weights tied to the word embeddings.
      remat: what of each block the backward pass computes again, as in `layers.transformer`.
      scan: whether the blocks are one loop over stacked parameters.
      query_chunk_size: of how many queries attention's scores are in memory at once; 0: of all.
      layer_norm_epsilon: added to the variance; the architecture's value.
      predicts: for what the classifier gives logits: "example", by the pooled states; "token",
        each by its own state. Or "embedding": there is no classifier, and the pooled states are
        the output; or "vocabulary": the language head takes its place.

    References:
      Devlin et al. `BERT <https://arxiv.org/abs/1810.04805>`_, 2018. Liu et al. `RoBERTa
      <https://arxiv.org/abs/1907.11692>`_, 2019. Sanh et al. `DistilBERT
      <https://arxiv.org/abs/1910.01108>`_, 2019. Clark et al. `ELECTRA
      <https://arxiv.org/abs/2003.10555>`_, 2020. Song et al. `MPNet
      <https://arxiv.org/abs/2004.09297>`_, 2020.
    """

    num_classes: int
    vocabulary_size: int
    width: int
    layers: int
    heads: int
    intermediate: int
    max_positions: int
    type_vocabulary: Count
    dropout: float
    pooling: Literal["cls", "mean", "first"]
    family: Literal["bert", "roberta", "distilbert", "electra", "mpnet"] = "bert"
    embedding_width: Count = 0
    language_head: bool = False
    remat: transformer.Remat = False
    scan: bool = False
    query_chunk_size: Count = 0
    layer_norm_epsilon: float = 1e-12
    predicts: Literal["example", "token", "embedding", "vocabulary"] = "example"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(
                f"width must be a multiple of heads, got width {self.width} and heads {self.heads}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "b t"],
        attention_mask: Shaped[Array, "b t"],
        token_type_ids: Int[Array, "b t"] | None = None,
        *,
        positions: Int[Array, "b p"] | None = None,
        train: bool = False,
    ) -> ModelOutput:
        """Classifies texts, or their tokens.

        Args:
          input_ids: `[B, T]` int, T at most `max_positions`.
          attention_mask: `[B, T]` bool or int, nonzero where a token counts. A row without any
            gives finite nonsense.
          token_type_ids: `[B, T]` int, the sentence of a pair each token is in; None: all 0.
          positions: `[B, P]` int, the tokens whose logits are asked for, -1 for none; None: all,
            P is T. Of logits by token alone.
          train: whether to drop out, by the random stream "dropout".

        Returns:
          Logits `[B, K]` in at least float32, of tokens `[B, P, K]`, and the features. K is the
          vocabulary's size, or the width, where there is no classifier.

        Raises:
          ValueError: if shapes differ or T exceeds `max_positions`.
        """
        mask = as_mask(input_ids, attention_mask)
        drop = Dropout(self.dropout, deterministic=not train)
        # Made here, as the tied head reads the same table.
        words = nn.Embed(
            self.vocabulary_size,
            self.embedding_width or self.width,
            name="word_embeddings",
            embedding_init=transformer.INITIALIZER,
        )
        x = embeddings = self._embed(words, input_ids, token_type_ids, drop)
        x, features = transformer.run_blocks(
            x,
            mask,
            self._bias(input_ids),
            layers=self.layers,
            remat=self.remat,
            scan=self.scan,
            query_chunk_size=self.query_chunk_size,
            heads=self.heads,
            intermediate=self.intermediate,
            dropout=self.dropout,
            layer_norm_epsilon=self.layer_norm_epsilon,
            norm_first=False,
            train=train,
        )
        # Classifiers read the first token through a layer; sentence encoders have no such layer.
        if self.pooling == "cls" and self.predicts in ("example", "embedding"):
            pooled = self._pool(x, drop)
        else:
            pooled = x[:, 0] if self.pooling == "first" else masked_mean(x, mask)
        features |= {"embeddings": embeddings, "pooled": pooled, "last_block": x}
        # The tied head is large, and only language modelling reads it.
        if self.language_head and self.predicts != "vocabulary":
            features["vocabulary_logits"] = self._predict_tokens(x, words)
        if self.predicts == "vocabulary":
            return ModelOutput(self._predict_tokens(at_positions(x, positions), words), features)
        if self.predicts == "embedding":
            wide = normalization.at_least_float32(pooled.dtype)
            return ModelOutput(pooled.astype(wide), features)
        read = pooled if self.predicts == "example" else at_positions(x, positions)
        logits = transformer.dense(self.num_classes, "classifier")(drop(read))
        return ModelOutput(logits.astype(normalization.at_least_float32(logits.dtype)), features)

    def _embed(
        self,
        words: nn.Embed,
        input_ids: Int[Array, "b t"],
        token_type_ids: Int[Array, "b t"] | None,
        drop: Dropout,
    ) -> jax.Array:
        """Computes the normalized sum of word, position and type embeddings, `[B, T, width]`."""
        length = input_ids.shape[1]
        # jax would clamp the index and give late tokens one position.
        if length > self.max_positions:
            raise ValueError(
                f"the encoder has {self.max_positions} positions, got texts of {length} tokens"
            )
        if token_type_ids is not None and token_type_ids.shape != input_ids.shape:
            raise ValueError(
                f"token_type_ids must be {input_ids.shape}, as input_ids, got"
                f" {token_type_ids.shape}"
            )
        first = FAMILIES[self.family].first_position
        x = words(input_ids)
        if self.type_vocabulary:
            # A single text is all of type 0; RoBERTa has a table of one row.
            unread = token_type_ids is None or self.type_vocabulary == 1
            types = jnp.zeros_like(input_ids) if unread else token_type_ids
            x = x + self._table(self.type_vocabulary, "type_embeddings")(types)
        x = x + self._table(self.max_positions + first, "position_embeddings")(
            _positions(input_ids, first)
        )
        x = drop(transformer.layer_norm(self.layer_norm_epsilon, "embeddings_norm")(x))
        # ELECTRA's embeddings are narrower than its blocks.
        return (
            x
            if x.shape[-1] == self.width
            else transformer.dense(self.width, "embeddings_projection")(x)
        )

    def _bias(self, input_ids: Int[Array, "b t"]) -> jax.Array | None:
        """Returns the bias of attention scores by distance, `[1, heads, T, T]`, or None."""
        if not FAMILIES[self.family].relative:
            return None
        table = nn.Embed(
            2 * len(DISTANCES),
            self.heads,
            embedding_init=transformer.INITIALIZER,
            name="relative_bias",
        )
        return jnp.moveaxis(table(distance_buckets(_positions(input_ids, 0))), -1, 1)

    def _table(self, size: int, name: str) -> nn.Embed:
        return nn.Embed(
            size,
            self.embedding_width or self.width,
            embedding_init=transformer.INITIALIZER,
            name=name,
        )

    def _pool(self, x: Float[jax.Array, "b t d"], drop: Dropout) -> jax.Array:
        family = FAMILIES[self.family]
        # The families differ only here and in the pooler's activation.
        first = drop(x[:, 0]) if family.drops_before_pooler else x[:, 0]
        return family.pooler(transformer.dense(self.width, "pooler")(first))

    def _predict_tokens(self, x: Float[jax.Array, "b t d"], words: nn.Embed) -> jax.Array:
        x = transformer.gelu(transformer.dense(words.features, "language_dense")(x))
        x = transformer.layer_norm(self.layer_norm_epsilon, "language_norm")(x)
        # The projection is the word embedding itself; only the bias is of its own.
        bias = self.param("language_bias", nn.initializers.zeros, (self.vocabulary_size,))
        logits = constrain(words.attend(x), None, None, "vocab") + bias[None, None]
        return logits.astype(normalization.at_least_float32(logits.dtype))


def _positions(input_ids: Int[Array, "b t"], first: int) -> jax.Array:
    """Returns the row of the position table that each token reads, `[1, T]`.

    `[B, T]` where padding doesn't count.
    """
    if not first:
        # Counted, and not made by `arange`, so that an exported model may leave T open.
        return jnp.cumsum(jnp.ones_like(input_ids[:1]), axis=1) - 1
    # RoBERTa counts positions from its padding token on, and padding has none.
    counts = (jnp.asarray(input_ids) != first - 1).astype(jnp.int32)
    return jnp.cumsum(counts, axis=1) * counts + first - 1


DISTANCES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91)
"""Where each bucket of distances begins, as in T5: single ones up to 8, then a factor of the square
root of 2 each."""


def distance_buckets(place: jax.Array) -> jax.Array:
    """Returns the bucket of the distance from each token to each other one, `[1, T, T]` int32.

    Tokens that follow have the second half of the buckets.

    Args:
      place: `[1, T]` int, where each token stands.
    """
    distance = place[:, None, :] - place[:, :, None]
    begun = jnp.abs(distance)[..., None] >= jnp.asarray(DISTANCES[1:])[None, None, None]
    bucket = jnp.sum(begun, axis=-1)
    return jnp.where(distance > 0, bucket + len(DISTANCES), bucket).astype(jnp.int32)


def at_positions(
    x: Float[jax.Array, "b t d"], positions: Int[Array, "b p"] | None
) -> Float[jax.Array, "b p d"]:
    """Returns the states `x` `[B, T, D]` at some positions, of the first where one is -1; None: at
    all.
    """
    if positions is None:
        return x
    return jnp.take_along_axis(x, jnp.maximum(positions, 0)[:, :, None], axis=1)


def as_mask(input_ids: Int[Array, "b t"], attention_mask: Shaped[Array, "b t"]) -> jax.Array:
    """Checks the attention mask, and returns it as bool `[B, T]`."""
    if input_ids.ndim != 2 or attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"input_ids and attention_mask must both be [B, T], got {input_ids.shape} and"
            f" {attention_mask.shape}"
        )
    return jnp.asarray(attention_mask).astype(bool)


def masked_mean(x: Float[jax.Array, "b t d"], mask: Shaped[Array, "b t"]) -> jax.Array:
    """Averages `x` `[B, T, D]` over the tokens where `mask` is true: `[B, D]`; 0 where there is
    none.
    """
    # Sums of hundreds of tokens lose digits in bfloat16.
    dtype = normalization.at_least_float32(x.dtype)
    total = jnp.sum(jnp.where(mask[:, :, None], x.astype(dtype), 0), axis=1)
    count = jnp.sum(mask, axis=1, keepdims=True, dtype=dtype)
    return (total / jnp.maximum(count, 1)).astype(x.dtype)
