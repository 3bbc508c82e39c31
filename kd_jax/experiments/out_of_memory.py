"""Says what a training step took of a device when it didn't fit, and what would help."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax

from kd_jax.core.types import Teacher
from kd_jax.training.state import TrainState

SIGN = "RESOURCE_EXHAUSTED"
"""What XLA's message has in it where memory is short."""


@contextmanager
def explained(state: TrainState, teachers: Mapping[str, Teacher]) -> Iterator[None]:
    """Raises what `explain` says, as a ValueError, where memory is short; also decorates a step."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if told := explain(error, state, teachers):
            raise ValueError(told) from error
        raise


def explain(error: BaseException, state: TrainState, teachers: Mapping[str, Teacher]) -> str | None:
    """Returns one line about a step that didn't fit into a device's memory, or None.

    Args:
      error: what the step raised.
      state: shapes of the state will do, with their shardings.
      teachers: likewise.
    """
    if SIGN not in str(error):
        return None
    models = state.models.values()
    sizes = {
        "parameters": [(each.params, each.batch_stats, each.ema) for each in models],
        "optimizer": [(each.opt_state, each.term_params, each.term_state) for each in models],
        "teachers": [each.variables for each in teachers.values()],
    }
    told = ", ".join(
        f"{name} {bytes_on_one(tree) / 2**20:,.1f} MiB" for name, tree in sizes.items()
    )
    return (
        f"a step of {', '.join(state.models)} doesn't fit into a device's memory: {told}, and its"
        " activations; training.accumulate, parallel.fsdp or parallel.tensor make it smaller, and"
        f" --stage=fit says by how much ({' '.join(str(error).split())[:200]})"
    )


def bytes_on_one(tree: Any) -> int:
    """Returns the bytes of a tree on one device, of arrays or of shapes with shardings."""
    return sum(_size(leaf) for leaf in jax.tree.leaves(tree))


def _size(leaf: Any) -> int:
    sharding = getattr(leaf, "sharding", None)
    shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
    count = leaf.dtype.itemsize
    for size in shape:
        count *= size
    return count
