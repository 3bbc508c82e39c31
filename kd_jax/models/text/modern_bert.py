"""ModernBERT: a text encoder with rotary positions, gated hidden layers and local attention."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Shaped

from kd_jax.core.types import Array, Count, ModelOutput
from kd_jax.models.layers import attention, normalization, transformer
from kd_jax.models.layers.dropout import Dropout
from kd_jax.models.layers.logical_axes import constrain
from kd_jax.models.text.bert import as_mask, at_positions, masked_mean


class ModernBert(nn.Module):
    """Token embeddings, blocks whose LayerNorm comes first, pooling, classifier; biases in none but
    the last.

    Features: as of `bert.Encoder`; queries and keys are rotated, `last_block` is normalized.

    Attributes:
      num_classes: K.
      vocabulary_size: number of token ids; an id outside gives NaN.
      width: of the blocks, a multiple of 2 `heads`.
      layers: number of blocks.
      heads: attention heads of a block.
      intermediate: width of a block's hidden layer, and of its gate.
      max_positions: the longest T.
      dropout: rate in [0, 1), on embeddings, attention weights, hidden layers and the classifier's
        input.
      pooling: "cls", a state through the prediction head, as in the published classifier; "mean"
        or "first", the mean state over the tokens that count or the first token's, as in sentence
        encoders.
      head_pooling: which of these two the prediction head reads.
      global_blocks: numbers of the blocks whose tokens attend to all; in the others, to those at
        most `window` away.
      window: of the others.
      global_theta: base of the rotations' wavelengths in global blocks.
      local_theta: in the others.
      language_head: whether each token is also predicted, by the prediction head and weights tied
        to the embeddings.
      remat: what of each block the backward pass computes again, as in `layers.transformer`.
      query_chunk_size: of how many queries attention's scores are in memory at once; 0: of all.
      layer_norm_epsilon: added to the variance.
      predicts: as of `bert.Encoder`; tokens' states pass the prediction head, too.

    References:
      Warner et al. `Smarter, better, faster, longer <https://arxiv.org/abs/2412.13663>`_, 2024. Su
      et al. `RoFormer <https://arxiv.org/abs/2104.09864>`_, 2021, for the rotations.
    """

    num_classes: int
    vocabulary_size: int
    width: int
    layers: int
    heads: int
    intermediate: int
    max_positions: int
    dropout: float
    pooling: Literal["cls", "mean", "first"]
    head_pooling: Literal["mean", "first"] = "first"
    global_blocks: tuple[Count, ...] = (0, 3, 6, 9, 12, 15, 18, 21, 24, 27)
    window: int = 64
    global_theta: float = 160_000.0
    local_theta: float = 10_000.0
    language_head: bool = False
    remat: transformer.Remat = False
    query_chunk_size: Count = 0
    layer_norm_epsilon: float = 1e-5
    predicts: Literal["example", "token", "embedding", "vocabulary"] = "example"

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width must be a multiple of 2 x heads, got width {self.width} and heads"
                f" {self.heads}"
            )
        super().__post_init__()

    def keeping(self, keep: Sequence[int]) -> "ModernBert":
        """Returns the network of some of its blocks, each with the attention that it had.

        Raises:
          ValueError: if the first is not among them, which alone reads states as they are.
        """
        if keep[0] != 0:
            raise ValueError(
                "keep_layers must begin with 0: only ModernBERT's first block has no norm before"
                f" its attention, got {tuple(keep)}"
            )
        kept = tuple(new for new, old in enumerate(keep) if old in self.global_blocks)
        return self.clone(layers=len(keep), global_blocks=kept)

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
        """Classifies texts, or their tokens; see `bert.Encoder`. Types of tokens are not read.

        Raises:
          ValueError: if shapes differ or T exceeds `max_positions`.
        """
        del token_type_ids
        mask = as_mask(input_ids, attention_mask)
        length = input_ids.shape[1]
        if isinstance(length, int) and length > self.max_positions:
            raise ValueError(
                f"the encoder has {self.max_positions} positions, got texts of {length} tokens"
            )
        drop = Dropout(self.dropout, deterministic=not train)
        words = nn.Embed(
            self.vocabulary_size,
            self.width,
            name="word_embeddings",
            embedding_init=transformer.INITIALIZER,
        )
        x = embeddings = drop(self._norm("embeddings_norm")(words(input_ids)))
        # Counted, and not made by `arange`, so that an exported model may leave T open.
        place = jnp.cumsum(jnp.ones_like(input_ids[:1]), axis=1) - 1
        near = jnp.abs(place[:, :, None] - place[:, None, :]) <= self.window
        features: dict[str, Any] = {}
        block = transformer.rematerialized(ModernBlock, self.remat)
        for i in range(self.layers):
            everywhere = i in self.global_blocks
            x, found = block(
                heads=self.heads,
                intermediate=self.intermediate,
                dropout=self.dropout,
                theta=self.global_theta if everywhere else self.local_theta,
                layer_norm_epsilon=self.layer_norm_epsilon,
                query_chunk_size=self.query_chunk_size,
                first=i == 0,
                train=train,
                name=f"block_{i}",
            )(x, mask if everywhere else mask[:, None, :] & near, place)
            features |= {f"{name}_{i}": values for name, values in found.items()}
        x = self._norm("final_norm")(x)
        # Made once, as what is pooled and each token may both pass it.
        layers = _dense(self.width, "head_dense"), self._norm("head_norm")

        def head(states: jax.Array) -> jax.Array:
            return layers[1](transformer.gelu(layers[0](states)))

        pooled = self._pooled(x, mask, head)
        features |= {"embeddings": embeddings, "pooled": pooled, "last_block": x}
        wide = normalization.at_least_float32(pooled.dtype)
        if self.predicts == "embedding":
            return ModelOutput(pooled.astype(wide), features)
        if self.predicts == "vocabulary" or self.language_head:
            # The projection is the word embedding itself; only the bias is of its own.
            bias = self.param("language_bias", nn.initializers.zeros, (self.vocabulary_size,))
            asked = positions if self.predicts == "vocabulary" else None
            tokens = words.attend(head(at_positions(x, asked))) + bias[None, None]
            if self.predicts == "vocabulary":
                return ModelOutput(tokens.astype(wide), features)
            features["vocabulary_logits"] = tokens.astype(wide)
        read = pooled if self.predicts == "example" else head(at_positions(x, positions))
        logits = transformer.dense(self.num_classes, "classifier")(drop(read))
        return ModelOutput(logits.astype(wide), features)

    def _pooled(
        self, x: Float[jax.Array, "b t d"], mask: jax.Array, head: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        # Only the published classifier has a head before its last layer.
        through = self.pooling == "cls" and self.predicts in ("example", "embedding")
        which = self.head_pooling if self.pooling == "cls" else self.pooling
        pooled = masked_mean(x, mask) if which == "mean" else x[:, 0]
        return head(pooled) if through else pooled

    def _norm(self, name: str) -> nn.LayerNorm:
        return _norm(self.layer_norm_epsilon, name)


class ModernBlock(nn.Module):
    """Self-attention with rotary positions, then a gated hidden layer, each beside a shortcut.

    Attributes:
      heads: attention heads.
      intermediate: width of the hidden layer, and of its gate.
      dropout: rate, on attention weights and the hidden layer.
      theta: base of the rotations' wavelengths.
      layer_norm_epsilon: added to the variance.
      query_chunk_size: as `chunk` of `attention.attend`.
      first: whether it is the network's first block, which reads the embeddings as they are.
      train: whether to drop out.
    """

    heads: int
    intermediate: int
    dropout: float
    theta: float
    layer_norm_epsilon: float
    query_chunk_size: int
    first: bool
    train: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, place: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps `x` `[B, T, D]` to the next, and the features of `attention.attend` and `block`.

        `mask` is bool, `[B, T]` which tokens count or `[B, T, T]` which each one sees; `place` int
        `[1, T]` is where they stand.
        """
        width = x.shape[-1]
        drop = Dropout(self.dropout, deterministic=not self.train)
        x = transformer.constrain_width(x)
        seen = x if self.first else _norm(self.layer_norm_epsilon, "attention_norm")(x)
        qkv = attention.Projections(transformer.INITIALIZER, use_bias=False, name="qkv")(seen)
        qkv = rotate(qkv, place, self.heads, self.theta)
        context, features = attention.attend(
            qkv, mask, self.heads, drop, chunk=self.query_chunk_size
        )
        x = transformer.constrain_width(x + drop(_dense(width, "attention_output")(context)))
        hidden = _dense(2 * self.intermediate, "intermediate")(
            _norm(self.layer_norm_epsilon, "output_norm")(x)
        )
        value, gate = jnp.split(hidden, 2, axis=-1)
        hidden = constrain(transformer.gelu(value) * gate, None, None, "mlp")
        x = transformer.constrain_width(x + _dense(width, "output")(drop(hidden)))
        return x, features | {"block": x}


