"""Reads several sources as one: training data, filtered or not, and transfer sets."""

from collections.abc import Sequence

import numpy as np

from kd_jax.data.source import Source, fingerprint


class Concatenated(Sequence):
    """Sequences one after the other, each element looked up on access."""

    def __init__(self, parts: Sequence[Sequence]):
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[part][index - (self._ends[part - 1] if part else 0)]


def concatenate(sources: Sequence[Source]) -> Source:
    """Joins sources into one, in order.

    Where one has soft labels, the hard labels of the others become one-hot.

    Args:
      sources: of one modality and the same classes.

    Raises:
      ValueError: if their modalities or classes differ.
    """
    first = sources[0]
    if len(sources) == 1:
        return first
    for other in sources[1:]:
        for aspect in ("modality", "class_names"):
            ours, theirs = getattr(first, aspect), getattr(other, aspect)
            if ours != theirs:
                raise ValueError(f"{first.name!r} has {aspect} {ours}, and {other.name!r} {theirs}")
    labels = np.concatenate(_as_wide([source.labels for source in sources]))
    soft = None
    if any(source.soft_labels is not None for source in sources):
        soft = np.concatenate([_soft_labels(source) for source in sources])
    # The parts' fingerprints stand for their inputs, so pictures on disk needn't be read again.
    digest = fingerprint(
        [source.fingerprint.encode() for source in sources], labels, first.class_names
    )
    name = " + ".join(source.name for source in sources)
    inputs = _join([source.inputs for source in sources])
    ids = [each for source in sources for each in source.ids]
    return Source(
        name,
        first.modality,
        inputs,
        labels,
        first.class_names,
        digest,
        provenance=first.provenance,
        soft_labels=soft,
        parts=tuple(sources),
        ids=ids if all(len(source.ids) for source in sources) else (),
    )


def _as_wide(labels: list[np.ndarray]) -> list[np.ndarray]:
    """Gives labels of words [N, W] the room that the longest text of all sources needs."""
    if labels[0].ndim == 1 or labels[0].dtype.kind == "f":
        return labels
    width = max(each.shape[1] for each in labels)
    return [
        np.pad(each, ((0, 0), (0, width - each.shape[1])), constant_values=-1) for each in labels
    ]


def _soft_labels(source: Source) -> np.ndarray:
    """Returns [N, K] float32."""
    if source.soft_labels is not None:
        return source.soft_labels
    # An unlabelled row, -1, equals no class and becomes all zeros.
    return np.equal(source.labels[:, None], np.arange(len(source.class_names))).astype(np.float32)


def _join(parts: list) -> Sequence | np.ndarray:
    # One array or list where that is possible: views gather from an array in one step, and from
    # anything else example by example.
    if (
        all(isinstance(part, np.ndarray) for part in parts)
        and len({part.shape[1:] for part in parts}) == 1
    ):
        return np.concatenate(parts)
    if all(isinstance(part, list) for part in parts):
        return [value for part in parts for value in part]
    return Concatenated(parts)
