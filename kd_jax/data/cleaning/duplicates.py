"""Finds training rows that repeat each other or the rows held out for evaluation."""

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
"""All reasons that `find_duplicates` gives."""

Finding = tuple[str, int | None]
"""A reason and the training row that is repeated, the first with that key.

The row is None if an evaluation row is repeated.
"""


def normalize(text: Text) -> str:
    """Returns a text or pair as it reads: in NFKC, without case, with single spaces.

    Texts that read alike become equal.
    """
    if isinstance(text, tuple):
        return "\x1f".join(normalize(part) for part in text)
    text = decode(text)
    # ASCII is in NFKC already; most texts skip the costly call.
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
    """Finds training rows that repeat others; each gets the first reason of `REASONS` that holds.

    Of equal rows the first that has a label, and of nearly equal ones the first, is not a
    duplicate; but if equal rows have several labels, all of them are "conflicting_labels".

    Args:
      keys: [N] what two equal rows share: normalized texts, hashes of pixels.
      labels: [N] class numbers, -1 where unlabelled.
      held_out: keys of the evaluation rows, which are never reported themselves.
      near: the Jaccard index from which texts are near duplicates; None: only equal rows are
        looked for.

    Raises:
      ValueError: if `keys` and `labels` differ in length, or `near` is not above 0 and up to 1.
    """
    if len(keys) != len(labels):
        raise ValueError(f"there are {len(keys)} rows and {len(labels)} labels")
    held_out = list(dict.fromkeys(held_out))
    found = _find_exact(keys, np.asarray(labels).tolist(), set(held_out))
    if near is not None:
        # Evaluation rows stand before all training rows: the search compares each row with earlier
        # ones, so whatever resembles an evaluation row finds it first.
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
    # Nobody knows which of several labels is right, so none of such rows is kept, not even the
    # first.
    conflicts: set[Hashable] = set()
    for row, key in enumerate(keys):
        other = first.setdefault(key, row)
        # A row without a label contradicts none; of equal rows the first with one is kept.
        if labels[other] < 0 <= labels[row]:
            first[key] = row
        elif labels[row] >= 0 and labels[other] != labels[row]:
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
