"""A recurrent student of a text model."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Shaped

from kd_jax.core.types import Array, ModelOutput
from kd_jax.models.layers import normalization
from kd_jax.models.layers.dropout import Dropout
from kd_jax.models.text import bag_of_embeddings, bert


class BiLstm(nn.Module):
    """Bidirectional LSTM layers over the tokens' embeddings, the last states, hidden layers,
    classifier.

    As in the paper, what follows the LSTM reads the last state of each direction, side by side, and
    hidden layers with ReLU stand before the classifier; the paper has one layer of each kind.

    Features: `embeddings` `[B, T, width]`; `block_0`, ... `[B, T, 2 state]`, the states of each
    layer, forward then backward, meaningless where the mask excludes a token; `last_states` `[B, 2
    state]`; `pooled` `[B, D]`, what the
    classifier reads, before its dropout: the last of `head`, or without a head the last states.

    Attributes:
      num_classes: K.
      vocabulary_size: number of token ids; an id outside gives NaN.
      width: of the embeddings.
      state: cells of each direction; the paper's are 150 or 300.
      layers: number of bidirectional layers.
      head: widths of the hidden layers before the classifier, `()` for none; the paper's are 200 or
        400.
      dropout: rate in [0, 1), on the input of every LSTM and every dense layer.
      predicts: for what the classifier gives logits: "example", by the last states; or "token",
        each by its own states.

    References:
      Tang et al. `Distilling Task-Specific Knowledge from BERT into Simple Neural Networks
      <https://arxiv.org/abs/1903.12136>`_, 2019.
    """

    num_classes: int
    vocabulary_size: int
    width: int
    state: int
    layers: int
    head: tuple[int, ...]
    dropout: float
    predicts: Literal["example", "token"] = "example"

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
        """Classifies single texts.

        Args:
          input_ids: `[B, T]` int.
          attention_mask: `[B, T]` bool or int, nonzero where a token counts. Those tokens must
            stand side by side from the left, as texts padded on the right have them: of the mask
            only the number in each row is used. A row without any has last states 0.
          token_type_ids: must be None, as for the bag of embeddings.
          positions: `[B, P]` int, the tokens whose logits are asked for, -1 for none; None: all, P
            is T. Of logits by token alone.
          train: whether to drop out, by the random stream "dropout".

        Returns:
          Logits `[B, K]` in at least float32, of tokens `[B, P, K]`, and the features.

        Raises:
          ValueError: if shapes differ or `token_type_ids` are given.
        """
        bag_of_embeddings.refuse_pairs("bilstm", token_type_ids)
        # The backward pass must start at a text's last token, not in its padding.
        lengths = jnp.sum(bert.as_mask(input_ids, attention_mask), axis=1, dtype=jnp.int32)
        drop = Dropout(self.dropout, deterministic=not train)
        x = nn.Embed(self.vocabulary_size, self.width, name="word_embeddings")(input_ids)
        features = {"embeddings": x}
        last = x
        for i in range(self.layers):
            last, x = self._read_both_ways(drop(x), lengths, f"{i}")
            features[f"block_{i}"] = x
        # An empty text has read nothing; its state would be that of a padding token.
        features["last_states"] = jnp.where(lengths[:, None] > 0, last, 0)
        by_token = self.predicts == "token"
        x = bert.at_positions(x, positions) if by_token else features["last_states"]
        for i, width in enumerate(self.head):
            x = nn.relu(
                nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f"hidden_{i}")(
                    drop(x)
                )
            )
        features["pooled"] = features["last_states"] if by_token else x
        logits = nn.Dense(self.num_classes, name="classifier")(drop(x))
        return ModelOutput(logits.astype(normalization.at_least_float32(logits.dtype)), features)

    def _read_both_ways(
        self, x: Float[jax.Array, "b t d"], lengths: Array, number: str
    ) -> tuple[jax.Array, jax.Array]:
        """Applies a bidirectional layer to `[B, T, D]`: its last states `[B, 2 state]` and all `[B,
        T, 2 state]`.
        """
        forward, backward = (
            nn.RNN(nn.OptimizedLSTMCell(self.state, name=f"{direction}_{number}"))
            for direction in ("forward", "backward")
        )
        # Flax's own start is in float32 whatever the variables are in, and the scan would not keep
        # one dtype.
        start = (jnp.zeros((x.shape[0], self.state), x.dtype),) * 2
        (last_forward, last_backward), states = nn.Bidirectional(
            forward, backward, return_carry=True
        )(x, seq_lengths=lengths, initial_carry=(start, start))
        # A carry is the cell and the state, and layers above read the state.
        return jnp.concatenate([last_forward[1], last_backward[1]], axis=-1), states
