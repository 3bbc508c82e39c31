"""A finished model's outputs on what a student learns from, kept on disk: opened, after computing
those that aren't there yet.

What a model says of an example is right where that always looks the same. Where it is augmented or
mixed, the batches must come again (`training.augmented_epochs`), and what is kept is of their rows.
"""

import json
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kd_jax.core.types import LOGITS, POSITIONS
from kd_jax.data.source import Source
from kd_jax.teachers.compression import ALL, OF_LOGITS, Compression, check_fits
from kd_jax.teachers.compute import Table, ask, output_rows, shared_batch_size
from kd_jax.teachers.ensemble import without_labels
from kd_jax.teachers.outputs import (
    Column,
    Outputs,
    OutputsByPlace,
    Shape,
    Varying,
    column,
    join,
)
from kd_jax.teachers.repeated import Repeated
from kd_jax.teachers.store import ROWS, Store
from kd_jax.training.context import RunContext
from kd_jax.training.mixup import Mixing
from kd_jax.training.trained_model import TrainedModel

log = logging.getLogger("kd_jax")

BYTES = 2**28
"""About how much of a teacher's outputs is held in memory before it is written."""

EVALUATED = 2**30
"""About how much may be written of its logits on a split that students are evaluated on."""


def stored(
    model: TrainedModel,
    source: Source,
    keep: Collection[str],
    context: RunContext,
    compression: Compression = ALL,
) -> Outputs:
    """Opens a finished model's outputs on a source, after computing those that aren't kept yet.

    Args:
      model: the teacher.
      source: what a student learns from.
      keep: names of features, beside the logits.
      context: the data and the devices.
      compression: how the logits are kept.

    Raises:
      ValueError: for logits that `compression` can't hold.
      Interrupted: after SIGTERM; a later call goes on with the next file.
    """
    # Each part keeps a store of its own, so the same data in another mixture is found again.
    if source.parts:
        parts = source.parts
        return join([stored(model, part, keep, context, compression) for part in parts])
    size = shared_batch_size(context)
    return _stored(model, source, keep, context, compression, model.home, size)


def _stored(
    model: TrainedModel,
    source: Source,
    keep: Collection[str],
    context: RunContext,
    compression: Compression,
    home: Path,
    batch_size: int,
    *,
    taught: bool = True,
) -> Outputs:
    keep = _names(keep, context, compression)
    facts = (*_facts(model, source), *compression.told)
    store = _chosen(model, source, keep, facts, len(source), 1, context, compression, home)

    def batches_of(part: range) -> Any:
        return context.datasets.evaluation_batches(source, model.views, batch_size, rows=part)

    _fill(store, batches_of, None, model, source, context, compression, taught=taught)
    classes = _classes(model, source, context, compression)
    return Outputs(store.open(keep), _longest(model), classes)


def evaluated(
    model: TrainedModel, source: Source, context: RunContext, batch_size: int
) -> Outputs | None:
    """Opens a finished model's logits on a split that it is evaluated on and compared with its
    students, after computing those that aren't kept yet.

    Args:
      model: the teacher.
      source: the split.
      context: the data and the devices.
      batch_size: examples that are asked about at a time; the last digits depend on it.

    Returns:
      Them; None if the model must be asked each time: it predicts several things of an example
      that aren't its words; they would take more than `EVALUATED` bytes; or it answers otherwise
      where it doesn't know the label.
    """
    if without_labels(model.network) is not model.network:
        return None
    shape = _shapes((LOGITS,), model, source, context, full=True)[LOGITS]
    several = len(shape) != 1 and not context.datasets.task.words
    if several or 8 * len(source) * math.prod(size or 0 for size in shape) > EVALUATED:
        return None
    home = model.home / "evaluation"
    return _stored(model, source, (), context, ALL, home, batch_size, taught=False)


def stored_by_place(
    model: TrainedModel,
    source: Source,
    keep: Collection[str],
    repeated: Repeated,
    context: RunContext,
    compression: Compression = ALL,
) -> OutputsByPlace:
    """Opens a finished model's outputs on batches that come again; see `stored`."""
    rows = repeated.steps * repeated.training["batch_size"]
    keep = _names(keep, context, compression)
    facts = (*_facts(model, source), repeated.told, *compression.told)
    size = repeated.training["batch_size"]
    store = _chosen(model, source, keep, facts, rows, size, context, compression, model.home)
    _fill(store, repeated.microbatches, repeated.mixing, model, source, context, compression)
    classes = _classes(model, source, context, compression)
    return OutputsByPlace(store.open(keep), _longest(model), classes)


