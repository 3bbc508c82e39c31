"""Turns labels as people write them into class numbers, and finds those that are no classes."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

log = logging.getLogger("kd_jax")

NO_LABEL = ("-1", "-100")
"""What often stands for "no label": in TFDS, and in PyTorch."""


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


def check_classes(names: Sequence[str], counts: Sequence[int], unlabelled: object) -> None:
    """Refuses what is no set of classes, and warns of what is hardly one.

    Args:
      names: [K] the training data's classes.
      counts: [K] rows of each.
      unlabelled: the config's `data.unlabelled`; None where it says nothing.

    Raises:
      ValueError: for numbers that aren't whole, what often means no label and isn't said to, and
        for a single class.
    """
    numbers = {name: _as_number(name) for name in names}
    odd = [
        name
        for name, number in numbers.items()
        if number is not None and not (math.isfinite(number) and _are_integers([name]))
    ]
    # One name that happens to look like a number, as "1.5" among words, is a name.
    measured = [name for name in odd if math.isfinite(numbers[name] or 0)]
    if measured and all(number is not None for number in numbers.values()):
        raise ValueError(
            f"data.label: {list_names(measured, 5)} are numbers and no classes; write each class in"
            f" one way, as a word or a whole number"
        )
    if missing := [name for name in odd if name not in measured]:
        raise ValueError(
            f"data.label: the labels {list_names(missing)} are no classes; if they mean that a row"
            f" has no label, say data.unlabelled={tuple(missing)!r}"
        )
    if unlabelled is None and (found := [name for name in names if name in NO_LABEL]):
        raise ValueError(
            f"data.label: the label {found[0]} often means that a row has none; say"
            f" data.unlabelled=({found[0]!r},) if it does, or data.unlabelled=() if it is a class"
        )
    if len(names) < 2:
        raise ValueError(
            f"data.label: there is one class, {list_names(names)}; a classifier needs two or more"
        )
    _warn(names, sum(counts))


def check_several(names: Sequence[str], unlabelled: object, rows: int) -> None:
    """Refuses names that are none of classes of which a row may have several.

    Raises:
      ValueError: for what often means no label and isn't said to.
    """
    if unlabelled is None and (found := [name for name in names if name in NO_LABEL]):
        raise ValueError(
            f"data.label: the label {found[0]} often means that a row has none; say"
            f" data.unlabelled=({found[0]!r},) if it does, or data.unlabelled=() if it is a class"
        )
    _warn(names, rows)


def _warn(names: Sequence[str], rows: int) -> None:
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(" ".join(name.casefold().split()), []).append(name)
    for same in alike.values():
        if len(same) > 1:
            log.warning("the classes %s are almost one name", " and ".join(map(repr, same)))
    if len(names) > 2 and len(names) > rows / 20:
        log.warning(
            "there are %d classes among %d training rows: are they classes, and not texts or"
            " several labels in one?",
            len(names),
            rows,
        )


def _as_number(name: str) -> float | None:
    try:
        return float(name)
    except ValueError:
        return None


def _are_integers(labels: Iterable[str]) -> bool:
    # Only the canonical spelling counts: "01" and "1" would be two classes with one number.
    return all(label.removeprefix("-").isdecimal() and str(int(label)) == label for label in labels)


def list_names(names: Sequence[str], limit: int = 20) -> str:
    """Returns the classes for a message, the first `limit` of them."""
    return ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")


def list_counts(counts: Mapping[str, int], limit: int = 10) -> str:
    """Returns the largest classes and their rows, for a line."""
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    shown = ", ".join(f"{name} {number}" for name, number in ordered[:limit])
    return shown if len(counts) <= limit else f"{shown}, ... ({len(counts)} classes)"


def clean_label(record: Mapping, column: str) -> str:
    """Returns a row's label as text.

    Raises:
      ValueError: if it is missing or neither text nor an integer.
    """
    value = record.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"missing label in column {column!r}")
    if not isinstance(value, str | int):
        raise ValueError(f"label in column {column!r} is neither text nor an integer")
    if any("\ud800" <= character <= "\udfff" for character in str(value)):
        raise ValueError(f"column {column!r} is not valid UTF-8")
    return str(value).strip()
