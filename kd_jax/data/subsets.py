"""Derives sources from others: rows under other labels, or the same images corrupted."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kd_jax.data.corruption import Corruption
from kd_jax.data.source import Source, fingerprint, pick_ids


class LazyRows(Sequence):
    """Some elements of a sequence, each looked up and changed on access."""

    def __init__(
        self, inputs: Sequence, rows: np.ndarray, change: Callable[[Any, int], Any] | None = None
    ):
        self._inputs, self._rows, self._change = inputs, rows, change

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        value = self._inputs[int(self._rows[index])]
        return value if self._change is None else self._change(value, index)


def relabel(
    source: Source, rows: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> Source:
    """Selects some rows of a source and gives them other classes.

    Args:
      source: N examples.
      rows: [n] positions in it, ascending.
      labels: [n] int32.
      class_names: [K] the classes that these number.
    """
    if len(rows) == len(source):
        inputs = source.inputs
    elif isinstance(source.inputs, np.ndarray):
        inputs = source.inputs[rows]
    elif isinstance(source.inputs, list):
        inputs = [source.inputs[row] for row in rows]
    else:
        inputs = LazyRows(source.inputs, rows)
    # The source's fingerprint and the rows stand for the inputs, which needn't be read again.
    digest = fingerprint(
        [source.fingerprint.encode(), rows.astype("<i8").tobytes()], labels, class_names
    )
    # Soft labels are of the source's own classes, and mean nothing under others.
    soft = (
        None
        if source.soft_labels is None or class_names != source.class_names
        else source.soft_labels[rows]
    )
    return replace(
        source,
        inputs=inputs,
        labels=labels,
        class_names=class_names,
        fingerprint=digest,
        soft_labels=soft,
        ids=pick_ids(source, rows),
        rows=np.asarray(source.rows)[rows] if len(source.rows) else rows + 1,
    )


def choose_labelled(source: Source, share: float) -> np.ndarray:
    """Chooses a share of the labels, always the same ones; a smaller share is a part of a larger.

    Args:
      source: N examples.
      share: of the examples with a label, in (0, 1].

    Returns:
      [N] bool, whose labels are used.

    Raises:
      ValueError: if not one would be.
    """
    known = np.flatnonzero(source.labelled)
    count = round(share * len(known))
    if len(known) and not count:
        raise ValueError(f"data.labelled={share} of {len(known)} labels leaves none")
    chosen = np.zeros(len(source), bool)
    # Drawn without the run's seed: a teacher that several seeds share knows these labels only.
    chosen[np.random.default_rng(0).permutation(known)[:count]] = True
    return chosen


def hide_labels(labels: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Returns labels, as in `Source`, without those that aren't `shown`, [N] bool."""
    found = labels.copy()
    found[~shown] = np.nan if labels.dtype.kind == "f" else -1
    return found


def only_labelled(source: Source) -> Source:
    """Returns the examples that have a label; the source itself where all have.

    Raises:
      ValueError: if none has.
    """
    rows = np.flatnonzero(source.labelled)
    if not len(rows):
        raise ValueError(f"{source.name!r} has no row with a label")
    if len(rows) == len(source):
        return source
    found = relabel(source, rows, source.labels[rows], source.class_names)
    return replace(found, name=f"{source.name}, labelled")


def corrupt(source: Source, corruption: Corruption, rows: np.ndarray) -> Source:
    """Corrupts every image of a source, at once if they are one array, else on access.

    Args:
      source: N images.
      corruption: what is done to them.
      rows: [N] the positions in their split that decide their noise.
    """

    def change(image: np.ndarray, index: int) -> np.ndarray:
        return corruption(image, int(rows[index]))

    # Pictures that don't fit in memory are corrupted when they are read; the noise depends on the
    # row alone, so they come out the same every time.
    inputs = source.inputs
    if isinstance(inputs, np.ndarray):
        inputs = np.stack([change(image, index) for index, image in enumerate(inputs)])
    else:
        inputs = LazyRows(inputs, np.arange(len(source)), change)
    digest = fingerprint(
        [source.fingerprint.encode(), repr(corruption).encode()], source.labels, source.class_names
    )
    return replace(
        source,
        name=f"{source.name} {corruption.kind} {corruption.severity}",
        inputs=inputs,
        fingerprint=digest,
    )
