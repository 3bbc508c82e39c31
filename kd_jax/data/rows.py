"""The rows of CSV, TSV and JSONL files, one bad row at a time set aside.

CSV is read strictly, with quotes as in RFC 4180. TSV has no quoting: a quote in it is a character. Both have a header.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kd_jax.data.sources import Rejected, shorten


def read_json_rows(file: BinaryIO, rejected: list[Rejected]) -> Iterator:
    """Yields an empty header, then pairs of line and object; broken lines are added to `rejected`."""
    yield ()
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            if not isinstance(record, dict):
                raise ValueError("not a JSON object")
        except UnicodeDecodeError:
            rejected.append(Rejected(number, "not valid UTF-8", shorten(line)))
        except (ValueError, RecursionError) as error:
            rejected.append(Rejected(number, f"broken JSON: {error}", shorten(line)))
        else:
            yield number, record


def read_rows(file: BinaryIO, rejected: list[Rejected], suffix: str, path: Path) -> Iterator:
    """Yields the header, then pairs of line and record; broken rows are added to `rejected`.

    Raises:
      ValueError: if there is no readable header.
    """
    # Bytes that are no UTF-8 become surrogates, which the row they stand in is later rejected for.
    lines = _Lines(file.read().decode("utf-8-sig", "surrogateescape"))
    tabs = suffix == ".tsv"
    reader = csv.reader(
        lines, delimiter="	" if tabs else ",", quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL, strict=True
    )
    header: list[str] | None = None
    while True:
        start = lines.start_record()
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            rejected.append(Rejected(start, f"broken row: {error}", shorten(lines.first())))
            # A stray quote swallows the lines that follow; they get a chance of their own.
            lines.resume_after_first()
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            if len(set(header)) < len(header):
                raise ValueError(f"{str(path)!r} names a column twice: {', '.join(header)}")
            yield header
        elif len(cells) == len(header):
            yield start, dict(zip(header, cells, strict=True))
        elif cells:
            reason = f"{len(cells)} columns instead of {len(header)}"
            rejected.append(Rejected(start, reason, shorten(cells)))
    if header is None:
        raise ValueError(f"{str(path)!r} has no header")


class _Lines:
    """Lines for a csv.reader that can go back to the line after the current record's first."""

    def __init__(self, text: str):
        self._lines = [line + "\n" for line in text.split("\n")]
        if self._lines[-1] == "\n":
            self._lines.pop()
        self._start = self._next = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if self._next >= len(self._lines):
            raise StopIteration
        self._next += 1
        return self._lines[self._next - 1]

    def start_record(self) -> int:
        """The number, from 1, of the line at which the next record starts."""
        self._start = self._next
        return self._start + 1

    def first(self) -> str:
        """The current record's first line."""
        return self._lines[self._start]

    def resume_after_first(self) -> None:
        """Goes back to the line after the current record's first."""
        self._next = self._start + 1
