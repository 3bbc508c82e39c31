"""Training rows checked: which are kept, which set aside and why, which repaired."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_jax.data.cleaning import duplicates, images, text
from kd_jax.data.source import shorten

MODES = ("off", "report", "drop", "repair")
"""off: nothing is looked at; report: told and kept; drop: set aside; repair: what can be is, the
  rest set aside."""

REASONS = tuple(dict.fromkeys((*text.REASONS, *images.REASONS, *duplicates.REASONS)))
"""All that a row may be set aside for."""

NOT_NFC = "not_nfc"
"""Why a text was changed that had nothing to be set aside for."""

SHOWN = 100
"""Characters of a text that its entry is made from."""


@dataclass(frozen=True)
class Limits:
    """From where on something counts as wrong.

    Attributes:
      max_characters: of a text; None: any number.
      max_pixels: of a picture; None: any number.
      near_duplicate: the Jaccard index, above 0 and up to 1, from which texts are near duplicates;
        None: only equal ones count.
    """

    max_characters: int | None = None
    max_pixels: int | None = None
    near_duplicate: float | None = None


@dataclass(frozen=True)
class Cleaned:
    """What cleaning came to.

    Attributes:
      kept: [M] int64, the positions of the rows to learn from, in order.
      changes: position -> repaired text, of kept rows.
      quarantined: a JSON-able dict for each row that something is wrong with: its `row`, `reasons`,
        shortened `value`, and `repeats`, the row that it repeats.
      counts: reason -> rows that it was found in.
      repaired: reason -> rows that were repaired of it.
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
) -> Cleaned:
    """Checks training rows, and what they share with the rows held out for evaluation.

    A row that is set aside for itself makes no other a duplicate. "report" finds what "drop" would
    and keeps all rows.

    Args:
      inputs: [N] texts or pairs of them, str or bytes; or pictures, encoded or uint8 or float
        arrays.
      labels: [N] class numbers, -1 where unlabelled.
      modality: "text" or "image".
      mode: one of `MODES`.
      limits: from where on something counts as wrong.
      held_out: inputs of the evaluation; training rows that repeat them are set aside, they
        themselves never.
      rows: [N] what the user calls each row; empty: counted from 1.

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
    examine = _examine_texts if modality == "text" else _examine_images
    found = examine(inputs, limits, mode == "repair")
    repeats = _add_duplicates(found, labels, _keys(held_out, modality), limits.near_duplicate)
    bad = [row for row, reasons in enumerate(found.reasons) if reasons]
    counts = Counter(reason for reasons in found.reasons for reason in reasons)
    if mode != "report":
        check_left(
            len(bad), len(labels) - len(bad), counts, "cleaning", "the data, or at the limits"
        )
    rows = rows if len(rows) else range(1, len(labels) + 1)
    entries = [entry(row, inputs[row], found.reasons[row], rows, repeats.get(row)) for row in bad]
    kept = np.delete(np.arange(len(labels)), [] if mode == "report" else bad)
    changes = {row: value for row, (value, _) in found.changes.items() if not found.reasons[row]}
    repaired = Counter(reason for row in changes for reason in found.changes[row][1])
    return Cleaned(kept, changes, entries, dict(counts), dict(repaired))


def check_left(bad: int, left: int, counts: Mapping[str, int], owner: str, advice: str) -> None:
    """Refuses to set aside more rows than are left; `counts` are the reasons why, `owner` who
    would, `advice` ends it.

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
    """Row by row: reasons [N], keys by which equal rows are known [N], and row -> repaired value
    and what it had."""

    reasons: list[list[str]]
    keys: list[Hashable]
    changes: dict[int, tuple[Any, list[str]]]


def _examine_texts(inputs: Sequence | np.ndarray, limits: Limits, repair: bool) -> _Findings:
    found = _Findings([], [], {})
    for row, value in enumerate(inputs):
        reasons = text.check(value, max_characters=limits.max_characters)
        if repair and "too_long" not in reasons and (reasons or not text.is_nfc(value)):
            changed = text.repair(value)
            left = text.check(changed, max_characters=limits.max_characters)
            if left:
                reasons = [reason for reason in text.REASONS if reason in (*reasons, *left)]
            else:
                found.changes[row] = changed, reasons or [NOT_NFC]
                value, reasons = changed, []
        found.reasons.append(reasons)
        found.keys.append(None if reasons else duplicates.normalize(value))
    return found


def _examine_images(inputs: Sequence | np.ndarray, limits: Limits, repair: bool) -> _Findings:
    del repair  # What is wrong with a picture can't be undone.
    found = _Findings([], [], {})
    for value in inputs:
        reasons = images.check(value, max_pixels=limits.max_pixels)
        found.reasons.append(reasons)
        found.keys.append(None if reasons else images.pixel_hash(value))
    return found


def _keys(inputs: Sequence, modality: str) -> list[Hashable]:
    """What evaluation rows are known by, of those that can be read; texts both as they are and as
    repair makes them."""
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
    """Adds the duplicates among the rows that have no reason yet, and says which row each
    repeats."""
    sound = [row for row, reasons in enumerate(found.reasons) if not reasons]
    keys = [found.keys[row] for row in sound]
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
    """What is told of the row at a position; `rows` [N] is what the user calls each, `repeats`
    another's position."""
    told = {"row": int(rows[row]), "reasons": reasons, "value": _show(value)}
    return told if repeats is None else told | {"repeats": int(rows[repeats])}


def _show(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return shorten(value[:SHOWN] if isinstance(value, str | bytes) else value)
