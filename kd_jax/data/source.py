"""Defines `Source`, one split of a dataset with random access, and its fingerprint."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Rejected:
    """A row that could not be read and was left out.

    Attributes:
      row: the line in the file, from 1; for an image folder the position among its sorted files,
        from 1.
      reason: what was wrong with it.
      value: the row's content, shortened.
    """

    row: int
    reason: str
    value: str


@dataclass(frozen=True)
class Source:
    """One split of a dataset, with random access in a fixed order.

    Attributes:
      name: dataset and split, e.g. "glue/sst2 train[:95%]".
      modality: "text" or "image".
      inputs: [N] strings or pairs of strings, words between single spaces where each has a label;
        for images uint8 [N, H, W, C], or a sequence of uint8
        [H, W, C] where they differ in size or don't fit in memory.
      labels: [N] int32 classes, -1 where unlabelled; [N, K] float32, NaN where unlabelled; or
        [N, W] int32, a class a word, -1 after the last.
      class_names: [K] of the model's outputs.
      fingerprint: "sha256:..." over inputs, labels and class names.
      rejected: the rows left out.
      provenance: what else the content depends on, such as package versions.
      rows: [N] each example's row, as in `Rejected.row`; empty: counted from 1.
      soft_labels: [N, K] float32, distributions that take the place of the labels in training;
        None: there are none.
      parts: of sources joined to one, those sources in order.
      ids: [N] by what outputs that a file holds are found: a column's, or each example's place in
        its dataset; both texts of a pair have its id. Empty: there are none.
    """

    name: str
    modality: str
    inputs: Sequence | np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    class_names: tuple[str, ...]
    fingerprint: str
    rejected: tuple[Rejected, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    rows: Sequence[int] | np.ndarray = field(default=(), repr=False)
    soft_labels: np.ndarray | None = field(default=None, repr=False)
    parts: "tuple[Source, ...]" = field(default=(), repr=False)
    ids: Sequence[str] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> np.ndarray:
        """Returns [N] bool, which examples have a label."""
        return are_labelled(self.labels)


def are_labelled(labels: np.ndarray) -> np.ndarray:
    """Returns [N] bool, which of some labels, as in `Source`, are there."""
    known: Any = labels >= 0
    if labels.dtype.kind == "f":
        known = np.isfinite(labels).all(axis=-1)
    # Of several classes an example, the first ones are those of its words.
    elif labels.ndim == 2:
        known = known.any(axis=-1)
    return known


def check_rejected(rejected: Sequence[Rejected], max_rejected: int, owner: str) -> None:
    """Checks that no more rows were rejected than the config allows.

    Raises:
      ValueError: with the count and the first reason.
    """
    if len(rejected) > max_rejected:
        first = rejected[0]
        raise ValueError(
            f"{len(rejected)} rows of {owner!r} can't be read, more than"
            f" data.max_rejected={max_rejected};"
            f" the first is row {first.row}: {first.reason}: {first.value}"
        )


def texts_of(value: Any) -> tuple[Any, ...]:
    """Returns the texts of an input: two of a pair."""
    return value if isinstance(value, tuple) else (value,)


def each_apart(
    inputs: Sequence[Any], labels: Sequence[Any], rows: Sequence[int]
) -> tuple[list[Any], list[Any], list[int]]:
    """Makes each text of a pair an example of its own, with the pair's label and row; a text alone
    has no label, which would be of a pair."""
    texts, scores, lines = [], [], []
    for value, label, row in zip(inputs, labels, rows, strict=True):
        pair = texts_of(value)
        texts += pair
        scores += [label if len(pair) == 2 else None] * len(pair)
        lines += [row] * len(pair)
    return texts, scores, lines


def as_id(value: Any, column: str) -> str:
    """Returns a row's id as text.

    Raises:
      ValueError: if it is missing, empty, or neither a text nor a whole number.
    """
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"column {column!r} has no id but {value!r}")
    return str(value).strip()


def pick_ids(source: Source, rows: np.ndarray) -> list[str]:
    """Returns the ids of some rows; none where the source has none."""
    return [str(source.ids[row]) for row in rows.tolist()] if len(source.ids) else []


def shorten(value: Any, limit: int = 60) -> str:
    """Returns a value's repr in at most `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def fingerprint(contents: Iterable[bytes], labels: np.ndarray, class_names: Sequence[str]) -> str:
    """Returns the SHA-256 over each input's bytes, the labels [N] and the class names."""
    digest = hashlib.sha256()
    for content in contents:
        # With its length before each input, "ab", "c" and "a", "bc" have different fingerprints.
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    digest.update(np.asarray(labels, "<f4" if labels.dtype.kind == "f" else "<i4").tobytes())
    digest.update(repr(tuple(class_names)).encode())
    return f"sha256:{digest.hexdigest()}"


def text_contents(inputs: Iterable[str | tuple[str, str]]) -> Iterable[bytes]:
    """Yields the bytes of texts and pairs, as `fingerprint` reads them."""
    for text in inputs:
        yield ("\0".join(text) if isinstance(text, tuple) else text).encode()
