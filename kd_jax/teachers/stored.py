"""A teacher that is only a file: outputs that another system computed, joined with the data by
id."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from kd_jax.core.options import options_of
from kd_jax.core.types import LOGITS
from kd_jax.data.readers.stored_outputs import (
    IDS,
    KINDS,
    PLACES,
    StoredOutputs,
    read_outputs,
)
from kd_jax.data.run_datasets import Datasets
from kd_jax.data.source import Source
from kd_jax.models.weights.classes import are_unnamed, listed, match_names
from kd_jax.tasks import Task
from kd_jax.teachers.outputs import Outputs, column

log = logging.getLogger("kd_jax")

ACCEPTED = {
    "classes": ("logits", "probabilities"),
    "sets": ("logits", "probabilities"),
    "numbers": ("values",),
    "vectors": ("embeddings",),
}
"""What a task's outputs stand for -> kinds of stored outputs that say that."""

LEAST = 1e-6
"""What a probability of 0 counts as: other systems round, and its logarithm would be infinite."""

SUM_TOLERANCE = 0.01
"""How far the probabilities of an example may be from a sum of 1, as those rounded are."""


Values = np.ndarray | Sequence[np.ndarray]
"""[N, K] outputs; of words N arrays [W, K]."""


@dataclass(frozen=True)
class StoredTable:
    """Stored outputs as a task's models would give them.

    Attributes:
      outputs: as the file has them.
      values: as models of the task would return them.
      vectors: whether they are what a model pools, too.
    """

    outputs: StoredOutputs
    values: Values
    vectors: bool

    def on(self, source: Source) -> Outputs | None:
        """Returns the outputs on a source's rows; None if it has those of none of them.

        Raises:
          ValueError: if rows have no ids, the file lacks some of them, or has outputs of another
        number of words.
        """
        path = str(self.outputs.path)
        if not len(source.ids):
            raise ValueError(f"the rows of {source.name!r} have no ids to find outputs by")
        rows = [self.outputs.rows.get(each, -1) for each in source.ids]
        missing = [each for each, row in zip(source.ids, rows, strict=True) if row < 0]
        if len(missing) == len(rows):
            return None
        if missing:
            raise ValueError(
                f"{path!r} has no outputs for {len(missing)} of the {len(rows)} rows of"
                f" {source.name!r}, such as the ids {listed(missing)}"
            )
        if not isinstance(self.values, np.ndarray):
            found = [self.values[row] for row in rows]
            for each, value, text in zip(source.ids, found, source.inputs, strict=True):
                # Padding would be a teacher that knows nothing, in silence.
                if len(value) != (words := len(text.split(" "))):
                    raise ValueError(
                        f"{path!r} has outputs of {len(value)} words for id {each!r}, whose text"
                        f" in {source.name!r} has {words}"
                    )
            return Outputs([{LOGITS: column(found)}])
        logits = column(self.values[rows])
        return Outputs([{LOGITS: logits} | ({"pooled": logits} if self.vectors else {})])


