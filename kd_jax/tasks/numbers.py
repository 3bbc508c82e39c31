"""Reads numbers as labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

LARGEST = float(np.finfo(np.float32).max)
"""Beyond it a number would become infinite where models compute."""


def read_number(value: Any, column: str) -> float:
    """Reads a number of a table.

    Args:
      value: a text in CSV and TSV, any JSON value in JSONL.
      column: its name, for the message.

    Raises:
      ValueError: if it is none, or not finite in float32.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise ValueError(f"column {column!r} holds no number but {value!r}")
    try:
        found = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"column {column!r} holds no number but {value!r}") from None
    if not abs(found) <= LARGEST:
        raise ValueError(f"column {column!r} holds {value!r}, which is no finite number")
    return found


def stack_numbers(given: Sequence[Any], count: int) -> np.ndarray:
    """Returns [N, count] float32 of rows with so many numbers each; None becomes NaN."""
    found = [(np.nan,) * count if each is None else np.atleast_1d(each) for each in given]
    return np.asarray(found, np.float32).reshape(len(given), count)