def _names(
    features: Collection[str], context: RunContext, compression: Compression
) -> tuple[str, ...]:
    """Returns the names of all outputs to keep beside the logits."""
    # Of words, which ones the teacher has read is part of its answer.
    words = (POSITIONS,) if context.datasets.task.words else ()
    return (*features, *compression.names, *words)


def _classes(
    model: TrainedModel, source: Source, context: RunContext, compression: Compression
) -> int | None:
    if compression == ALL:
        return None
    return _shapes((LOGITS,), model, source, context, full=True)[LOGITS][-1]


def _chosen(
    model: TrainedModel,
    source: Source,
    keep: Collection[str],
    facts: Sequence[str],
    rows: int,
    together: int,
    context: RunContext,
    compression: Compression,
    home: Path,
) -> Store:
    """Returns the store to read: one that is whole and has all of it, or a new one whose files hold
    about `BYTES` each, of batches of `together` rows."""
    found = Store(home, facts, rows, tuple(keep))
    # Processes could see different ones while another run writes.
    if jax.process_count() == 1 and (whole := found.among()) is not found:
        return whole
    shapes = _shapes(found.keep, model, source, context, compression, full=True)
    bytes_a_row = 8 * sum(math.prod(size or 0 for size in shape) for shape in shapes.values())
    most = min(ROWS, BYTES // max(1, bytes_a_row))
    return Store(home, facts, rows, tuple(keep), together * max(1, most // together))


def _longest(model: TrainedModel) -> int | None:
    return max((view["max_length"] for view in model.views if "max_length" in view), default=None)


def _facts(model: TrainedModel, source: Source) -> tuple[str, ...]:
    # A view names its tokenizer by a folder, whose content may change.
    tokenizer = model.description.get("tokenizer") or ""
    known = model.description.get("architecture")
    how = json.dumps([known, _computed_in(model.network)], sort_keys=True, default=str)
    return model.description["fingerprint"], source.fingerprint, model.network.view, tokenizer, how


def _computed_in(network: Any) -> Any:
    """Returns the dtype of a network, or of an ensemble's members by name."""
    if (members := getattr(network, "members", None)) is not None:
        return {name: _computed_in(each) for name, each in members.items()}
    return str(np.dtype(network.dtype)) if hasattr(network, "dtype") else None


def keep(model: TrainedModel, source: Source, table: Table) -> None:
    """Keeps outputs that were computed for something else, for the students that read them."""
    store = Store(model.home, _facts(model, source), len(source), tuple(table))
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
    compression: Compression,
    *,
    taught: bool = True,
) -> None:
    """Computes the parts of a store that aren't there yet; only what is `taught` must be finite."""
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
    shapes = _shapes(store.keep, model, source, context, compression)
    step = partial(
        output_rows,
        network=model.network,
        keep=store.keep,
        mixing=mixing,
        compression=compression,
    )
    compiled, parts = context.parallel.evaluate(step), [batches_of(part) for part in missing]
    waiting = iter(missing)
    part, found = next(waiting), _Part(shapes)
    for rows in ask(compiled, model.variables, parts, name, context.stop):
        if rows:
            if taught:
                check_fits(rows[LOGITS], name)
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
        there = rows.get(POSITIONS)
        for name, shape in self._shapes.items():
            values = [*rows[name]]
            if name in OF_LOGITS and None in shape and there is not None:
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
    compression: Compression = ALL,
    *,
    full: bool = False,
) -> dict[str, Shape]:
    """Returns the shape of an example's outputs, None where it depends on the text's length; with
    `full` that of the longest."""
    found: dict[str, Shape] = {}

    def known_of(variables: Any, batch: Any) -> dict[str, Any]:
        output = model.network(variables, batch)
        found = {**output.features, **compression.compress(output.logits)}
        return found if batch.positions is None else found | {POSITIONS: batch.positions}

    for batch in context.datasets.of_both_lengths(source, model.views)[1 if full else 0 :]:
        known = jax.eval_shape(known_of, model.shapes, batch)
        for name in keep:
            now = known[name].shape[1:]
            before = found.setdefault(name, now)
            found[name] = tuple(a if a == b else None for a, b in zip(before, now, strict=True))
    return found
