"""Turns labels as people write them into class numbers."""

from collections.abc import Iterable, Sequence

import numpy as np


def name_classes(labels: Iterable[str]) -> tuple[str, ...]:
    """Returns the distinct labels, sorted as numbers if all are integers, else as text."""
    distinct = set(labels)
    return tuple(sorted(distinct, key=int) if _are_integers(distinct) else sorted(distinct))


def number_labels(
    labels: Sequence[str | None], names: Sequence[str], rows: Sequence[int]
) -> np.ndarray:
    """Returns class numbers for labels.

    Args:
      labels: [N] labels as text, None where unlabelled.
      names: [K] the classes. If they are words and all labels are integers from 0 to K-1, the
        labels are taken as class numbers.
      rows: [N] what the user calls each row, for the message.

    Returns:
      [N] int32, -1 where unlabelled.

    Raises:
      ValueError: for a label outside the classes, naming it, its row and the classes.
    """
    numbers = {name: number for number, name in enumerate(names)}
    distinct = {label for label in labels if label is not None}
    # Only if no label is a class name: a file of names with one stray number must be refused, not
    # silently read as numbers.
    if not distinct & set(names) and not _are_integers(names) and _are_integers(distinct):
        numbers = {str(number): number for number in range(len(names))}
    for label, row in zip(labels, rows, strict=True):
        if label is not None and label not in numbers:
            raise ValueError(
                f"label {label!r} (row {row}) is not among the classes {list_names(names)}"
            )
    return np.array([-1 if label is None else numbers[label] for label in labels], np.int32)


def _are_integers(labels: Iterable[str]) -> bool:
    # Only the canonical spelling counts: "01" and "1" would be two classes with one number.
    return all(label.removeprefix("-").isdecimal() and str(int(label)) == label for label in labels)


def list_names(names: Sequence[str], limit: int = 20) -> str:
    """Returns the classes for a message, the first `limit` of them."""
    return ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")
