"""A student's condition: its teacher's output, mapped to a signal that is added to what the student
  reads.

An image gets a signal of its own shape, each word embedding of a text one and the same vector, so
the parameters of the student are those of the plain student, whatever its architecture. Where the
condition is withheld nothing is added: the student works alone. The map is trained with the
student, beside its objective, and starts at zero: training starts from the plain student."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.core.rng import fold_name
from kd_jax.core.types import ModelOutput, PyTree
from kd_jax.models.network import cast
from kd_jax.models.projectors.projectors import PROJECTORS, build_projector, starting_at_zero

CONDITION = "condition"
"""Key of the map's parameters among those of a member's objective; the name of its random
stream."""

LOGITS, PROBABILITIES = "logits", "probabilities"


@dataclass(frozen=True, eq=False)
class Condition:
    """How a teacher's output becomes part of a student's input.

    Attributes:
      teacher: its name.
      output: "logits", "probabilities" (their softmax) or a feature with one vector an example.
      width: `D` of that output, `[B, D]`.
      mapping: a module `[B, D]` -> `[B, prod(shape)]`.
      shape: of the signal for one example: `(H, W, C)` for an image, `(width of the word
        embeddings,)` for a text.
      dtype: of the map's parameters and the signal.
      drop: probability in [0, 1) that an example's condition is withheld in training.
    """

    teacher: str
    output: str
    width: int
    mapping: nn.Module
    shape: tuple[int, ...]
    dtype: Any
    drop: float

    def init(self, key: jax.Array) -> PyTree:
        """Returns the map's parameters, with which every signal is 0."""
        # At zero the student starts as if it had no condition.
        example = jnp.zeros((1, self.width), self.dtype)
        return cast(starting_at_zero(self.mapping.init(key, example)["params"]), self.dtype)

    def signal(self, params: PyTree, taught: ModelOutput) -> jax.Array:
        """Returns `[B, *shape]`, what is added to each example."""
        mapped: Any = self.mapping.apply({"params": params}, read(taught, self.output))
        return mapped.reshape(-1, *self.shape)

    def given(self, key: jax.Array, rows: int, axis_name: str | None) -> jax.Array:
        """Returns [B] bool, the examples whose condition is not withheld.

        Drawn by position in the global microbatch, whatever the devices.

        Args:
          key: the same on all devices.
          rows: B; under pmap the device's.
          axis_name: pmap's axis, None under jit.
        """
        # Drawn for the whole microbatch, so that one device and eight withhold from the same
        # examples.
        everyone = rows if axis_name is None else rows * jax.lax.axis_size(axis_name)
        drawn = jax.random.bernoulli(fold_name(key, CONDITION), 1 - self.drop, (everyone,))
        if axis_name is None:
            return drawn
        # Each device takes the rows of the common draw that it holds.
        return jax.lax.dynamic_slice_in_dim(drawn, jax.lax.axis_index(axis_name) * rows, rows)


def read(output: ModelOutput, name: str) -> jax.Array:
    """Reads `[B, D]`, what a condition names of a teacher's output."""
    if name == LOGITS:
        return output.logits
    return jax.nn.softmax(output.logits) if name == PROBABILITIES else output.features[name]


def init_map(condition: Condition | None, key: jax.Array) -> dict[str, PyTree]:
    """Returns what a condition adds to the trained parameters of an objective."""
    return {} if condition is None else {CONDITION: condition.init(fold_name(key, CONDITION))}


def training_signal(
    condition: Condition | None,
    objective: Mapping[str, PyTree],
    taught: Mapping[str, ModelOutput],
    key: jax.Array,
    axis_name: str | None,
) -> jax.Array | None:
    """Computes `[B, *shape]`, what is added to the examples of a microbatch.

    0 where it is withheld; None without a condition.

    Args:
      condition: the student's.
      objective: trained parameters of its objective, the map's among them.
      taught: teacher's name -> its output on the microbatch.
      key: of the microbatch, the same on all devices.
      axis_name: pmap's axis, None under jit.
    """
    if condition is None:
        return None
    signal = condition.signal(objective[CONDITION], taught[condition.teacher])
    given = condition.given(key, len(signal), axis_name)
    # Adding 0 is the same as having no condition.
    return jnp.where(given.reshape(-1, *[1] * len(condition.shape)), signal, 0)


def make_condition(
    spec: Mapping[str, Any],
    taught: ModelOutput,
    shape: tuple[int, ...],
    dtype: Any,
    terms: Mapping[str, Any],
) -> Condition:
    """Builds the condition of a config's section.

    Args:
      spec: `on`, the teacher's name; `output`, `map` (a name of
        `kd_jax.models.projectors.projectors.PROJECTORS`) and `drop`.
      taught: the teacher's output, shapes and dtypes.
      shape: of the signal for one example.
      dtype: of the map.
      terms: the student's objective, by name.

    Raises:
      ValueError: for an output that doesn't exist or isn't one vector an example, a map that
        doesn't exist or normalizes by the batch, or a term by the name that the map has in a
        checkpoint.
    """
    # Everything that could be meant, so that the message can list it.
    shapes = dict.fromkeys((LOGITS, PROBABILITIES), taught.logits.shape)
    shapes |= {name: feature.shape for name, feature in taught.features.items()}
    vectors = ", ".join(sorted(name for name, found in shapes.items() if len(found) == 2))
    output, teacher = spec["output"], spec["on"]
    if output not in shapes:
        raise ValueError(
            f"{teacher!r} has no condition.output {output!r}; with one vector an example it has"
            f" {vectors}"
        )
    if len(shapes[output]) != 2:
        wanted = (
            f"condition.output must have one vector an example, [B, D], and {output!r}"
            f" of {teacher!r} has shape"
        )
        raise ValueError(f"{wanted} {shapes[output]}; there are {vectors}")
    # One number for each pixel, or for each dimension of the word embeddings.
    mapping = build_projector(spec["map"], math.prod(shape))
    if mapping.normalizes:  # pyright: ignore[reportAttributeAccessIssue]
        fitting = ", ".join(
            sorted(name for name in PROJECTORS if not build_projector(name, 1).normalizes)
        )  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(
            f"condition.map {spec['map']!r} normalizes by the batch, so only in training; use"
            f" {fitting}"
        )
    # The map's parameters lie beside those of the terms, under this name.
    if CONDITION in terms:
        raise ValueError(f"a term of its objective can't be named {CONDITION!r} beside a condition")
    return Condition(
        teacher, output, shapes[output][-1], mapping, shape, dtype, float(spec["drop"])
    )
