"""Writes tables for tools that read CSV."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a CSV file whole or not at all; only the first process writes.

    Args:
      path: of the file.
      rows: column -> value; a row need not have every column, and None is an empty cell.
    """
    if jax.process_index() != 0:
        return
    rows = list(rows)
    # A dict in place of a set, because it keeps the order.
    columns = {column: None for row in rows for column in row}
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)
