"""The transformer block that text encoders and vision transformers share, and a stack of them."""

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.core.types import PyTree, Variables
from kd_jax.models.layers import attention
from kd_jax.models.layers.dropout import Dropout
from kd_jax.models.layers.logical_axes import constrain

INITIALIZER = nn.initializers.truncated_normal(stddev=0.02)
"""BERT's and ViT's own initializer, for every kernel and embedding."""

Remat = Literal[
    False, True, "nothing_saveable", "dots_with_no_batch_dims_saveable", "dots_saveable"
]
"""What the backward pass computes again: nothing, all of a block (True, or "nothing_saveable"), all
but its dense layers, or all but its matmuls: the names of `jax.checkpoint_policies`."""

STACK = "blocks"
"""Where a scanned stack keeps its parameters, `[layers, ...]`; otherwise block `i` keeps them in
`block_i`."""


class Block(nn.Module):
    """Self-attention, then two dense layers around an exact GELU, each beside a shortcut.

    Attributes:
      heads: attention heads.
      intermediate: width of the hidden layer.
      dropout: rate, on attention weights and both sublayers' results.
      layer_norm_epsilon: added to the variance.
      norm_first: whether LayerNorm precedes each sublayer (ViT) or follows each sum (BERT).
      query_chunk_size: as `chunk` of `attention.attend`.
      train: whether to drop out.
    """

    heads: int
    intermediate: int
    dropout: float
    layer_norm_epsilon: float
    norm_first: bool
    query_chunk_size: int
    train: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None, bias: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps `x` `[B, T, D]` to the next `[B, T, D]` and the features by name.

        `mask` is `[B, T]` bool, or None; `bias` `[1, heads, T, T]` of the scores, or None.

        The features are those of `attention.attend`, and `block`, the result once more.
        """
        width = x.shape[-1]
        drop = Dropout(self.dropout, deterministic=not self.train)
        # BERT normalizes after each sum, ViT before each layer.
        before, after = self._norms("attention_norm")
        qkv = attention.Projections(INITIALIZER, name="qkv")(before(x))
        context, features = attention.attend(
            qkv, mask, self.heads, drop, bias, chunk=self.query_chunk_size
        )
        x = constrain_width(after(x + drop(dense(width, "attention_output")(context))))
        before, after = self._norms("output_norm")
        hidden = gelu(dense(self.intermediate, "intermediate")(before(x)))
        hidden = constrain(hidden, None, None, "mlp")
        x = constrain_width(after(x + drop(dense(width, "output")(hidden))))
        return x, features | {"block": x}

    def _norms(self, name: str) -> tuple[Any, Any]:
        norm = layer_norm(self.layer_norm_epsilon, name)
        return (norm, _same) if self.norm_first else (_same, norm)


def run_blocks(
    x: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None = None,
    *,
    layers: int,
    remat: Remat,
    scan: bool,
    **options: Any,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Runs a stack of blocks from within a compact module, which then holds their parameters.

    Args:
      x: `[B, T, D]`.
      mask: `[B, T]` bool or None.
      bias: `[1, heads, T, T]` of every block's attention scores, or None.
      layers: how many.
      remat: what the backward pass computes again inside each block instead of keeping it: less
        memory, more time.
      scan: whether the blocks are one compiled loop over stacked parameters: compiles faster when
        there are many.
      **options: of `Block`.

    Returns:
      The last block's `[B, T, D]`, and each block's features, `attention_0` and so on.
    """
    # Inside a scan nothing can be shared anyway, so XLA need not be kept from it.
    block = rematerialized(Block, remat, prevent_cse=not scan)
    if scan:
        lifting: dict[str, Any] = {
            "variable_axes": {"params": 0},
            # Each block draws its own parameters and its own dropout.
            "split_rngs": {"params": True, "dropout": True},
            # All blocks read the same mask.
            "in_axes": nn.broadcast,
        }
        # One block is compiled for all layers; compile time no longer grows with depth.
        stack = nn.scan(block, length=layers, **lifting)
        x, stacked = stack(name=STACK, **options)(constrain_width(x), mask, bias)
        return x, {
            f"{name}_{i}": values[i] for name, values in stacked.items() for i in range(layers)
        }
    features, x = {}, constrain_width(x)
    for i in range(layers):
        x, found = block(name=f"block_{i}", **options)(x, mask, bias)
        features |= {f"{name}_{i}": values for name, values in found.items()}
    return x, features


