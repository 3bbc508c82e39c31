"""Checks training rows: which are kept, which are set aside and why, which are repaired."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_jax.data.cleaning import duplicates, images, text
from kd_jax.data.source import shorten

MODES = ("off", "report", "drop", "repair")
"""What is done about bad rows.

off: nothing is checked; report: all rows are kept, with a report; drop: bad rows are set aside;
repair: rows that can be repaired are, the others are set aside.
"""

REASONS = tuple(dict.fromkeys((*text.REASONS, *images.REASONS, *duplicates.REASONS)))
"""All reasons for which a row may be set aside."""

NOT_NFC = "not_nfc"
"""The reason for repairing a text that would not be set aside."""

SHOWN = 100
"""Characters of a text that its entry in the report is made from."""


@dataclass(frozen=True)
class Limits:
    """The limits beyond which something counts as wrong.

    Attributes:
      max_characters: of a text; None: any number.
      max_pixels: height times width of a picture; None: any number.
      near_duplicate: the Jaccard index, above 0 and up to 1, from which texts are near duplicates;
        None: only equal ones count.
    """

    max_characters: int | None = None
    max_pixels: int | None = None
    near_duplicate: float | None = None


@dataclass(frozen=True)
class Cleaned:
    """The result of cleaning.

    Attributes:
      kept: [M] int64, the positions of the rows to learn from, in order.
      changes: position -> repaired text, of kept rows.
      quarantined: for each row that something is wrong with a dict that JSON can hold: its `row`,
        `reasons`, shortened `value`, and `repeats`, the row that it repeats.
      counts: reason -> number of rows with it.
      repaired: reason -> number of rows from which it was removed.
    """

    kept: np.ndarray
    changes: dict[int, Any]
    quarantined: list[dict[str, Any]]
    counts: dict[str, int]
    repaired: dict[str, int]


def clean(
    inputs: Sequence | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    *,
    modality: str,
    mode: str,
    limits: Limits,
    held_out: Sequence = (),
    rows: Sequence[int] | np.ndarray = (),
    words: bool = False,
) -> Cleaned:
    """Checks training rows, also against the rows held out for evaluation.

    A row that is bad in itself makes no other row a duplicate. "report" finds what "drop" would
    find and keeps all rows.

    Args:
      inputs: [N] texts or pairs of them, str or bytes; or pictures, encoded or uint8 or float
        arrays.
      labels: [N] class numbers, -1 where unlabelled.
      modality: "text" or "image".
      mode: one of `MODES`.
      limits: beyond which something counts as wrong.
      held_out: inputs of the evaluation; training rows that repeat them are set aside, the
        evaluation's own rows never are.
      rows: [N] what the user calls each row; empty: counted from 1.
      words: whether each word between spaces has a label, so that none may be lost by a repair.

    Raises:
      ValueError: for another mode or lengths that differ; or if more rows would be set aside than
        are left.
    """
    if mode not in MODES:
        raise ValueError(f"the mode of cleaning is one of {', '.join(MODES)}, got {mode!r}")
    if len(inputs) != len(labels) or (len(rows) and len(rows) != len(labels)):
        raise ValueError(
            f"there are {len(inputs)} rows, {len(labels)} labels and {len(rows)} row numbers"
        )
    if mode == "off":
        return Cleaned(np.arange(len(labels)), {}, [], {}, {})
    # Two passes: first each row by itself, then the duplicates among the rows that passed, so that
    # a broken row can't push out a good one that resembles it.
    repair = mode == "repair"
    if modality == "text":
        found = _examine_texts(inputs, limits, repair, words)
    else:
        found = _examine_images(inputs, limits)
    repeats = _add_duplicates(found, labels, _keys(held_out, modality), limits.near_duplicate)
    bad = [row for row, reasons in enumerate(found.reasons) if reasons]
    counts = Counter(reason for reasons in found.reasons for reason in reasons)
    # If most rows look bad, the data or the limits are wrong: an error tells more than a model of
    # the few rows that remain.
    if mode != "report":
        check_left(
            len(bad), len(labels) - len(bad), counts, "cleaning", "the data, or at the limits"
        )
    rows = rows if len(rows) else range(1, len(labels) + 1)
    entries = [entry(row, inputs[row], found.reasons[row], rows, repeats.get(row)) for row in bad]
    kept = np.delete(np.arange(len(labels)), [] if mode == "report" else bad)
    # A repaired text may still be set aside as a duplicate, and then doesn't count as repaired.
    changes = {row: value for row, (value, _) in found.changes.items() if not found.reasons[row]}
    repaired = Counter(reason for row in changes for reason in found.changes[row][1])
    return Cleaned(kept, changes, entries, dict(counts), dict(repaired))


def check_left(bad: int, left: int, counts: Mapping[str, int], owner: str, advice: str) -> None:
    """Checks that no more rows would be set aside than are left.

    Args:
      bad: rows that would be set aside.
      left: rows that would be left.
      counts: reason -> rows, for the message.
      owner: what would set them aside, for the message.
      advice: what to look at, which ends the message.

    Raises:
      ValueError: with these numbers.
    """
    if bad > left:
        listed = ", ".join(f"{reason} {count}" for reason, count in Counter(counts).most_common())
        raise ValueError(
            f"{owner} would set aside {bad} rows, more than the {left} that are left ({listed});"
            f" look at {advice}"
        )


@dataclass
class _Findings:
    """What was found, row by row.

    Attributes:
      reasons: [N] what is wrong with each row.
      keys: [N] what two equal rows have in common.
      changes: row -> its repaired value, and the reasons that it had before.
    """

    reasons: list[list[str]]
    keys: list[Hashable]
    changes: dict[int, tuple[Any, list[str]]]


def _examine_texts(
    inputs: Sequence | np.ndarray, limits: Limits, repair: bool, words: bool
) -> _Findings:
    found = _Findings([], [], {})
    for row, value in enumerate(inputs):
        reasons = text.check(value, max_characters=limits.max_characters)
        # Texts that are too long are not repaired either: their length bounds what a hostile text
        # may cost.
        if repair and "too_long" not in reasons and (reasons or not text.is_nfc(value)):
            changed = text.repair(value)
            left = text.check(changed, max_characters=limits.max_characters)
            if left:
                # Repair may reveal more, such as an emptied text: the row shows both, in the usual
                # order.
                reasons = [reason for reason in text.REASONS if reason in (*reasons, *left)]
            # With another number of words the labels would be those of other words.
            elif not (words and str(changed).count(" ") != str(value).count(" ")):
                found.changes[row] = changed, reasons or [NOT_NFC]
                value, reasons = changed, []
        found.reasons.append(reasons)
        found.keys.append(None if reasons else duplicates.normalize(value))
    return found


def _examine_images(inputs: Sequence | np.ndarray, limits: Limits) -> _Findings:
    # What is wrong with a picture can't be repaired.
    found = _Findings([], [], {})
    for value in inputs:
        reasons = images.check(value, max_pixels=limits.max_pixels)
        found.reasons.append(reasons)
        found.keys.append(None if reasons else images.pixel_hash(value))
    return found


def _keys(inputs: Sequence, modality: str) -> list[Hashable]:
    """Returns the keys by which evaluation rows are recognized, of those that can be read.

    Texts have two, as they are and as repaired, since training rows are compared after their
    repair.
    """
    if modality == "text":
        return [
            duplicates.normalize(form) for value in inputs for form in (value, text.repair(value))
        ]
    return [
        images.pixel_hash(value)
        for value in inputs
        if not (isinstance(value, bytes) and images.check(value))
    ]


def _add_duplicates(
    found: _Findings,
    labels: Sequence[int] | np.ndarray,
    held_out: list[Hashable],
    near: float | None,
) -> dict[int, int]:
    """Adds the duplicates among rows that have no reason yet; returns row -> the row it repeats."""
    sound = [row for row, reasons in enumerate(found.reasons) if not reasons]
    keys = [found.keys[row] for row in sound]
    # Only texts can be nearly equal; pictures are compared by a hash of their pixels.
    near = near if keys and isinstance(keys[0], str) else None
    repeats = {}
    for place, (reason, other) in duplicates.find_duplicates(
        keys, np.asarray(labels)[sound], held_out, near=near
    ).items():
        found.reasons[sound[place]].append(reason)
        if other is not None and other != place:
            repeats[sound[place]] = sound[other]
    return repeats


def entry(
    row: int,
    value: Any,
    reasons: list[str],
    rows: Sequence[int] | np.ndarray,
    repeats: int | None = None,
) -> dict[str, Any]:
    """Returns what is reported of one row.

    Args:
      row: its position.
      value: its input, which is shortened.
      reasons: what is wrong with it.
      rows: [N] what the user calls each row.
      repeats: position of the row that it repeats, if any.
    """
    told = {"row": int(rows[row]), "reasons": reasons, "value": _show(value)}
    return told if repeats is None else told | {"repeats": int(rows[repeats])}


def _show(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return shorten(value[:SHOWN] if isinstance(value, str | bytes) else value)
