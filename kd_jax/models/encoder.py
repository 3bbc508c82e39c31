"""The BERT encoder with a classifier: teachers from Hugging Face folders, and smaller students of their kind."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.models import normalization
from kd_jax.types import Array, ModelOutput

INITIALIZER = nn.initializers.truncated_normal(stddev=0.02)
"""BERT's own initializer, for every kernel and embedding."""


class Encoder(nn.Module):
    """BERT: embeddings, post-LayerNorm blocks, pooling, classifier.

    Features: `embeddings` and `block_0`, ... `[B, T, width]`; `attention_0`, ... `[B, heads, T, T]`, scaled scores
    before mask and softmax, in at least float32; `pooled` `[B, width]`, what the classifier reads, before its dropout.
    What the features hold at positions that the mask excludes is meaningless.

    Attributes:
      num_classes: K.
      vocabulary_size: number of token ids; an id outside gives NaN.
      width: of embeddings and blocks, a multiple of `heads`.
      layers: number of blocks.
      heads: attention heads of a block.
      intermediate: width of a block's hidden layer.
      max_positions: the longest T.
      type_vocabulary: number of token types.
      dropout: rate in [0, 1), on embeddings, attention weights, both sublayers' results and the classifier's input.
      pooling: "cls", the first token's state through a dense layer and tanh, as in BertForSequenceClassification; or
        "mean", the mean state over the tokens that count, as in sentence encoders such as all-MiniLM.
      layer_norm_epsilon: added to the variance; the architecture's value.

    References:
      Devlin et al. `BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding
      <https://arxiv.org/abs/1810.04805>`_, 2018.
    """

    num_classes: int
    vocabulary_size: int
    width: int
    layers: int
    heads: int
    intermediate: int
    max_positions: int
    type_vocabulary: int
    dropout: float
    pooling: Literal["cls", "mean"]
    layer_norm_epsilon: float = 1e-12

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got width {self.width} and heads {self.heads}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, input_ids: Array, attention_mask: Array, token_type_ids: Array | None = None, *, train: bool = False
    ) -> ModelOutput:
        """Classifies texts.

        Args:
          input_ids: `[B, T]` int, T at most `max_positions`.
          attention_mask: `[B, T]` bool or int, nonzero where a token counts. A row without any gives finite nonsense.
          token_type_ids: `[B, T]` int, the sentence of a pair each token is in; None: all 0.
          train: whether to drop out, by the random stream "dropout".

        Returns:
          Logits `[B, K]` in at least float32, and the features.

        Raises:
          ValueError: if shapes differ or T exceeds `max_positions`.
        """
        mask = as_mask(input_ids, attention_mask)
        features = {}
        x = features["embeddings"] = self._embed(input_ids, token_type_ids, train)
        for i in range(self.layers):
            block = Block(self.heads, self.intermediate, self.dropout, self.layer_norm_epsilon, name=f"block_{i}")
            x, features[f"attention_{i}"] = block(x, mask, train=train)
            features[f"block_{i}"] = x
        first = self.pooling == "cls"
        pooled = nn.tanh(_dense(self.width, "pooler")(x[:, 0])) if first else masked_mean(x, mask)
        features["pooled"] = pooled
        logits = _dense(self.num_classes, "classifier")(nn.Dropout(self.dropout)(pooled, deterministic=not train))
        return ModelOutput(logits.astype(normalization.at_least_float32(logits.dtype)), features)

    def _embed(self, input_ids: Array, token_type_ids: Array | None, train: bool) -> jax.Array:
        """The normalized sum of word, position and type embeddings, `[B, T, width]`."""
        length = input_ids.shape[1]
        if length > self.max_positions:
            raise ValueError(f"the encoder has {self.max_positions} positions, got texts of {length} tokens")
        types = jnp.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        if types.shape != input_ids.shape:
            raise ValueError(f"token_type_ids must be {input_ids.shape}, as input_ids, got {types.shape}")

        def embedding(size, name):
            return nn.Embed(size, self.width, embedding_init=INITIALIZER, name=name)

        words = embedding(self.vocabulary_size, "word_embeddings")(input_ids)
        positions = embedding(self.max_positions, "position_embeddings")(jnp.arange(length)[None])
        x = words + embedding(self.type_vocabulary, "type_embeddings")(types) + positions
        x = _layer_norm(self.layer_norm_epsilon, "embeddings_norm")(x)
        return nn.Dropout(self.dropout)(x, deterministic=not train)


class Block(nn.Module):
    """One post-LayerNorm transformer block: self-attention, then two dense layers around an exact GELU.

    Attributes:
      heads: attention heads.
      intermediate: width of the hidden layer.
      dropout: rate.
      layer_norm_epsilon: added to the variance.
    """

    heads: int
    intermediate: int
    dropout: float
    layer_norm_epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """`x` `[B, T, D]` and `mask` `[B, T]` bool -> the next `[B, T, D]` and the scores `[B, heads, T, T]`."""
        width = x.shape[-1]
        drop = nn.Dropout(self.dropout, deterministic=not train)
        context, scores = self._attend(x, mask, drop)
        attended = drop(_dense(width, "attention_output")(context))
        x = _layer_norm(self.layer_norm_epsilon, "attention_norm")(x + attended)
        hidden = nn.gelu(_dense(self.intermediate, "intermediate")(x), approximate=False)
        hidden = drop(_dense(width, "output")(hidden))
        return _layer_norm(self.layer_norm_epsilon, "output_norm")(x + hidden), scores

    def _attend(self, x: jax.Array, mask: jax.Array, drop: nn.Dropout) -> tuple[jax.Array, jax.Array]:
        """Self-attention up to its output layer: `[B, T, D]`, and the scaled scores `[B, heads, T, T]`."""
        batch, length, width = x.shape
        # One matmul for the three saves about an eighth of the forward pass.
        qkv = _dense(3 * width, "qkv")(x).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        dtype = normalization.at_least_float32(x.dtype)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=dtype)
        scores = scores * (width // self.heads) ** -0.5
        # The smallest finite number, not -inf: softmax over a row without any valid token would be NaN.
        weights = nn.softmax(jnp.where(mask[:, None, None, :], scores, jnp.finfo(dtype).min))
        context = jnp.einsum("bhqk,bkhd->bqhd", drop(weights.astype(x.dtype)), value)
        return context.reshape(batch, length, width), scores


def as_mask(input_ids: Array, attention_mask: Array) -> jax.Array:
    """The attention mask as bool `[B, T]`; ValueError where it or the ids have another shape."""
    if input_ids.ndim != 2 or attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"input_ids and attention_mask must both be [B, T], got {input_ids.shape} and {attention_mask.shape}"
        )
    return jnp.asarray(attention_mask).astype(bool)


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean of `x` `[B, T, D]` over the tokens where `mask` `[B, T]` is true: `[B, D]`; 0 where there is none."""
    dtype = normalization.at_least_float32(x.dtype)
    total = jnp.sum(jnp.where(mask[:, :, None], x.astype(dtype), 0), axis=1)
    count = jnp.sum(mask, axis=1, keepdims=True, dtype=dtype)
    return (total / jnp.maximum(count, 1)).astype(x.dtype)


def _dense(features: int, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=INITIALIZER, name=name)


def _layer_norm(epsilon: float, name: str) -> nn.LayerNorm:
    # Linen's fast variance, E[x^2] - E[x]^2, cancels where a token's mean is large against its spread.
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)
