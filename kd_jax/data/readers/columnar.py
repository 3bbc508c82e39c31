"""Reads Parquet and Arrow files row by row.

Where Hugging Face's `datasets` wrote a file, it says which numbers are classes, and these are read
by their names.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SUFFIXES = (".parquet", ".arrow")

_ROWS = 1_000
"""Rows that are in memory as Python values at a time."""


def read_rows(path: Path) -> Iterator[Any]:
    """Yields the columns' names, then pairs of row, from 1, and record.

    Raises:
      ValueError: if the file is of another kind, or damaged.
    """
    import pyarrow as pa

    try:
        schema, batches = _open(path)
        names = _class_names(schema.metadata or {})
        yield list(schema.names)
        number = 0
        for batch in batches:
            for start in range(0, batch.num_rows, _ROWS):
                for record in batch.slice(start, _ROWS).to_pylist():
                    number += 1
                    found = {key: _named(value, names.get(key)) for key, value in record.items()}
                    yield number, found
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{str(path)!r} can't be read as {path.suffix[1:]}: {reason}") from None


def _open(path: Path) -> tuple[Any, Iterator[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() == ".parquet":
        file = pq.ParquetFile(path)
        return file.schema_arrow, file.iter_batches(_ROWS)
    # `datasets` writes Arrow's stream, others its file.
    source = pa.memory_map(str(path))
    try:
        reader: Any = pa.ipc.open_stream(source)
        return reader.schema, iter(reader)
    except pa.ArrowInvalid:
        opened: Any = pa.ipc.open_file(source)
        return opened.schema, (opened.get_batch(i) for i in range(opened.num_record_batches))


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Returns column -> names of its classes, as `datasets` keeps them; nothing in other files."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {key: names for key, each in features.items() if (names := _names_of(each))}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _names_of(feature: Any) -> list[str] | None:
    # A list of classes, such as a tag a word, is a feature within a feature.
    inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
    if not isinstance(inner, dict) or inner.get("_type") != "ClassLabel":
        return None
    return [str(name) for name in inner["names"]]


def _named(value: Any, names: list[str] | None) -> Any:
    if names is None:
        return value
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    # What is no class, such as -1, stays as it is: it may mean that there is no label.
    known = isinstance(value, int) and 0 <= value < len(names)
    return names[value] if known else value
