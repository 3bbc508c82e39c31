"""Reads inputs without labels as a stream: lines of text, tables, images.

A row that can't be read keeps its place and says why.
"""

import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kd_jax.data.readers import image_decoding, image_folders, table_rows, tables
from kd_jax.data.source import Rejected


@dataclass(frozen=True)
class Row:
    """One input to predict for, or the reason why it can't be read.

    Attributes:
      place: where it is, `{"row": line from 1, "record": number from 1}` or `{"file": name}`.
      value: a text, a pair of texts, or an image uint8 `[H, W, C]`; None where it can't be read.
      error: why it can't be read, or None.
      kept: the columns that were asked for, by the names that they get; None where a row has no
        such column.
    """

    place: dict[str, Any]
    value: Any
    error: str | None = None
    kept: dict[str, Any] = field(default_factory=dict)


def read(
    path: Path,
    modality: str,
    columns: Sequence[str],
    channels: int | None,
    keep: Mapping[str, str] | None = None,
    words: bool = False,
) -> Iterator[Row]:
    """Returns the rows of a file or folder, read one at a time.

    Args:
      path: for text a .txt file with one text in a line, or a .csv, .tsv or .jsonl file; for images
        a file or a folder, which is searched with all folders in it.
      modality: "text" or "image".
      columns: of a table, that hold the text: one, or two for pairs.
      channels: of images, 1 or 3.
      keep: name in `Row.kept` -> column of a table.
      words: whether texts are words between spaces, or lists of them.

    Raises:
      ValueError: if there is nothing there, or it is of another kind, or lacks a column.
    """
    if not path.exists():
        raise ValueError(f"there is no file or folder {str(path)!r} to predict")
    if keep and not (modality == "text" and path.suffix.lower() in tables.SUFFIXES):
        raise ValueError(
            f"only a table has columns to keep ({', '.join(keep)}); {str(path)!r} is none"
        )
    if modality == "image":
        return _read_images(path, channels)
    suffix = path.suffix.lower()
    if path.is_file() and suffix == ".txt":
        if len(columns) == 2:
            raise ValueError(
                f"the model reads pairs of texts; give a table with the columns"
                f" {' and '.join(columns)}"
            )
        return _read_lines(path, words)
    if path.is_file() and suffix in tables.SUFFIXES:
        clean = tables.clean_words if words else tables.clean_text
        return _read_table(path, columns, keep or {}, clean)
    raise ValueError(
        f"the model reads text, from .txt, {', '.join(tables.SUFFIXES)} files; {str(path)!r} is"
        f" none"
    )


def _read_lines(path: Path, words: bool) -> Iterator[Row]:
    with path.open("rb") as file:
        # Decoded line by line, so that one bad byte costs one line and not the whole file.
        for number, line in enumerate(table_rows.bounded_lines(file), 1):
            place = {"row": number, "record": number}
            if line is None:
                yield Row(place, None, table_rows.TOO_LONG)
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                yield Row(place, None, "not valid UTF-8")
                continue
            text = " ".join(text.split()) if words else text
            yield Row(place, text or None, None if text else "empty text")


def _read_table(
    path: Path, columns: Sequence[str], keep: Mapping[str, str], clean: Callable[..., str]
) -> Iterator[Row]:
    bad: list[Rejected] = []
    numbers = itertools.count(1)

    def take() -> Iterator[Row]:
        """Yields what was rejected since the last call; of such rows no column can be told."""
        for rejected in bad:
            place = {"row": rejected.row, "record": next(numbers)}
            yield Row(place, None, rejected.reason, dict.fromkeys(keep))
        bad.clear()

    with path.open("rb") as file:
        found = tables.read_records(file, bad, path)
        header = next(found)
        # A JSONL file has no header, so what none of its objects has is known only at its end.
        missing = set() if header else set(keep.values())
        for column in (*columns, *keep.values()):
            if header and column not in header:
                raise ValueError(
                    f"{str(path)!r} has no column {column!r}; it has {', '.join(sorted(header))}"
                )
        for number, record in found:
            # Bad rows come in their place among the good ones, so that the output has the input's
            # order.
            yield from take()
            missing -= record.keys()
            place, kept = {"row": number, "record": next(numbers)}, dict.fromkeys(keep)
            try:
                kept = {name: _as_json(record.get(column)) for name, column in keep.items()}
                text = tuple(clean(record, column) for column in columns)
            except RecursionError:
                yield Row(place, None, "a column to keep is nested too deeply", kept)
            except ValueError as error:
                yield Row(place, None, str(error), kept)
            else:
                yield Row(place, text if len(columns) == 2 else text[0], None, kept)
        yield from take()
    if missing:
        raise ValueError(f"no row of {str(path)!r} has the column {sorted(missing)[0]!r} to keep")


def _as_json(value: Any) -> Any:
    """Returns a value of a table as JSON can hold it: bytes that are no UTF-8 are spelled out, a
    number that isn't finite is None."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {_as_json(key): _as_json(item) for key, item in value.items()}
    # A column of Parquet may hold what JSON has no word for, such as a date.
    return value if isinstance(value, bool | int | float | None) else str(value)


def _read_images(path: Path, channels: int | None) -> Iterator[Row]:
    files = [path] if path.is_file() else list(_find_images(path))
    if not files:
        raise ValueError(f"{str(path)!r} holds no {', '.join(image_folders.SUFFIXES)} images")
    root = path.parent if path.is_file() else path
    for file in files:
        # A name that isn't UTF-8 can't stand in JSON; its bytes are spelled out.
        name = file.relative_to(root).as_posix().encode("utf-8", "surrogateescape")
        place = {"file": name.decode("utf-8", "backslashreplace")}
        try:
            if reason := _refusal(file, root):
                yield Row(place, None, reason)
                continue
            blob = image_folders.read_picture(file)
            yield Row(place, image_decoding.decode(blob, channels))
        # Only the first line: Pillow's messages may be several lines long, a row of the output is
        # one.
        except image_decoding.UNREADABLE as error:
            yield Row(place, None, f"unreadable image: {error}".splitlines()[0])


def _find_images(folder: Path) -> Iterator[Path]:
    """Yields all files with an image's name, by name; linked folders are not looked into."""
    # A link to a folder above would lead in circles.
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if Path(name).suffix.lower() in image_folders.SUFFIXES:
                yield Path(parent, name)


def _refusal(file: Path, root: Path) -> str | None:
    """Says why a path is not to be opened; None if it may be."""
    # Opening a pipe would wait for ever, and a device has no end.
    if not file.is_file():
        return "not a regular file"
    # A folder that somebody else packed must not make us read what lies outside.
    if not file.resolve().is_relative_to(root.resolve()):
        return "a link that leads out of the folder"
    return None


def show_progress(items: Iterable[Row]) -> Iterator[Row]:
    """Yields the items, counted on stderr if it is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    columns = TextColumn("predicting"), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("predicting", total=None)
        for item in items:
            progress.advance(task)
            yield item
