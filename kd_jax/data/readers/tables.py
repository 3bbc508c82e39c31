"""Reads CSV, TSV, JSONL, CoNLL, Parquet and Arrow files.

Good rows come in a fixed pseudo-random order, bad rows are set aside with the reason.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from kd_jax.data.readers import columnar, conll, splits, table_rows
from kd_jax.data.source import (
    Rejected,
    Source,
    as_id,
    check_rejected,
    each_apart,
    fingerprint,
    shorten,
    text_contents,
    texts_of,
)
from kd_jax.tasks import CLASSIFICATION, Task
from kd_jax.tasks.labels import list_names

log = logging.getLogger("kd_jax")

SUFFIXES = (".csv", ".tsv", ".jsonl", ".conll", *columnar.SUFFIXES)


@dataclass
class Table:
    """The rows of one file: [N] inputs, labels (None where there is none), line numbers and ids;
    the rejected rows, and the values that meant no label."""

    inputs: list = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    unlabelled: set[str] = field(default_factory=set)


def find_tables(folder: Path) -> dict[str, Path]:
    """Finds the tables of a folder, by their file names without suffix, which name the splits.

    Raises:
      ValueError: if two files name one split.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            if path.stem in found:
                raise ValueError(
                    f"{found[path.stem].name} and {path.name} in {str(folder)!r} both name split"
                    f" {path.stem!r}"
                )
            found[path.stem] = path
    return found


def open_tables(
    name: str,
    files: Mapping[str, Path],
    split: str,
    columns: tuple[str, ...],
    label: tuple[str, ...],
    max_rejected: int,
    class_names: tuple[str, ...] | None,
    unlabelled: tuple[str, ...] | None = None,
    task: Task = CLASSIFICATION,
    header: tuple[str, ...] | None = None,
    id_column: str | None = None,
    keep_blank: bool = False,
) -> Source:
    """Opens one split of a set of tables.

    Arguments are as in `open_source`, with files by split. Without `id_column` a row's id is its
    line, after the split's name where there are several files.

    Raises:
      ValueError: for a missing column, a bad split, too many bad rows or a label outside the
        classes.
    """
    wanted = splits.split_names(split, files, name)
    # All files are read, since a slice need not hold every class.
    found = {
        key: read_table(path, columns, label, unlabelled or (), task, header, id_column, keep_blank)
        for key, path in files.items()
    }
    rejected = [row for key in sorted(wanted) for row in found[key].rejected]
    check_rejected(rejected, max_rejected, name)
    parts = splits.select(split, {key: len(table.rows) for key, table in found.items()}, name)
    # The order is that of the whole file, cut by position: two slices of it never share a row.
    inputs, labels, lines, ids = [], [], [], []
    for key, positions in parts:
        # By line number: unlike the text, it differs even for equal rows.
        order = splits.fixed_order(map(str, found[key].rows))
        for position in (order[i] for i in positions):
            inputs.append(found[key].inputs[position])
            labels.append(found[key].labels[position])
            lines.append(found[key].rows[position])
            own = found[key].ids[position]
            ids.append(own if id_column is not None or len(files) == 1 else f"{key}:{own}")
    seen = {value for table in found.values() for value in table.unlabelled}
    if absent := {*(unlabelled or ())} - seen:
        log.warning(
            "data.unlabelled: no row of %r has the label %s", name, list_names(sorted(absent))
        )
    everyone = (each for table in found.values() for each in table.labels if each is not None)
    if task.apart:
        ids = [each for each, value in zip(ids, inputs, strict=True) for _ in texts_of(value)]
        inputs, labels, lines = each_apart(inputs, labels, lines)
    numbers, class_names = task.number(labels, everyone, class_names, label, lines)
    digest = fingerprint(text_contents(inputs), numbers, class_names)
    return Source(
        f"{name} {split}",
        "text",
        inputs,
        numbers,
        class_names,
        digest,
        tuple(rejected),
        rows=lines,
        ids=ids,
    )


