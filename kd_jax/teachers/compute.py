"""Asks a finished model about every example of a source, once: for arrays in memory, or for a
student that reads what it said from disk in every step.

What a model says of an example is right where that always looks the same. Where it is augmented or
mixed, the batches must come again (`training.augmented_epochs`), and what is kept is of their rows.
"""

import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from kd_jax.core.types import LOGITS, Batch, Variables
from kd_jax.data.batches import TrainingBatches, process_columns
from kd_jax.data.source import Source
from kd_jax.models.network import Network
from kd_jax.teachers.outputs import (
    Column,
    Outputs,
    OutputsByPlace,
    Shape,
    Varying,
    column,
    join,
)
from kd_jax.teachers.store import ROWS, Store
from kd_jax.training.context import RunContext
from kd_jax.training.interruption import Interrupted, StopSignal
from kd_jax.training.mixup import Mixing
from kd_jax.training.progress import StepProgress
from kd_jax.training.step import mixing_keys
from kd_jax.training.trained_model import TrainedModel

log = logging.getLogger("kd_jax")

BYTES = 2**28
"""About how much of a teacher's outputs is held in memory before it is written."""

Table = dict[str, np.ndarray]
"""Output's name ("logits", "pooled", ...) -> [N, D]; of P predictions an example [N, P, D]."""


def output_rows(
    variables: Variables,
    given: Mapping[str, Any],
    batch: Batch,
    *,
    network: Network,
    keep: Collection[str] | None = None,
    mixing: Mixing | None = None,
    axis_name: str | None,
) -> dict[str, jax.Array]:
    """Computes a batch's outputs, by example, with their `index` and `valid`, and `positions` where
    there are any.

    They are the logits and the features that are named in `keep`; None: those of one vector an
    example. With `mixing` the batch is mixed by the key that is `given`.
    """
    if mixing is not None:
        batch = mixing(batch, given["key"], axis_name)
    output = network(variables, batch)
    rows = {
        name: feature
        for name, feature in output.features.items()
        if (feature.ndim == 2 if keep is None else name in keep)
    }
    rows |= {
        LOGITS: output.logits,
        "index": jnp.asarray(batch.index),
        "valid": jnp.asarray(batch.valid),
    }
    if batch.positions is not None:
        rows["positions"] = jnp.asarray(batch.positions)
    # Under pmap every device has only its rows; gathered, the host gets all of them.
    return rows if axis_name is None else jax.lax.all_gather(rows, axis_name, tiled=True)


def outputs(
    model: TrainedModel, source: Source, context: RunContext, *, network: Any = None
) -> Table:
    """Computes a finished model's logits and vectors on a whole split.

    By `network` in place of its own if given.
    """
    batches = context.datasets.evaluation_batches(source, model.views, _size(context))
    compiled = context.parallel.evaluate(partial(output_rows, network=network or model.network))
    return compute(compiled, model.variables, batches, len(source), model.plan.name, context.stop)


def _size(context: RunContext) -> int:
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
    for rows in filter(None, _ask(compiled, variables, [batches], name, stop)):
        index = rows.pop("index")
        rows.pop("positions", None)
        for key, value in rows.items():
            # Only the first batch tells which outputs there are and how wide.
            if key not in table:
                table[key] = np.zeros((examples, *value.shape[1:]), value.dtype)
            # Batches of longer texts have more predictions an example.
            if value.ndim == 3 and (more := value.shape[1] - table[key].shape[1]) > 0:
                table[key] = np.pad(table[key], ((0, 0), (0, more), (0, 0)))
            # By position, so that the order of the batches doesn't matter.
            place = index if value.ndim == 2 else (index, slice(value.shape[1]))
            table[key][place] = value
    return table


