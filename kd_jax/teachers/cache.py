"""A teacher's outputs on the training data, computed once and looked up by example in every step.

Right only where an example always looks the same, without augmentation or mixing; only what is
small is kept: the logits and features of one vector an example (`pooled`), not those of every token
or pixel."""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from kd_jax.core.types import Batch, ModelOutput, Variables
from kd_jax.data.source import Source
from kd_jax.models.network import Network
from kd_jax.training.context import RunContext
from kd_jax.training.interruption import Interrupted, StopSignal
from kd_jax.training.progress import StepProgress
from kd_jax.training.trained_model import TrainedModel

log = logging.getLogger("kd_jax")

Table = dict[str, np.ndarray]
"""Output's name ("logits", "pooled", ...) -> [N, D], row = `Batch.index`; of P predictions an
example [N, P, D]."""


class CachedTeacher:
    """Stands where a `Network` stands; its variables are a `Table`.

    Attributes:
      view: it reads none.
    """

    view = ""

    def __call__(self, table: Mapping[str, jax.Array], batch: Batch) -> ModelOutput:
        """Looks up row `batch.index` of everything in the table."""
        # Rows are found by the example's index, so the table works for any order of the batches.
        rows = {name: jnp.asarray(column)[batch.index] for name, column in table.items()}
        logits = rows.pop("logits")
        if batch.positions is not None:
            # The table is as wide as the longest example, a batch as its own.
            wanted = batch.positions.shape[-1]
            missing = ((0, 0), (0, max(0, wanted - logits.shape[1])), (0, 0))
            logits = jnp.pad(logits[:, :wanted], missing)
        return ModelOutput(logits, rows)


def output_rows(
    variables: Variables,
    _frozen: Mapping[str, Any],
    batch: Batch,
    *,
    network: Network,
    axis_name: str | None,
) -> dict[str, jax.Array]:
    """Computes what one batch adds to the table: vectors by example, their `index` and `valid`."""
    output = network(variables, batch)
    # One vector an example is small; a feature map a token or pixel is not.
    rows = {name: feature for name, feature in output.features.items() if feature.ndim == 2}
    rows |= {
        "logits": output.logits,
        "index": jnp.asarray(batch.index),
        "valid": jnp.asarray(batch.valid),
    }
    # Under pmap every device has only its rows; gathered, the host gets all of them.
    return rows if axis_name is None else jax.lax.all_gather(rows, axis_name, tiled=True)


def outputs(
    model: TrainedModel, source: Source, context: RunContext, *, network: Any = None
) -> Table:
    """Computes the table of a finished model's outputs on a whole split.

    By `network` in place of its own if given.
    """
    # A batch that all devices can share, and large enough to be fast.
    size = int(np.lcm(64, context.parallel.devices))
    batches = context.datasets.evaluation_batches(source, list(model.views), size)
    compiled = context.parallel.evaluate(partial(output_rows, network=network or model.network))
    return compute(compiled, model.variables, batches, len(source), model.plan.name, context.stop)


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
    progress, size = None, 0
    for number, batch in enumerate(batches, start=1):
        # Moved to the host at once: the whole table may not fit beside the teacher on a device.
        rows = {key: np.asarray(value) for key, value in compiled(variables, {}, batch).items()}
        index, valid = rows.pop("index"), rows.pop("valid")
        # Only the first batch tells which outputs there are and how wide.
        if progress is None:
            size = len(valid)
            progress = StepProgress(
                f"{name}'s outputs", total_steps=len(batches), start=0, batch_size=size
            )
            # Widths are known only after the first batch; then the table gets its full size.
            table = {
                key: np.zeros((examples, *value.shape[1:]), value.dtype)
                for key, value in rows.items()
            }
        # The last batch is padded, and its surplus rows must not overwrite real ones.
        for key, value in rows.items():
            # Batches of longer texts have more predictions an example.
            if value.ndim == 3 and (more := value.shape[1] - table[key].shape[1]) > 0:
                table[key] = np.pad(table[key], ((0, 0), (0, more), (0, 0)))
            # By position, so that the order of the batches doesn't matter.
            place = index[valid] if value.ndim == 2 else (index[valid], slice(value.shape[1]))
            table[key][place] = value[valid]
        progress.advance(number)
        # In a cluster an agreement costs a collective, so it is sought every 100 batches only.
        if stop.asked(agree=number % 100 == 0):
            raise Interrupted(
                f"stopped while {name}'s outputs were computed; the same command goes on"
            )
        if number % 100 == 0:
            progress.report(number, {})
    if progress is not None:
        progress.close()
    return table


def join(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Joins columns of several tables; of several predictions an example [N, P, D] all get as many
    as the longest."""
    if columns[0].ndim == 3:
        most = max(column.shape[1] for column in columns)
        columns = [
            np.pad(column, ((0, 0), (0, most - column.shape[1]), (0, 0))) for column in columns
        ]
    return np.concatenate(columns)


def path_of(folder: Path, *facts: str) -> Path:
    """Returns where the outputs that these facts (teacher, data, view) determine are kept."""
    return (
        folder / f"outputs-{hashlib.sha256('|'.join(facts).encode()).hexdigest()[:16]}.safetensors"
    )


def facts(model: TrainedModel, source: Source) -> tuple[str, ...]:
    """Returns what a finished model's outputs on a source depend on."""
    # A view names its tokenizer by a folder, whose content may change.
    tokenizer = model.description.get("tokenizer") or ""
    return model.description["fingerprint"], source.fingerprint, model.network.view, tokenizer


def load(path: Path, examples: int) -> Table | None:
    """Loads a kept table; None, announced, where it can't be read."""
    if not path.exists():
        return None
    try:
        # `load_file` returns arrays only, so the checksum is read from the header first.
        with safe_open(path, framework="numpy") as file:
            stored = (file.metadata() or {}).get("checksum")
        table = load_file(path)
    except (OSError, SafetensorError) as error:
        log.warning("%s can't be read (%s); it is computed again", path, error)
        return None
    # Wrong outputs would teach wrongly, and nobody would notice.
    if stored != _checksum(table) or any(len(column) != examples for column in table.values()):
        log.warning("%s is damaged; it is computed again", path)
        return None
    return table


def save(path: Path, table: Table) -> None:
    """Keeps a table for the next start; the first process writes, whole or not at all."""
    if jax.process_index() == 0:
        temporary = path.with_suffix(f".{os.getpid()}.tmp")  # Runs of a sweep share the folder.
        save_file(table, temporary, metadata={"checksum": _checksum(table)})
        temporary.replace(path)


def _checksum(table: Table) -> str:
    digest = hashlib.sha256()
    # Sorted, since a file may give its columns in another order than they were saved in.
    for name in sorted(table):
        digest.update(f"{name} {table[name].shape} {table[name].dtype}".encode())
        # As plain bytes, because NumPy can't hand a bfloat16 array to hashlib directly.
        digest.update(np.ascontiguousarray(table[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