def read_records(
    file: BinaryIO, rejected: list[Rejected], path: Path, header: Sequence[str] | None = None
) -> Iterator[Any]:
    """Yields a file's header, empty where it has none, then pairs of line and record.

    Args:
      file: opened.
      rejected: gets what can't be read.
      path: of the file, whose ending says its kind.
      header: names of the columns of a CSV or TSV file without any; None: its first row has them.

    Raises:
      ValueError: if it has a header that can't be read.
    """
    suffix = path.suffix.lower()
    if header is not None and suffix not in (".csv", ".tsv"):
        raise ValueError(f"data.header names columns of a CSV or TSV file; {str(path)!r} is none")
    if suffix in columnar.SUFFIXES:
        return columnar.read_rows(path)
    if suffix == ".jsonl":
        return table_rows.read_json_rows(file, rejected)
    if suffix == ".conll":
        return conll.read_sentences(file, rejected)
    return table_rows.read_rows(file, rejected, suffix, path, header)


def read_table(
    path: Path,
    columns: Sequence[str],
    label: tuple[str, ...],
    unlabelled: Collection[str] = (),
    task: Task = CLASSIFICATION,
    header: Sequence[str] | None = None,
    id_column: str | None = None,
    keep_blank: bool = False,
) -> Table:
    """Reads a file row by row; a row that can't be read is rejected and the next one read.

    Args:
      path: of the file.
      columns: with the input.
      label: columns with the label.
      unlabelled: values that mean that a row has no label.
      task: how labels are read.
      header: names of the columns of a file without any.
      id_column: column of the rows' ids; None: they are the rows' numbers.
      keep_blank: whether a row with nothing where its label belongs has none; else it is rejected.

    Raises:
      ValueError: if the file is of another kind or lacks a column.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{str(path)!r} is not a table; its name must end in {', '.join(SUFFIXES)}"
        )
    table, wanted = Table(), (*columns, *label, *(() if id_column is None else (id_column,)))
    read = clean_words if task.words else clean_text
    # Many rows have the same label, which is kept once.
    same: dict[str, str] = {}
    with path.open("rb") as file:
        records = read_records(file, table.rejected, path, header)
        named = next(records)
        keys = {*named}
        if named:
            _check_columns(path, keys, wanted)
        # Row by row: of a large file only what is learned from is ever in memory.
        for row, record in records:
            # JSONL has no header: its columns are all keys that some row has.
            if not named:
                keys.update(record)
            try:
                # Content is checked here and not while parsing, so that both kinds of file have
                # the same rules.
                text = tuple(read(record, column) for column in columns)
                none = {str(record.get(column)).strip() for column in label} & {*unlabelled}
                blank = keep_blank and all(_is_blank(record.get(column)) for column in label)
                target = None if none or blank or not label else task.read_label(record, label)
                task.check_row(text[0], target)
                own = str(row) if id_column is None else as_id(record.get(id_column), id_column)
            except ValueError as error:
                table.rejected.append(Rejected(row, str(error), shorten(record)))
            else:
                table.inputs.append(text if len(columns) == 2 else text[0])
                kept = same.setdefault(target, target) if isinstance(target, str) else target
                table.labels.append(kept)
                table.rows.append(row)
                table.ids.append(own)
                table.unlabelled |= none
    _check_columns(path, keys, wanted)
    # Rows rejected while parsing came before those rejected for their content.
    table.rejected.sort(key=lambda rejected: rejected.row)
    return table


def _check_columns(path: Path, there: Collection[str], wanted: Sequence[str]) -> None:
    for column in wanted:
        if column not in there:
            raise ValueError(
                f"{str(path)!r} has no column {column!r}; it has"
                f" {', '.join(sorted(there)) or 'none'}"
            )


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def clean_text(record: Mapping, column: str) -> str:
    """Returns a row's text without space around it.

    Raises:
      ValueError: if it is missing, empty or not text.
    """
    text = record.get(column)
    if text is None or (isinstance(text, str) and not text.strip()):
        raise ValueError(f"empty text in column {column!r}")
    if not isinstance(text, str):
        raise ValueError(f"column {column!r} is no text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"column {column!r} is not valid UTF-8")
    return text.strip()


def clean_words(record: Mapping, column: str) -> str:
    """Returns a row's words between single spaces; a text is cut at its spaces.

    Raises:
      ValueError: if there are none, or one isn't a text without space.
    """
    value = record.get(column)
    if isinstance(value, str | None):
        return " ".join(clean_text(record, column).split())
    if not isinstance(value, list):
        raise ValueError(f"column {column!r} is no list of words")
    for number, word in enumerate(value, 1):
        if not isinstance(word, str) or len(word.split()) != 1 or word.split() != [word]:
            raise ValueError(f"word {number} of column {column!r} is {word!r}: words have no space")
    return clean_text({column: " ".join(value)}, column)
