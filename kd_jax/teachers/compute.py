"""Asks a finished model about every example of a source, once."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.core.types import POSITIONS, Batch, Variables
from kd_jax.data.source import Source
from kd_jax.models.network import Network
from kd_jax.teachers.compression import ALL, OF_LOGITS, Compression
from kd_jax.training.context import RunContext
from kd_jax.training.interruption import Interrupted, StopSignal
from kd_jax.training.mixup import Mixing
from kd_jax.training.progress import StepProgress
from kd_jax.training.trained_model import TrainedModel

Table = dict[str, np.ndarray]
"""Output's name ("logits", "pooled", ...) -> [N, D]; of P predictions an example [N, P, D], and
`POSITIONS` [N, P] bool, which of them there are."""


def output_rows(
    variables: Variables,
    given: Mapping[str, Any],
    batch: Batch,
    *,
    network: Network,
    keep: Collection[str] | None = None,
    mixing: Mixing | None = None,
    compression: Compression = ALL,
    axis_name: str | None,
) -> dict[str, jax.Array]:
    """Computes a batch's outputs, by example, with their `index` and `valid`, and `positions` where
    there are any.

    They are the logits and the features that are named in `keep`; None: those of one vector an
    example. With `mixing` the batch is mixed by the key that is `given`; of the logits there is
    what `compression` keeps.
    """
    if mixing is not None:
        batch = mixing(batch, given["key"], axis_name)
    output = network(variables, batch)
    rows = {
        name: feature
        for name, feature in output.features.items()
        if (feature.ndim == 2 if keep is None else name in keep)
    }
    rows |= compression.compress(output.logits) | {
        "index": jnp.asarray(batch.index),
        "valid": jnp.asarray(batch.valid),
    }
    if batch.positions is not None:
        rows[POSITIONS] = jnp.asarray(batch.positions)
    # Under pmap every device has only its rows; gathered, the host gets all of them.
    return rows if axis_name is None else jax.lax.all_gather(rows, axis_name, tiled=True)


def outputs(
    model: TrainedModel, source: Source, context: RunContext, *, network: Any = None
) -> Table:
    """Computes a finished model's logits and vectors on a whole split.

    By `network` in place of its own if given.
    """
    batches = context.datasets.evaluation_batches(source, model.views, shared_batch_size(context))
    compiled = context.parallel.evaluate(partial(output_rows, network=network or model.network))
    return compute(compiled, model.variables, batches, len(source), model.plan.name, context.stop)


def shared_batch_size(context: RunContext) -> int:
    """Returns a batch that all devices can share, and large enough to be fast."""
    return int(np.lcm(64, context.parallel.devices))


def compute(
    compiled: Callable[..., Mapping[str, Any]],
    variables: Variables,
    batches: Any,
    examples: int,
    name: str,
    stop: StopSignal,
) -> Table:
    """Runs the teacher over every example once.

    Args:
      compiled: `output_rows`, compiled.
      variables: the teacher's.
      batches: the training split as evaluation batches, re-iterable and with a length.
      examples: how many the split has.
      name: the teacher's, for the progress bar.
      stop: whether to end early.

    Returns:
      The table of `examples` rows.

    Raises:
      Interrupted: after SIGTERM; a later call begins anew.
    """
    table: Table = {}
    for rows in filter(None, ask(compiled, variables, [batches], name, stop)):
        index, several = rows.pop("index"), POSITIONS in rows
        for key, value in rows.items():
            # Only the first batch tells which outputs there are and how wide.
            if key not in table:
                table[key] = np.zeros((examples, *value.shape[1:]), value.dtype)
            # Batches of longer texts have more predictions an example.
            wide = several and key in OF_LOGITS
            if wide and (more := value.shape[1] - table[key].shape[1]) > 0:
                beyond = [(0, 0)] * (value.ndim - 2)
                table[key] = np.pad(table[key], [(0, 0), (0, more), *beyond])
            # By position, so that the order of the batches doesn't matter.
            place = (index, slice(value.shape[1])) if wide else index
            table[key][place] = value
    return table


def ask(
    compiled: Callable[..., Mapping[str, Any]],
    variables: Variables,
    parts: Sequence[Any],
    name: str,
    stop: StopSignal,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields each batch's rows on the host, without those that only fill it.

    After each part nothing, so that what was computed of it can be kept.
    """
    number, progress = 0, None
    try:
        for batches in parts:
            for batch in batches:
                number += 1
                given, batch = batch if isinstance(batch, tuple) else ({}, batch)
                found = compiled(variables, given, batch)
                # Moved to the host at once: all of it may not fit beside the teacher on a device.
                rows = {key: np.asarray(value) for key, value in found.items()}
                valid = rows.pop("valid")
                if progress is None:
                    progress = StepProgress(
                        f"{name}'s outputs",
                        total_steps=sum(map(len, parts)),
                        start=0,
                        batch_size=len(valid),
                    )
                yield {key: value[valid] for key, value in rows.items()}
                progress.advance(number)
                # In a cluster an agreement costs a collective, so it is sought every 100 batches
                # only.
                if stop.asked(agree=number % 100 == 0):
                    raise Interrupted(
                        f"stopped while {name}'s outputs were computed; the same command goes on"
                    )
                if number % 100 == 0:
                    progress.report(number, {})
            yield {}
    finally:
        if progress is not None:
            progress.close()
