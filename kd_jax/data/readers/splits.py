"""Split specifications in TFDS's syntax: `train`, `train[:90%]`, `train[100:-50]`,
  `train[:10%]+test`.

One place computes every boundary, so `train[:90%]` and `train[90%:]` meet and never overlap.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

_PART = re.compile(r"(?P<name>[\w.-]+)(\[(?P<start>-?\d+%?)?(?P<colon>:)(?P<stop>-?\d+%?)?\])?")


def select(spec: str, counts: Mapping[str, int], owner: str) -> list[tuple[str, range]]:
    """The rows that a split asks for.

    Args:
      spec: the split, e.g. `"train[:90%]"`.
      counts: rows of each split that exists.
      owner: the dataset's name, for messages.

    Returns:
      Pairs of a split's name and a range of its rows, in the order written.

    Raises:
      ValueError: malformed, unknown, out of bounds or empty split.
    """
    parts = [_select_part(part.strip(), spec, counts, owner) for part in spec.split("+")]
    if not sum(len(rows) for _, rows in parts):
        raise ValueError(f"split {spec!r} of {owner!r} is empty")
    return parts


def split_names(spec: str, known: Iterable[str], owner: str) -> set[str]:
    """The names of the splits that `spec` reads, before anybody knows how many rows they have.

    Raises:
      ValueError: malformed or unknown split.
    """
    return {_match(part.strip(), spec, known, owner)["name"] for part in spec.split("+")}


def fixed_order(keys: Iterable[str]) -> list[int]:
    """A pseudo-random order of rows that depends on each row's key alone: [N] positions.

    A file sorted by class then slices into fair parts, and a row added to the file moves no other
    row past another."""
    digests = [hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest() for key in keys]
    return sorted(range(len(digests)), key=digests.__getitem__)


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
    return match["name"], range(start, max(start, stop))


def _boundary(text: str | None, default: int, count: int) -> int:
    if text is None:
        return default
    # Rounding as TFDS does, so that a split means the same rows wherever its data comes from.
    value = round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)
    return count + value if text.startswith("-") else value