def _ask(
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


def stored(
    model: TrainedModel, source: Source, keep: Collection[str], context: RunContext
) -> Outputs:
    """Opens a finished model's outputs on a source, after computing those that aren't kept yet.

    Args:
      model: the teacher.
      source: what a student learns from.
      keep: names of features, beside the logits.
      context: the data and the devices.

    Raises:
      Interrupted: after SIGTERM; a later call goes on with the next file.
    """
    # Each part keeps a store of its own, so the same data in another mixture is found again.
    if source.parts:
        return join([stored(model, part, keep, context) for part in source.parts])
    store = _chosen(model, source, keep, _facts(model, source), len(source), 1, context)
    datasets, size = context.datasets, _size(context)

    def batches_of(part: range) -> Any:
        return datasets.evaluation_batches(source, model.views, size, rows=part)

    _fill(store, batches_of, None, model, source, context)
    return Outputs(store.open(keep), _longest(model))


@dataclass(frozen=True)
class Repeated:
    """Training batches that come again, augmented and mixed alike.

    Attributes:
      batches: the stream, with the teacher's views.
      steps: how many different batches there are.
      training: the section of whoever learns from them.
      seed: of the group.
      mixing: how they are mixed; None: not at all.
      told: all that decides what they are, beside the source and what a model reads of it.
    """

    batches: TrainingBatches
    steps: int
    training: Mapping[str, Any]
    seed: int
    mixing: Mixing | None
    told: str

    def microbatches(self, part: range) -> "_Microbatches":
        """Returns those whose rows lie in a part, for `_ask`."""
        return _Microbatches(self, part)


@dataclass(frozen=True)
class _Microbatches:
    """Pairs of the key that a microbatch is mixed by, and the microbatch, its `index` the places of
    its rows."""

    of: Repeated
    part: range

    def __len__(self) -> int:
        size = self.of.training["batch_size"]
        return -(-len(self.part) // size) * self.of.training["accumulate"]

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Batch]]:
        size, accumulate = self.of.training["batch_size"], self.of.training["accumulate"]
        micro = size // accumulate
        own = process_columns(micro)
        for number in range(self.part.start // size, -(-self.part.stop // size)):
            batch = self.of.batches.at(number)
            keys = mixing_keys(self.of.seed, number, accumulate)
            for each in range(accumulate):
                places = number * size + each * micro + np.arange(micro)
                rows = jax.tree.map(lambda leaf, each=each: leaf[each], batch)
                yield {"key": keys[each]}, rows.replace(index=places[own].astype(np.int32))


def stored_by_place(
    model: TrainedModel,
    source: Source,
    keep: Collection[str],
    repeated: Repeated,
    context: RunContext,
) -> OutputsByPlace:
    """Opens a finished model's outputs on batches that come again; see `stored`."""
    rows = repeated.steps * repeated.training["batch_size"]
    facts = (*_facts(model, source), repeated.told)
    size = repeated.training["batch_size"]
    store = _chosen(model, source, keep, facts, rows, size, context)
    _fill(store, repeated.microbatches, repeated.mixing, model, source, context)
    return OutputsByPlace(store.open(keep), _longest(model))


def _chosen(
    model: TrainedModel,
    source: Source,
    keep: Collection[str],
    facts: Sequence[str],
    rows: int,
    together: int,
    context: RunContext,
) -> Store:
    """Returns the store to read: one that is whole and has all of it, or a new one whose files hold
    about `BYTES` each, of batches of `together` rows."""
    found = Store(model.home, facts, rows, tuple(keep))
    # Processes could see different ones while another run writes.
    if jax.process_count() == 1 and (whole := found.among()) is not found:
        return whole
    shapes = _shapes(found.keep, model, source, context, full=True)
    bytes_a_row = 8 * sum(math.prod(size or 0 for size in shape) for shape in shapes.values())
    most = min(ROWS, BYTES // max(1, bytes_a_row))
    return Store(model.home, facts, rows, tuple(keep), together * max(1, most // together))


def _longest(model: TrainedModel) -> int | None:
    return max((view["max_length"] for view in model.views if "max_length" in view), default=None)


def _facts(model: TrainedModel, source: Source) -> tuple[str, ...]:
    # A view names its tokenizer by a folder, whose content may change.
    tokenizer = model.description.get("tokenizer") or ""
    return model.description["fingerprint"], source.fingerprint, model.network.view, tokenizer


def store_of(model: TrainedModel, source: Source, keep: Collection[str]) -> Store:
    """Returns where a finished model's outputs on a source are kept."""
    return Store(model.home, _facts(model, source), len(source), tuple(keep))


def keep(model: TrainedModel, source: Source, table: Table) -> None:
    """Keeps outputs that were computed for something else, for the students that read them."""
    store = store_of(model, source, [name for name in table if name != LOGITS])
    for part in store.parts:
        rows = slice(part.start, part.stop)
        store.write(part, {name: column(values[rows]) for name, values in table.items()})
    store.finish()


def _fill(
    store: Store,
    batches_of: Callable[[range], Any],
    mixing: Mixing | None,
    model: TrainedModel,
    source: Source,
    context: RunContext,
) -> None:
    """Computes the parts of a store that aren't there yet."""
    missing = store.missing()
    if jax.process_count() > 1:
        # One process decides: another run may write what is missing meanwhile.
        theirs = np.array([part in missing for part in store.parts])
        wanted = multihost_utils.broadcast_one_to_all(theirs)
        missing = [part for part, each in zip(store.parts, wanted, strict=True) if each]
    if not missing:
        store.finish()
        return
    count, name = sum(map(len, missing)), model.plan.name
    told = count if count == store.rows else f"{count} of {store.rows}"
    log.info("%s: its outputs on %s examples are computed once", name, told)
    shapes = _shapes(store.keep, model, source, context)
    step = partial(output_rows, network=model.network, keep=store.keep, mixing=mixing)
    compiled, parts = context.parallel.evaluate(step), [batches_of(part) for part in missing]
    waiting = iter(missing)
    part, found = next(waiting), _Part(shapes)
    for rows in _ask(compiled, model.variables, parts, name, context.stop):
        if rows:
            found.add(rows)
            continue
        store.write(part, found.columns())
        part, found = next(waiting, part), _Part(shapes)
    store.finish()


class _Part:
    """The outputs of some neighbouring examples, as they come in."""

    def __init__(self, shapes: Mapping[str, Shape]):
        self._shapes, self._index = shapes, []
        self._values: dict[str, list[np.ndarray]] = {name: [] for name in shapes}

    def add(self, rows: dict[str, np.ndarray]) -> None:
        """Takes a batch's rows."""
        self._index += rows["index"].tolist()
        there = rows.get("positions")
        for name, shape in self._shapes.items():
            values = [*rows[name]]
            if name == LOGITS and None in shape and there is not None:
                # What is beyond an example's last prediction is of none.
                last = there.shape[1] - np.argmax(there[:, ::-1], axis=1)
                last = np.where(there.any(axis=1), last, 0)
                values = [value[:end] for value, end in zip(values, last.tolist(), strict=True)]
            self._values[name] += values

    def columns(self) -> dict[str, Column]:
        """Returns the outputs in the examples' order."""
        order = np.argsort(self._index)
        found = {}
        for name, shape in self._shapes.items():
            values = [self._values[name][row] for row in order.tolist()]
            if None not in shape:
                found[name] = column(np.stack(values))
                continue
            axis = shape.index(None)
            sizes = np.array([value.shape[axis] for value in values])
            flat = np.concatenate([value.reshape(-1) for value in values])
            found[name] = Varying(flat, shape, sizes)
        return found


def _shapes(
    keep: Sequence[str],
    model: TrainedModel,
    source: Source,
    context: RunContext,
    *,
    full: bool = False,
) -> dict[str, Shape]:
    """Returns the shape of an example's outputs, None where it depends on the text's length; with
    `full` that of the longest."""
    found: dict[str, Shape] = {}
    made: Any
    for batch in context.datasets.of_both_lengths(source, model.views)[1 if full else 0 :]:
        made = jax.eval_shape(model.network, model.variables, batch)
        known = {**made.features, LOGITS: made.logits}
        for name in keep:
            now = known[name].shape[1:]
            before = found.setdefault(name, now)
            found[name] = tuple(a if a == b else None for a, b in zip(before, now, strict=True))
    return found
