"""Reads outputs that another system computed: an .npz file, or a table with a row an example."""

import hashlib
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kd_jax.core import limits
from kd_jax.data.readers import tables
from kd_jax.data.source import Rejected, as_id, shorten

KINDS = ("logits", "probabilities", "values", "embeddings")
"""What outputs can be: scores before or after a softmax or sigmoid, numbers in the user's units,
vectors."""

_KEYS = {**{kind: kind for kind in KINDS}, "embedding": "embeddings"}
"""Array or column -> kind; `--stage=predict` writes one embedding a row."""

IDS = ("id", "ids")
"""What an array or column of ids may be called, beside the data's own name for it."""

PLACES = ("row", "file")
"""What `--stage=predict` calls the place of an input, which is its id where data have no other."""


@dataclass(frozen=True)
class StoredOutputs:
    """Outputs of a model that isn't here.

    Attributes:
      path: of the file.
      kind: of `KINDS`.
      rows: id -> position in `values`.
      values: [N, K] float32; of a task of a label a word N arrays [W, K].
      names: [K] what the file calls the outputs; None where it doesn't.
      fingerprint: "sha256:..." of the file.
    """

    path: Path
    kind: str
    rows: Mapping[str, int] = field(repr=False)
    values: np.ndarray | Sequence[np.ndarray] = field(repr=False)
    names: tuple[str, ...] | None
    fingerprint: str


