"""Defines what a batch, a view, a model's output, a mean and a teacher are.

Every other package uses these types; they do nothing beyond merging, dividing and applying.
Shapes: `B` examples of a batch, `K` classes, `T` tokens, `H W C` an image's height, width and
channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Real

Array = jax.Array | np.ndarray
PyTree = Any
Scalar = int | float | np.number | Array
"""A number: Python's, NumPy's, or a `[]` array, which may be traced."""
Count = Annotated[int, "0 or more"]
"""A model's option that counts something of which there may be none."""
Variables = Mapping[str, PyTree]
"""A Linen module's variables: `{"params": ...}`, with BatchNorm `{"batch_stats": ...}` too."""

LOGITS = "logits"
"""Name of a model's logits beside those of its features."""

POSITIONS = "positions"
"""Name, in a view, of where an example's predictions are."""

View = dict[str, Array]
"""What one model reads of a batch, by the names of the module's arguments.

Text: `input_ids` [B, T] int32, `attention_mask` [B, T] bool, `token_type_ids` [B, T] int32
(sentence pairs only),
`positions` [B, P] int32, of the tokens that a task of several predictions an example asks about, -1
where there are fewer.
Images: `images` [B, H, W, C] float32.
A teacher whose outputs are stored: these, by name, `logits` [B, K] or [B, P, K] and features, and
`positions` as above, of which only the sign tells something.
"""


@flax.struct.dataclass
class Batch:
    """Examples, in every view that a model of the group or one of its teachers reads.

    Attributes:
      index: [B] int32, the example's position in its source, which caches and memory banks
        are keyed by.
      views: name -> `View`.
      labels: [B] int32 class, or [B, K] float soft label; [B, P] int32 classes, -1 where there is
        none, of several predictions an example.
      label_valid: [B] bool, false where the example has no label.
      valid: [B] bool, false for the rows that only fill an evaluation batch.
      positions: [B, P] bool, which of an example's P predictions are there in every view, for a
        task of several, such as one a word; None where an example has one.
    """

    index: Int[Array, "*b"]
    views: dict[str, View]
    labels: Int[Array, "*b"] | Float[Array, "*b k"] | Int[Array, "*b p"]
    label_valid: Bool[Array, "*b"]
    valid: Bool[Array, "*b"]
    positions: Bool[Array, "*b p"] | None = None

    def as_read(self, *views: str) -> Batch:
        """Returns the batch with the predictions that are there in each of some views, as others
        may cut a text earlier; unchanged where one of them is unknown."""
        if self.positions is None or not {*views} <= self.views.keys():
            return self
        # One that says nothing, a file of outputs, has all of them.
        known = [self.views[name][POSITIONS] for name in views if POSITIONS in self.views[name]]
        if not known:
            return self
        there = jnp.stack([jnp.asarray(each) >= 0 for each in known])
        return replace(self, positions=there.all(axis=0))


@flax.struct.dataclass
class ModelOutput:
    """What a model returns for a batch.

    Attributes:
      logits: [B, K] unnormalized log-probabilities, or whatever the task's outputs are; [B, P, K]
        of P predictions an example.
      features: name -> array with leading axis B, every intermediate value that a term may read:
        `pooled` [B, D] always (what the classifier reads), `embeddings` and `block_0`, `block_1`,
        ... [B, T, D] or [B, H, W, C], `attention_0`, ... [B, heads, T, T] (scores before the
        softmax), `query_0`, `key_0`, `value_0`, ... [B, heads, T, D / heads]. Features that no term
        reads cost nothing under jit.
    """

    logits: Float[jax.Array, "*b k"] | Float[jax.Array, "*b p k"]
    features: dict[str, jax.Array]


@flax.struct.dataclass
class Mean:
    """A mean that merges exactly over batches, microbatches, devices and processes.

    Total and count are kept apart because a mean of means is wrong when parts differ in size.

    Attributes:
      total: [] sum over what counts.
      count: [] how many counted.
    """

    total: Real[Array, ""]
    count: Real[Array, ""]

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.count + other.count)

    def value(self) -> jax.Array:
        """Returns total over count; 0 if nothing counted."""
        # At least 1, so that a mean over nothing is 0 and not NaN.
        return jnp.asarray(self.total) / jnp.maximum(jnp.asarray(self.count), 1)


class ForwardFn(Protocol):
    """A model as it is evaluated: no dropout, stored BatchNorm statistics.

    A network, an ensemble, a table of stored outputs, a conditioned student and a user's own
    function all have this one signature, so the training step needs no case for any of them.
    """

    def __call__(self, variables: Any, batch: Batch, /) -> ModelOutput:
        """Returns the model's output on a batch."""
        ...


@dataclass(frozen=True)
class Sample:
    """A metric of one model on rows that can be drawn again.

    Attributes:
      size: N, how many rows there are: examples, or pairs of texts.
      value: positions `[N]` of drawn rows, of which some stand there more than once -> the metric;
        None where it is undefined.
    """

    size: int
    value: Callable[[np.ndarray], float | None]


@flax.struct.dataclass
class Teacher:
    """A teacher that isn't trained: its variables, and how they are applied.

    Attributes:
      variables: what `forward` takes, on the devices.
      forward: the model; it is part of the compiled program, not of the data.
    """

    variables: PyTree
    forward: ForwardFn = flax.struct.field(pytree_node=False)

    def __call__(self, batch: Batch) -> ModelOutput:
        """Returns the teacher's output on a batch; no gradient passes."""
        return jax.lax.stop_gradient(self.forward(self.variables, batch))

    def logits(self, batch: Batch) -> jax.Array:
        """Returns `[B, K]`; gradients reach the batch, never the teacher's variables."""
        return self.forward(jax.lax.stop_gradient(self.variables), batch).logits
