"""Reads split specifications in TFDS's syntax, such as `train[:90%]` or `train[:10%]+test`.

Every boundary is computed in one place, so `train[:90%]` and `train[90%:]` meet and never overlap.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

import numpy as np

_PART = re.compile(r"(?P<name>[\w.-]+)(\[(?P<start>-?\d+%?)?(?P<colon>:)(?P<stop>-?\d+%?)?\])?")


def select(spec: str, counts: Mapping[str, int], owner: str) -> list[tuple[str, range]]:
    """Returns the rows that a split specification selects.

    Args:
      spec: the split, e.g. `"train[:90%]"`.
      counts: number of rows of each split that exists.
      owner: the dataset's name, for messages.

    Returns:
      Pairs of a split's name and a range of its rows, in the order written.

    Raises:
      ValueError: for a malformed, unknown, out of bounds or empty split.
    """
    parts = [_select_part(part.strip(), spec, counts, owner) for part in spec.split("+")]
    if not sum(len(rows) for _, rows in parts):
        raise ValueError(f"split {spec!r} of {owner!r} is empty")
    return parts


def split_names(spec: str, known: Iterable[str], owner: str) -> set[str]:
    """Returns the names of the splits that `spec` reads, before their rows are counted.

    Raises:
      ValueError: for a malformed or unknown split.
    """
    return {_match(part.strip(), spec, known, owner)["name"] for part in spec.split("+")}


def fixed_order(keys: Iterable[str]) -> list[int]:
    """Returns a pseudo-random order of rows that depends on each row's key alone: [N] positions.

    A file that is sorted by class can then be sliced into fair parts, and a row added to the file
    moves no other row past another.
    """
    digests = (hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest() for key in keys)
    # One array, since a list of the digests would take several times its memory.
    return np.argsort(np.fromiter(digests, "S32"), kind="stable").tolist()


def _match(part: str, spec: str, known: Iterable[str], owner: str) -> re.Match:
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError(
            f"malformed split {spec!r} of {owner!r}; write for example 'train', 'train[:90%]',"
            f" 'train[100:]'"
        )
    if match["name"] not in known:
        raise ValueError(
            f"{owner!r} has no split {match['name']!r}; it has {', '.join(sorted(known)) or 'none'}"
        )
    return match


def _select_part(part: str, spec: str, counts: Mapping[str, int], owner: str) -> tuple[str, range]:
    match = _match(part, spec, counts, owner)
    count = counts[match["name"]]
    start, stop = _boundary(match["start"], 0, count), _boundary(match["stop"], count, count)
    if not (0 <= start <= count and 0 <= stop <= count):
        raise ValueError(
            f"split {spec!r} of {owner!r} reaches outside the {count} rows of {match['name']!r}"
        )
    # A slice that ends before it starts is empty, as in Python.
    return match["name"], range(start, max(start, stop))


def _boundary(text: str | None, default: int, count: int) -> int:
    if text is None:
        return default
    # Rounding as TFDS does, so that a split means the same rows wherever its data comes from.
    value = round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)
    return count + value if text.startswith("-") else value