def rotate(qkv: jax.Array, place: jax.Array, heads: int, theta: float) -> jax.Array:
    """Turns queries and keys by angles that grow with their place, so that scores see distances.

    Args:
      qkv: `[B, T, 3, D]`, queries, keys and values.
      place: int `[1, T]`.
      heads: divides D; each head's halves are the two coordinates that are turned.
      theta: the longest wavelength, over 2 pi.

    Returns:
      `[B, T, 3, D]`, values as they were.
    """
    batch, length, _, width = qkv.shape
    size = width // heads
    dtype = normalization.at_least_float32(qkv.dtype)
    rate = jnp.exp(jnp.arange(0, size, 2, dtype=dtype) * (-math.log(theta) / size))
    angle = place[:, :, None].astype(dtype) * rate[None, None]
    cosine, sine = (f(angle)[:, :, None, None] for f in (jnp.cos, jnp.sin))
    parts = qkv.reshape(batch, length, 3, heads, size)
    turned = parts[:, :, :2].astype(dtype)
    left, right = jnp.split(turned, 2, axis=-1)
    turned = jnp.concatenate([left * cosine - right * sine, right * cosine + left * sine], axis=-1)
    both = jnp.concatenate([turned.astype(qkv.dtype), parts[:, :, 2:]], axis=2)
    return both.reshape(qkv.shape)


def _dense(features: int, name: str) -> nn.Dense:
    return nn.Dense(features, use_bias=False, kernel_init=transformer.INITIALIZER, name=name)


def _norm(epsilon: float, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=epsilon, use_bias=False, use_fast_variance=False, name=name)
