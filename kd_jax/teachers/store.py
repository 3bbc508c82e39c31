"""A teacher's outputs on a source, on disk: a folder of files of neighbouring examples, each with a
checksum, written while the teacher runs and read where they lie.

What is there after a kill is gone on with. The folder's name follows from teacher, data, view and
what is kept, so another teacher's outputs are never taken."""

import hashlib
import json
import logging
import math
import os
import socket
import struct
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from kd_jax.core.shared_files import written
from kd_jax.core.types import LOGITS
from kd_jax.teachers.outputs import Alike, Column, Shape, Varying

log = logging.getLogger("kd_jax")

ROWS = 4096
"""Examples of a file."""

ABOUT = "about.json"
SIZES = "sizes of "
"""Before the name of an output whose examples differ in size."""

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(bool),
}
"""The numbers that are read, by their names in a safetensors file."""


class Damaged(ValueError):
    """A file isn't what was written."""


class Store:
    """The folder of a teacher's outputs on one source.

    Args:
      home: the folder in which it lies.
      facts: what the outputs depend on: teacher, data, view.
      rows: how many examples there are.
      keep: names of the outputs.
      per_file: rows of a file.
    """

    def __init__(
        self,
        home: Path,
        facts: Sequence[str],
        rows: int,
        keep: Sequence[str],
        per_file: int = ROWS,
    ):
        self.rows, self.keep, self.per_file = rows, sorted({LOGITS, *keep}), per_file
        self._facts = [*facts, str(rows)]
        told = "|".join([*self._facts, *self.keep])
        self.folder = home / f"outputs-{hashlib.sha256(told.encode()).hexdigest()[:16]}"

    @property
    def parts(self) -> list[range]:
        """Returns the examples of each file."""
        size = self.per_file
        return [range(s, min(s + size, self.rows)) for s in range(0, self.rows, size)]

    def path(self, part: range) -> Path:
        """Returns the file of a part."""
        return self.folder / f"rows-{part.start:010d}.safetensors"

    def missing(self) -> list[range]:
        """Returns the parts that are not there or damaged; the latter are announced."""
        found = []
        for part in self.parts:
            try:
                self._read(part)
            except FileNotFoundError:
                found.append(part)
            except Damaged as error:
                log.warning("%s is computed again: %s", self.path(part), error)
                found.append(part)
        return found

    def write(self, part: range, columns: Mapping[str, Column]) -> None:
        """Writes the outputs of a part, whole or not at all; the first process does."""
        if jax.process_index() != 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, np.ndarray] = {}
        shapes: dict[str, Any] = {}
        for name, column in columns.items():
            shapes[name] = column.shape
            arrays[name] = np.ascontiguousarray(column.values)
            if column.sizes is not None:
                arrays[SIZES + name] = np.asarray(column.sizes, np.int64)
        about = {"shapes": json.dumps(shapes), "checksum": _checksum(arrays)}
        # Runs of a sweep may share the folder, from several machines.
        temporary = self.path(part).with_suffix(f".{_writer()}.tmp")
        save_file(arrays, temporary, metadata=about)
        temporary.replace(self.path(part))

    def finish(self) -> None:
        """Says in the folder what its outputs are of, once all parts are there."""
        about = {"facts": self._facts, "keep": self.keep, "per_file": self.per_file}
        if jax.process_index() == 0 and not (self.folder / ABOUT).exists():
            # Another run of a sweep may write the same.
            temporary = self.folder / f"about.{_writer()}.tmp"
            temporary.write_text(json.dumps(about))
            temporary.replace(self.folder / ABOUT)
        written(self.folder / ABOUT, *map(self.path, self.parts))

    def open(self, names: Collection[str]) -> list[dict[str, Column]]:
        """Opens all parts, of which `missing` says that they are there: columns by name.

        Args:
          names: of those that are wanted, beside the logits.
        """
        wanted = {LOGITS, *names}
        parts = [self._read(part, check=False) for part in self.parts]
        return [{name: part[name] for name in part if name in wanted} for part in parts]

    def among(self) -> "Store":
        """Returns a whole store of the same teacher and data that keeps all of this one's outputs,
        if there is one; else this one."""
        for file in sorted(self.folder.parent.glob(f"outputs-*/{ABOUT}")):
            try:
                about = json.loads(file.read_text())
                found = about["facts"] == self._facts and {*self.keep} <= {*about["keep"]}
                per_file = int(about["per_file"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if found:
                home, facts = self.folder.parent, self._facts[:-1]
                return Store(home, facts, self.rows, about["keep"], per_file)
        return self

    def _read(self, part: range, *, check: bool = True) -> dict[str, Column]:
        arrays, about = map_file(self.path(part))
        try:
            shapes = json.loads(about["shapes"])
            if sorted(shapes) != self.keep:
                raise Damaged(f"it holds {', '.join(shapes)}")
            if check and _checksum(arrays) != about["checksum"]:
                raise Damaged("its checksum differs")
            columns = {name: _column(name, tuple(shapes[name]), arrays) for name in shapes}
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise Damaged(f"it isn't a file of outputs ({error})") from None
        if any(len(column) != len(part) for column in columns.values()):
            raise Damaged(f"it has not {len(part)} rows")
        return columns


def _writer() -> str:
    """Names this process among those of all machines that may write into the folder."""
    return f"{socket.gethostname()}-{os.getpid()}"


def _column(name: str, shape: Shape, arrays: Mapping[str, np.ndarray]) -> Column:
    sizes = arrays.get(SIZES + name)
    return Alike(arrays[name]) if sizes is None else Varying(arrays[name], shape, sizes)


def map_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Maps the arrays of a safetensors file into memory, without reading them.

    Returns:
      Them by name, and the file's metadata.

    Raises:
      FileNotFoundError: if it isn't there.
      Damaged: if it is no such file.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            # Checked before it is read, as a damaged number may be any.
            if length > size - 8:
                raise Damaged(f"its header of {length} bytes is longer than the file")
            header = json.loads(file.read(length))
        about = dict(header.pop("__metadata__", {}))
        content = np.memmap(path, np.uint8, "r", 8 + length) if size > 8 + length else np.empty(0)
        arrays = {name: _array(content, **entry) for name, entry in header.items()}
    except (struct.error, UnicodeDecodeError, json.JSONDecodeError, TypeError, KeyError) as error:
        raise Damaged(f"it can't be read ({error})") from None
    return arrays, about


def _array(
    content: np.ndarray, *, dtype: str, shape: Sequence[int], data_offsets: Sequence[int]
) -> np.ndarray:
    begin, end = data_offsets
    kind = DTYPES[dtype]
    if not 0 <= begin <= end <= len(content) or end - begin != kind.itemsize * math.prod(shape):
        raise Damaged("an array reaches beyond its end")
    if begin == end:
        return np.empty(shape, kind)
    return content[begin:end].view(kind).reshape(shape)


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    # Sorted, since a file may give its arrays in another order than they were saved in.
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        # As plain bytes, because NumPy can't hand a bfloat16 array to hashlib directly.
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
