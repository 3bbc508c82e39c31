"""Rows that repeat others: within the training data, and of the data held out for evaluation."""

import unicodedata
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from kd_jax.data.cleaning.near_duplicates import find_near_duplicates
from kd_jax.data.cleaning.text import Text, decode

REASONS = (
    "duplicate_of_evaluation",
    "near_duplicate_of_evaluation",
    "conflicting_labels",
    "duplicate",
    "near_duplicate",
)
"""What `find_duplicates` may answer."""

Finding = tuple[str, int | None]
"""A reason and the training row that is repeated: the first with that key; None where it's an
  evaluation row."""


def normalize(text: Text) -> str:
    """A text or pair in NFKC, without case, white space single: equal for texts that read alike."""
    if isinstance(text, tuple):
        return "\x1f".join(normalize(part) for part in text)
    text = decode(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def find_duplicates(
    keys: Sequence[Hashable],
    labels: Sequence[int] | np.ndarray,
    held_out: Iterable[Hashable] = (),
    *,
    near: float | None = None,
) -> dict[int, Finding]:
    """Training rows that repeat others, each with the first reason of `REASONS` that holds.

    Of equal rows, and of nearly equal ones, the first is no duplicate; but where equal rows have
    several labels, all of them are "conflicting_labels".

    Args:
      keys: [N] what two equal rows share: normalised texts, hashes of pixels.
      labels: [N] class numbers, -1 where unlabelled.
      held_out: keys of the evaluation rows, which are never reported themselves.
      near: the Jaccard index from which texts are near duplicates; None: only equal rows are
        sought.

    Raises:
      ValueError: if `keys` and `labels` differ in length, or `near` is no such index.
    """
    if len(keys) != len(labels):
        raise ValueError(f"there are {len(keys)} rows and {len(labels)} labels")
    held_out = list(dict.fromkeys(held_out))
    found = _find_exact(keys, np.asarray(labels).tolist(), set(held_out))
    if near is not None:
        # An evaluation row stands before all training rows, so that whatever is like it finds it
        # first.
        rest = [row for row in range(len(keys)) if row not in found]
        texts = [str(key) for key in (*held_out, *(keys[row] for row in rest))]
        for later, earlier in find_near_duplicates(texts, near, len(held_out)).items():
            inside = earlier >= len(held_out)
            reason = "near_duplicate" if inside else "near_duplicate_of_evaluation"
            found[rest[later - len(held_out)]] = (
                reason,
                rest[earlier - len(held_out)] if inside else None,
            )
    return found


def _find_exact(
    keys: Sequence[Hashable], labels: list[int], held_out: set[Hashable]
) -> dict[int, Finding]:
    first: dict[Hashable, int] = {}
    conflicts: set[Hashable] = set()
    for row, key in enumerate(keys):
        other = first.setdefault(key, row)
        if labels[other] != labels[row]:
            conflicts.add(key)
    found: dict[int, Finding] = {}
    for row, key in enumerate(keys):
        if key in held_out:
            found[row] = ("duplicate_of_evaluation", None)
        elif key in conflicts:
            found[row] = ("conflicting_labels", first[key])
        elif first[key] != row:
            found[row] = ("duplicate", first[key])
    return found