def fingerprint_of(path: Path) -> str:
    """Returns "sha256:..." of a file's bytes.

    Raises:
      ValueError: if there is no such file.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r} with stored outputs")
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def read_outputs(
    path: Path, ids: Sequence[str], columns: Sequence[str] | None, kind: str | None
) -> StoredOutputs:
    """Reads a file of outputs.

    Args:
      path: .npz with arrays of ids [N] and of a kind [N, K], and `class_names` [K] or none; or a
        table, as training data may be, with columns of ids and of a kind, whose cells are lists of
        K numbers or mappings of K names to numbers, of words lists of these.
      ids: what the array or column of ids may be called; the first that is there holds them. A
        table with `columns` and none of these has its rows' numbers as ids.
      columns: [K] of a table, each with one output; None: there is one of a kind.
      kind: of `KINDS`; None: as the array or column is called.

    Raises:
      ValueError: for a file that can't be read, a missing array or column, an id that stands there
        twice, rows of different widths, or a number that isn't finite.
    """
    digest = fingerprint_of(path)
    if columns is not None and kind is None:
        raise ValueError(f"kind must be one of {', '.join(KINDS)} where columns hold the outputs")
    if path.suffix.lower() == ".npz":
        if columns is not None:
            raise ValueError(f"columns are of a table; {str(path)!r} is an .npz file")
        kind, found, values, names = _read_npz(path, ids, kind)
    elif path.suffix.lower() in tables.SUFFIXES:
        kind, found, values, names = _read_table(path, ids, columns, kind)
    else:
        listed = ", ".join((".npz", *tables.SUFFIXES))
        raise ValueError(f"{str(path)!r} can't hold outputs; its name must end in {listed}")
    if not found:
        raise ValueError(f"{str(path)!r} holds no outputs")
    rows: dict[str, int] = {}
    for position, each in enumerate(found):
        if each in rows:
            raise ValueError(
                f"{str(path)!r} has the id {each!r} twice, in outputs {rows[each] + 1} and"
                f" {position + 1}"
            )
        rows[each] = position
    for each, value in zip(found, values, strict=True):
        if value.shape[-1] != values[0].shape[-1] or value.ndim != values[0].ndim:
            raise ValueError(
                f"{str(path)!r} has outputs of shape {list(value.shape)} for id {each!r}, and of"
                f" {list(values[0].shape)} for {found[0]!r}"
            )
        if not np.isfinite(value).all():
            raise ValueError(f"{str(path)!r} has numbers that aren't finite for id {each!r}")
    # Of examples one array: many small ones would take several times its memory.
    values = np.asarray(values) if values[0].ndim == 1 else values
    return StoredOutputs(path, kind, rows, values, names, digest)


_Read = tuple[str, list[str], np.ndarray | Sequence[np.ndarray], tuple[str, ...] | None]


def _read_npz(path: Path, names_of_ids: Sequence[str], kind: str | None) -> _Read:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        # Known before anything is unpacked, so a small file can't fill the memory.
        if size > limits.OUTPUTS:
            raise ValueError(f"holds more than {limits.in_words(limits.OUTPUTS)}")
        with np.load(path, allow_pickle=False) as arrays:
            found = _choose(path, list(arrays), names_of_ids, kind)
            ids = [as_id(each, found[0]) for each in arrays[found[0]].tolist()]
            values = np.asarray(arrays[found[1]], np.float32)
            names = arrays["class_names"].tolist() if "class_names" in arrays else None
    except (ValueError, OSError, zipfile.BadZipFile, KeyError) as error:
        told = str(error)
        raise ValueError(
            told if str(path) in told else f"{str(path)!r} can't be read: {told}"
        ) from None
    # One number an example may come without an axis of its own.
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim not in (2, 3) or len(values) != len(ids):
        raise ValueError(
            f"{str(path)!r} has {found[1]} of shape {list(values.shape)} for {len(ids)} ids"
        )
    of_each = values if values.ndim == 2 else [*values]
    return found[2], ids, of_each, None if names is None else tuple(map(str, names))


def _choose(
    path: Path, there: Sequence[str], names_of_ids: Sequence[str], kind: str | None
) -> tuple[str, str, str]:
    """Returns what holds the ids and what the outputs, and their kind."""
    listed = ", ".join(sorted(there)) or "nothing"
    ids = [name for name in names_of_ids if name in there]
    if not ids:
        wanted = " or ".join(map(repr, names_of_ids))
        raise ValueError(f"{str(path)!r} has no ids, {wanted}; it has {listed}")
    kinds = [name for name in there if name in _KEYS and kind in (None, _KEYS[name])]
    if len(kinds) != 1:
        wanted = ", ".join(_KEYS) if kind is None else kind
        problem = "no outputs" if not kinds else f"several outputs ({', '.join(kinds)}); say kind"
        raise ValueError(f"{str(path)!r} has {problem}, of {wanted}; it has {listed}")
    return ids[0], kinds[0], _KEYS[kinds[0]]


def _read_table(
    path: Path, names_of_ids: Sequence[str], columns: Sequence[str] | None, kind: str | None
) -> _Read:
    rejected: list[Rejected] = []
    with path.open("rb") as file:
        found = tables.read_records(file, rejected, path)
        header, records = next(found), list(found)
    if rejected:
        first = rejected[0]
        raise ValueError(
            f"{len(rejected)} rows of {str(path)!r} can't be read; the first is row {first.row}:"
            f" {first.reason}"
        )
    there = list(header) or list(dict.fromkeys(key for _, record in records for key in record))
    if columns is not None:
        if missing := [name for name in columns if name not in there]:
            raise ValueError(
                f"{str(path)!r} has no column {missing[0]!r}; it has {', '.join(sorted(there))}"
            )
        # A row of the training table itself is known by its number.
        key = next((name for name in names_of_ids if name in there), None)
        column, names = None, tuple(columns)
        chosen = str(kind)
    else:
        key, column, chosen = _choose(path, there, names_of_ids, kind)
        names = None
    ids, values = [], []
    for row, record in records:
        # What couldn't be predicted has a reason in place of outputs.
        if column is not None and record.get(column) is None and "error" in record:
            continue
        where = f"{str(path)!r}, row {row}"
        try:
            ids.append(str(row) if key is None else as_id(record.get(key), key))
            if columns is not None:
                value = [_as_number(record.get(name), name) for name in columns]
            else:
                value, named = _cell(record.get(column), str(column))
                names = named if names is None else names
                value = value if named is None else _in_order(value, named, names)
            values.append(np.asarray(value, np.float32))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: {error}") from None
    return chosen, ids, values, names


def _cell(value: Any, column: str) -> tuple[Any, tuple[str, ...] | None]:
    """Returns the outputs of one row, and their names where it has them."""
    # A list of words may have names at each of them.
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        names = tuple(value[0])
        return [_in_order([*each.values()], tuple(each), names) for each in value], names
    if isinstance(value, dict) and value:
        return [_as_number(each, name) for name, each in value.items()], tuple(map(str, value))
    if isinstance(value, list) and value and all(isinstance(each, list) for each in value):
        return [[_as_number(number, column) for number in each] for each in value], None
    if isinstance(value, list) and value:
        return [_as_number(each, column) for each in value], None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value], None
    raise ValueError(f"column {column!r} holds no outputs but {shorten(value)}")


def _in_order(
    value: Sequence[Any], named: tuple[str, ...], names: tuple[str, ...] | None
) -> list[Any]:
    """Returns outputs in the order of names, which every row has to have."""
    wanted = named if names is None else names
    if sorted(named) != sorted(wanted):
        raise ValueError(f"outputs of {', '.join(named)}, and of {', '.join(wanted)} before")
    if value and isinstance(value[0], list):
        return [[word[named.index(name)] for name in wanted] for word in value]
    return [value[named.index(name)] for name in wanted]


def _as_number(value: Any, column: str) -> float:
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{column!r} has {value!r} in place of a number")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{column!r} has {shorten(value)} in place of a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{column!r} has {value}, which isn't finite")
    return number