def rematerialized(block: type[nn.Module], remat: Remat, *, prevent_cse: bool = True) -> Any:
    """Returns a class of blocks of which the backward pass computes again what `remat` says."""
    if not remat:
        return block
    policy = None if remat is True else getattr(jax.checkpoint_policies, remat)
    return nn.remat(block, prevent_cse=prevent_cse, policy=policy)


def stack_blocks(params: PyTree) -> PyTree:
    """Parameters with `block_0`, ... as a scanned stack keeps them."""
    blocks = [params[f"block_{i}"] for i in range(count_blocks(params))]
    # Embeddings and heads stay as they are.
    others = {name: leaf for name, leaf in params.items() if not name.startswith("block_")}
    # Stacked on the host, so that no device holds the weights twice.
    return others | {STACK: jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)}


def unstack_blocks(params: PyTree) -> PyTree:
    """Inverts `stack_blocks`; parameters without a stack stay as they are."""
    if STACK not in params:
        return params
    layers = jax.tree.leaves(params[STACK])[0].shape[0]
    blocks = {
        f"block_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], params[STACK]) for i in range(layers)
    }
    return {name: leaf for name, leaf in params.items() if name != STACK} | blocks


def select_blocks(
    module: Any, variables: Variables, keep: Sequence[int]
) -> tuple[Any, dict[str, Any]]:
    """Keeps some of a network's blocks, as DistilBERT's student starts from every second one.

    Args:
      module: with `layers` blocks, not scanned.
      variables: its variables.
      keep: numbers of the blocks to keep, from 0, rising.

    Raises:
      ValueError: if the module has no such blocks, or a number is outside, twice or out of order.
    """
    params = variables["params"]
    count = count_blocks(params) if hasattr(module, "layers") else 0
    # Blocks in another order than they were trained in are no smaller teacher.
    if not keep or list(keep) != sorted(set(keep)) or not all(0 <= i < count for i in keep):
        raise ValueError(
            f"keep_layers must be rising numbers of the {count} transformer blocks, got"
            f" {tuple(keep)}"
        )
    kept = {name: leaf for name, leaf in params.items() if not name.startswith("block_")}
    kept |= {f"block_{new}": params[f"block_{old}"] for new, old in enumerate(keep)}
    # Where blocks differ in kind, the module says what becomes of them.
    smaller = getattr(module, "keeping", lambda keep: module.clone(layers=len(keep)))
    return smaller(keep), {**variables, "params": kept}


def gelu(x: jax.Array) -> jax.Array:
    """Computes GELU exactly, by erf as the originals.

    JAX's own takes erfc, which costs three times as much on a CPU.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


def count_blocks(params: PyTree) -> int:
    """Counts `block_0`, `block_1`, ..."""
    return sum(name.startswith("block_") for name in params)


def constrain_width(x: jax.Array) -> jax.Array:
    """Lets every device have all of `[B, T, D]`, which it normalizes and reads for its heads."""
    return constrain(x, None, None, "embed")


def dense(features: int, name: str) -> nn.Dense:
    """Builds a dense layer as transformers initialise it."""
    return nn.Dense(features, kernel_init=INITIALIZER, name=name)


def layer_norm(epsilon: float, name: str) -> nn.LayerNorm:
    """Builds a LayerNorm of two passes.

    Linen's E[x^2] - E[x]^2 cancels where a token's mean is large against its spread.
    """
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)


def _same(x: jax.Array) -> jax.Array:
    return jnp.asarray(x)
