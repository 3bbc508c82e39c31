"""Reads the rows of CSV, TSV and JSONL files as a stream; bad rows are set aside.

CSV is read strictly, with quotes as in RFC 4180. TSV has no quoting: a quote in it is a character.
Both have a header. Files may be of any size.
"""

import csv
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from kd_jax.core import limits
from kd_jax.data.source import Rejected, shorten

TOO_LONG = f"longer than {limits.in_words(limits.ROW)}"
"""Why a line is rejected unread."""


def bounded_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Yields a file's lines; None in place of one that is longer than `limits.ROW`.

    Such a line is passed over piece by piece, so that it never is in memory.
    """
    while line := file.readline(limits.ROW + 1):
        if len(line) <= limits.ROW:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(limits.ROW)
        yield None


def read_json_rows(file: BinaryIO, rejected: list[Rejected]) -> Iterator:
    """Yields an empty header, then pairs of line and object.

    Broken lines are added to `rejected`.
    """
    yield ()
    for number, line in enumerate(bounded_lines(file), 1):
        if line is None:
            rejected.append(Rejected(number, TOO_LONG, ""))
            continue
        if not line.strip():
            continue
        try:
            # Some editors put a byte order mark before the first line, which JSON doesn't allow.
            record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            if not isinstance(record, dict):
                raise ValueError("not a JSON object")
        except UnicodeDecodeError:
            rejected.append(Rejected(number, "not valid UTF-8", shorten(line)))
        # Thousands of nested brackets exceed Python's recursion limit; they are one bad line, too.
        except (ValueError, RecursionError) as error:
            rejected.append(Rejected(number, f"broken JSON: {error}", shorten(line)))
        else:
            yield number, record


def read_rows(
    file: BinaryIO,
    rejected: list[Rejected],
    suffix: str,
    path: Path,
    names: Sequence[str] | None = None,
) -> Iterator:
    """Yields the header, then pairs of line and record; broken rows are added to `rejected`.

    Args:
      file: opened.
      rejected: gets broken rows.
      suffix: ".csv" or ".tsv".
      path: of the file, for messages.
      names: the header of a file without one.

    Raises:
      ValueError: if there is no readable header.
    """
    # Bytes that aren't UTF-8 become surrogates, for which their row is rejected later.
    lines = _Lines(
        None if line is None else line.decode("utf-8" if i else "utf-8-sig", "surrogateescape")
        for i, line in enumerate(bounded_lines(file))
    )
    # Of Python's whole process; its own limit, 131,072 characters, cuts a long document to pieces.
    csv.field_size_limit(limits.ROW)
    tabs = suffix == ".tsv"
    reader = csv.reader(
        lines,
        delimiter="	" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    header = None if names is None else list(names)
    if header is not None:
        yield header
    while True:
        start = lines.start_record()
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            rejected.append(Rejected(start, f"broken row: {error}", shorten(lines.first())))
            # A stray quote swallows the lines that follow; only its own line is given up, and the
            # others are read again.
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
            # Where a quote that is never closed meets the next row's, a record ends too, and holds
            # lines that are good.
            if lines.several():
                lines.resume_after_first()
    if header is None:
        raise ValueError(f"{str(path)!r} has no header")


class _Lines:
    """Lines for a csv.reader that can return to the line after the current record's first.

    Only the lines of one record are kept.
    """

    def __init__(self, file: Iterable[str | None]):
        self._coming = (
            line if line is None or line.endswith("\n") else line + "\n" for line in file
        )
        self._again: deque[str | None] = deque()
        self._record: list[str] = []
        self._count = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._coming)
        # Kept as nothing, so that it is neither read again nor shown.
        self._record.append(line or "")
        self._count += 1
        if line is None:
            raise csv.Error(TOO_LONG)
        return line

    def start_record(self) -> int:
        """Starts a record and returns the number of its first line, from 1."""
        self._record = []
        return self._count + 1

    def first(self) -> str:
        """Returns the current record's first line."""
        return self._record[0]

    def several(self) -> bool:
        """Tells whether the current record has more than one line."""
        return len(self._record) > 1

    def resume_after_first(self) -> None:
        """Returns to the line after the current record's first."""
        self._again.extendleft(reversed(self._record[1:]))
        self._count -= len(self._record) - 1
        self._record = []
