"""Reads CoNLL files: a word a line with its tags in columns, sentences between blank lines.

Columns are cut at tabs or spaces. The first is read as `words`, the last as `tags`, those between
as `column_2` and so on. Lines `# KEY = VALUE` before a sentence's first word are comments, and
`-DOCSTART-` is no word.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

from kd_jax.data.readers.table_rows import TOO_LONG, bounded_lines
from kd_jax.data.source import Rejected, shorten

WORDS, TAGS = "words", "tags"


def read_sentences(file: BinaryIO, rejected: list[Rejected]) -> Iterator[Any]:
    """Yields an empty header, then pairs of a sentence's first line and its record.

    Sentences with a line that can't be read, or with lines of different columns, are added to
    `rejected`.
    """
    yield ()
    rows: list[list[str]] = []
    first, reason = 0, ""
    for number, line in enumerate(_lines(file), 1):
        text = line if isinstance(line, str) else ""
        # A sentence may well begin with the word "#", which no comment must hide.
        about = text.startswith("-DOCSTART-") or (text.startswith("# ") and " = " in text)
        comment = about and not rows and not reason
        if line is not None and not text.strip():
            yield from _sentence(first, rows, reason, rejected)
            rows, reason = [], ""
        elif not comment:
            first = first if rows or reason else number
            cells = text.split("\t") if "\t" in text else text.split()
            reason = reason or _problem(line, cells, rows, number)
            rows.append(cells)
    yield from _sentence(first, rows, reason, rejected)


def _lines(file: BinaryIO) -> Iterator[str | None]:
    """Yields decoded lines without their end, with surrogates for bytes that aren't UTF-8; None for
    one that is too long."""
    for number, line in enumerate(bounded_lines(file)):
        encoding = "utf-8" if number else "utf-8-sig"
        yield None if line is None else line.decode(encoding, "surrogateescape").rstrip("\r\n")


def _problem(line: str | None, cells: list[str], rows: list[list[str]], number: int) -> str:
    if line is None:
        return f"line {number} is {TOO_LONG}"
    if any("\ud800" <= character <= "\udfff" for character in line):
        return f"line {number} is not valid UTF-8"
    if rows and len(cells) != len(rows[0]):
        return f"line {number} has {len(cells)} columns instead of {len(rows[0])}"
    if len(cells) < 2:
        return f"line {number} has a word and no tag"
    return ""


def _sentence(
    first: int, rows: list[list[str]], reason: str, rejected: list[Rejected]
) -> Iterator[tuple[int, dict[str, list[str]]]]:
    if reason:
        rejected.append(Rejected(first, reason, shorten(" ".join(row[0] for row in rows if row))))
    elif rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        between = {f"column_{i}": column for i, column in enumerate(columns[1:-1], 2)}
        yield first, {WORDS: columns[0], TAGS: columns[-1], **between}
