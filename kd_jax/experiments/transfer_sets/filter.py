"""Which new inputs a transfer set keeps: sound ones, unlike the evaluation data, of which the
teacher is sure."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from kd_jax.data.cleaning import duplicates, images
from kd_jax.data.cleaning.clean import Limits, clean

OF_EVALUATION = ("duplicate_of_evaluation", "near_duplicate_of_evaluation")
OF_TRAINING = "duplicate_of_training"


@dataclass(frozen=True)
class Sound:
    """What is left of the candidates before the teacher sees them.

    Attributes:
      rows: [M] int64, their positions, ascending.
      dropped: reason -> candidates that were dropped for it.
    """

    rows: np.ndarray
    dropped: dict[str, int]


def sift(
    candidates: Sequence | np.ndarray,
    training: Sequence | np.ndarray,
    held_out: Sequence,
    *,
    modality: str,
    limits: Limits,
    max_overlap: float,
) -> Sound:
    """Drops candidates that are broken, that repeat each other or a training input, or nearly
    repeat the evaluation.

    Candidates that nearly repeat each other stay, since changing a sentence a little is what makes
    them; but one that nearly repeats another which nearly repeats the evaluation goes with it.

    Args:
      candidates: [N] texts, pairs of texts or images.
      training: the inputs that the student learns from anyway.
      held_out: those that select and evaluate.
      modality: "text" or "image".
      limits: see `kd_jax.data.cleaning`.
      max_overlap: share of the candidates, in [0, 1], that may repeat the evaluation.

    Raises:
      ValueError: if more repeat it, or nothing is left.
    """
    unlabelled = np.full(len(candidates), -1)
    # Only reported, because which rows go is decided below, by rules of its own.
    report = clean(
        candidates, unlabelled, modality=modality, mode="report", limits=limits, held_out=held_out
    )
    # Reports count rows from 1, as people do.
    found = {entry["row"] - 1: entry for entry in report.quarantined}
    # A set of keys makes each look-up cheap, however many training rows there are.
    known = {_key(value, modality) for value in training}
    reasons: dict[int, str] = {}
    # In order, because a near duplicate asks what became of an earlier row.
    for row in range(len(candidates)):
        reason = _reason(row, found, reasons)
        if reason is None and _key(candidates[row], modality) in known:
            reason = OF_TRAINING
        if reason is not None:
            reasons[row] = reason
    dropped = Counter(reasons.values())
    overlap = sum(dropped[reason] for reason in OF_EVALUATION)
    # A few repeats are chance; many mean that the source holds the evaluation data.
    if overlap > max_overlap * len(candidates):
        row = next(row for row, reason in reasons.items() if reason in OF_EVALUATION)
        raise ValueError(
            f"{overlap} of {len(candidates)} rows of its source repeat the evaluation data, more"
            f" than"
            f" max_overlap={max_overlap}; the first is row {row + 1}: {found[row]['value']}"
        )
    rows = np.array([row for row in range(len(candidates)) if row not in reasons], np.int64)
    if not len(rows):
        listed = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
        raise ValueError(f"nothing is left of the {len(candidates)} rows of its source ({listed})")
    return Sound(rows, dict(dropped))


def _reason(row: int, found: dict[int, dict], earlier: dict[int, str]) -> str | None:
    """Says why a candidate is dropped.

    Near duplicates of earlier ones share their fate if that is the evaluation's.
    """
    if row not in found:
        return None
    # Each row counts for one reason only, so that the counts add up.
    reason = found[row]["reasons"][0]
    if reason != "near_duplicate":
        return reason
    return OF_EVALUATION[1] if earlier.get(found[row]["repeats"] - 1) in OF_EVALUATION else None


def _key(value, modality: str) -> Hashable:
    return duplicates.normalize(value) if modality == "text" else images.pixel_hash(value)


def choose(
    sureness: np.ndarray, classes: np.ndarray | None, confidence: float, per_class: int | None
) -> np.ndarray:
    """Chooses the rows of which the teacher is sure enough.

    Args:
      sureness: [N] in [0, 1], the teacher's probability of what it predicts.
      classes: [N] int, that it predicts; None where an example has none or several.
      confidence: least sureness, in [0, 1].
      per_class: at most so many rows of each class, the surest ones; None: any number.

    Returns:
      [M] int64, ascending.

    Raises:
      ValueError: if none is left.
    """
    sure = np.flatnonzero(sureness >= confidence)
    if not len(sure):
        raise ValueError(
            f"confidence {confidence} keeps none of {len(sureness)} rows; the teacher's most"
            f" confident prediction has {sureness.max():.4f}"
        )
    if per_class is None or classes is None:
        return sure
    # A stable sort keeps the choice among equal confidences the same every time.
    order = sure[np.argsort(-sureness[sure], kind="stable")]
    first = [order[classes[order] == label][:per_class] for label in np.unique(classes)]
    # Ascending, so that chosen rows keep the order in which they were made.
    return np.sort(np.concatenate(first))