def check_options(section: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Returns the options of a model's section `dict(outputs=FILE, ...)`, checked without the file.

    Raises:
      ValueError: naming the option and what is right.
    """
    options = options_of(_options, section, "model", key="outputs")
    kind = options.get("kind")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; there are {', '.join(KINDS)}")
    if task.masks is not None:
        raise ValueError(
            f"stored outputs can't teach task {task.name!r}: it draws anew in each step"
        )
    if kind is not None:
        _check_kind(kind, "kind", task)
    return options


def _options(
    *,
    kind: str | None = None,
    columns: Sequence[str] | None = None,
    id: str | None = None,
) -> None:
    """Declares the options of a section."""


def open_table(
    section: Mapping[str, Any], datasets: Datasets, id_column: str | None
) -> StoredTable:
    """Reads the file of a model's section and brings it into the form of the task's outputs.

    Args:
      section: `dict(outputs=FILE, kind=None, columns=None, id=None)`.
      datasets: of the run.
      id_column: the config's `data.id`.

    Raises:
      ValueError: for a file that can't be read, or outputs that aren't of the data's classes.
    """
    task, options = datasets.task, check_options(section, datasets.task)
    path = Path(str(section["outputs"])).expanduser()
    ids = (*IDS, *PLACES) if id_column is None else (id_column, *IDS)
    ids = (options["id"],) if options.get("id") else ids
    found = read_outputs(path, ids, options.get("columns"), options.get("kind"))
    owner = repr(str(path))
    _check_kind(found.kind, owner, task)
    per_word = found.values[0].ndim == 2
    if per_word != task.words:
        raise ValueError(
            f"{owner} has outputs of {'words' if per_word else 'examples'}, and task"
            f" {task.name!r} is of {'words' if task.words else 'examples'}"
        )
    # The data name vectors' dimensions not at all.
    order = None
    if task.named and task.kind != "vectors":
        order = _order(owner, found, datasets.class_names)
    values = found.values
    if order is not None:
        values = _of_each(lambda each: each[..., order], values)
    made = _as_outputs(owner, found, values, task)
    return StoredTable(found, made, task.kind == "vectors")


def _check_kind(kind: str, owner: str, task: Task) -> None:
    accepted = ACCEPTED[task.kind]
    if kind not in accepted:
        raise ValueError(f"{owner}: task {task.name!r} needs {' or '.join(accepted)}, not {kind}")


def _order(owner: str, found: StoredOutputs, wanted: Sequence[str]) -> list[int]:
    """Returns for each of the data's outputs its position in the file.

    Names decide, not positions.
    """
    count = found.values[0].shape[-1]
    if count != len(wanted):
        raise ValueError(f"{owner} has {count} outputs a row, the data has {listed(wanted)}")
    names = found.names
    if names is None or are_unnamed(names):
        # Of one output there is nothing to mistake.
        if count > 1:
            log.warning(
                "%s doesn't name its outputs: they are taken in the order %s",
                owner,
                listed(wanted),
            )
        return [*range(count)]
    if (order := match_names(names, wanted)) is not None:
        if order != [*range(count)]:
            log.info("%s: its outputs are brought into the data's order", owner)
        return order
    raise ValueError(f"{owner} has outputs of {listed(names)}, the data has {listed(wanted)}")


def _as_outputs(owner: str, found: StoredOutputs, values: Values, task: Task) -> Values:
    if found.kind == "probabilities":
        for each, value in zip(found.rows, values, strict=True):
            far = np.abs(value.sum(axis=-1) - 1).max() if task.kind == "classes" else 0
            if value.min() < 0 or value.max() > 1 or far > SUM_TOLERANCE:
                within = value.min() >= 0 and value.max() <= 1
                problem = "don't sum to 1" if within else "aren't between 0 and 1"
                raise ValueError(
                    f"{owner} has probabilities that {problem} for id {each!r}; are they logits?"
                )
        if task.kind == "sets":
            return _of_each(lambda each: special.logit(np.clip(each, LEAST, 1 - LEAST)), values)
        return _of_each(lambda each: np.log(np.maximum(each, LEAST)), values)
    units = task.into_units()
    if found.kind == "values" and units is not None:
        scale, shift = units
        return _of_each(lambda each: ((each - shift) / scale).astype(np.float32), values)
    return values


def _of_each(change: Callable[[np.ndarray], np.ndarray], values: Values) -> Values:
    """Returns what is made of the outputs of all examples, or of each one's words."""
    return change(values) if isinstance(values, np.ndarray) else [change(each) for each in values]


def check_ids(datasets: Datasets) -> None:
    """Refuses ids that mean different rows.

    Raises:
      ValueError: naming the id and where it stands.
    """
    seen: dict[str, tuple[Source, int]] = {}
    for source in datasets.splits.values():
        for position, each in enumerate(source.ids):
            other, place = seen.setdefault(each, (source, position))
            same = other is source and place == position
            if not same and not np.array_equal(other.inputs[place], source.inputs[position]):
                raise ValueError(
                    f"data.id: two different rows have the id {each!r}, in {other.name!r} and"
                    f" {source.name!r}; outputs are found by it, so it must be of one row"
                )
