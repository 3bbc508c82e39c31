"""Cleans the training split of an experiment as its config says."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kd_jax.core.options import check_keys
from kd_jax.data.cleaning.clean import MODES, Cleaned, Limits, clean
from kd_jax.data.source import Source, fingerprint, pick_ids, text_contents
from kd_jax.tasks import CLASSIFICATION, Task

OPTIONS = ("mode", "prepared", "max_characters", "max_pixels", "near_duplicate")


def choose_mode(spec: Mapping[str, Any], own: bool) -> str:
    """Checks a config's section `data.cleaning` and returns the mode for a dataset.

    Args:
      spec: `mode`, for the user's own files and folders; `prepared`, for TFDS and built-in
        datasets; `max_characters` of a text; `max_pixels` of a picture; `near_duplicate`, a Jaccard
        index, 0.0: only equal texts are duplicates.
      own: whether the data lies in the user's own files.

    Raises:
      ValueError: for another option or a value out of range.
    """
    check_keys(spec, dict.fromkeys(OPTIONS, True), "data.cleaning")
    for key in ("mode", "prepared"):
        if spec[key] not in MODES:
            raise ValueError(f"data.cleaning.{key} is one of {', '.join(MODES)}, got {spec[key]!r}")
    for key in ("max_characters", "max_pixels"):
        if isinstance(spec[key], bool) or not isinstance(spec[key], int) or spec[key] < 1:
            raise ValueError(f"data.cleaning.{key} is a positive number, got {spec[key]!r}")
    if not isinstance(spec["near_duplicate"], int | float) or not 0 <= spec["near_duplicate"] <= 1:
        raise ValueError(
            f"data.cleaning.near_duplicate lies between 0 and 1, got {spec['near_duplicate']!r}"
        )
    return spec["mode" if own else "prepared"]


def make_limits(spec: Mapping[str, Any]) -> Limits:
    """Returns the limits that a config's section `data.cleaning` sets."""
    return Limits(spec["max_characters"], spec["max_pixels"], spec["near_duplicate"] or None)


def clean_training(
    source: Source,
    held_out: Sequence[Source],
    mode: str,
    spec: Mapping[str, Any],
    task: Task = CLASSIFICATION,
) -> tuple[Source, Cleaned]:
    """Cleans a training split.

    Args:
      source: the training split.
      held_out: the splits that select and evaluate; what repeats them is removed from `source`,
        they themselves stay complete.
      mode: as `choose_mode` returns it.
      spec: as in `choose_mode`.
      task: which labels contradict each other.

    Returns:
      The source of the kept rows, whose fingerprint covers only these; and the result of cleaning.

    Raises:
      ValueError: if more rows would be set aside than are left.
    """
    limits = make_limits(spec)
    # Not even read if nothing is cleaned: pictures may have to be decoded for it.
    others = [value for other in held_out for value in other.inputs] if mode != "off" else []
    try:
        cleaned = clean(
            source.inputs,
            task.groups(source.labels),
            modality=source.modality,
            mode=mode,
            limits=limits,
            held_out=others,
            rows=source.rows,
            words=task.words,
        )
    except ValueError as error:
        raise ValueError(f"{source.name!r}: {error}") from None
    return _keep(source, cleaned), cleaned


def _keep(source: Source, cleaned: Cleaned) -> Source:
    # Data that needs no cleaning keeps its fingerprint, whatever the mode.
    if len(cleaned.kept) == len(source) and not cleaned.changes:
        return source
    labels = source.labels[cleaned.kept]
    if source.modality == "text":
        inputs = [cleaned.changes.get(row, source.inputs[row]) for row in cleaned.kept.tolist()]
        contents = text_contents(inputs)
    else:
        inputs = (
            source.inputs[cleaned.kept]
            if isinstance(source.inputs, np.ndarray)
            else Kept(source.inputs, cleaned.kept)
        )
        # Pictures may lie on disk: the source's fingerprint and the kept positions stand for them.
        contents = (source.fingerprint.encode(), cleaned.kept.astype("<i8").tobytes())
    rows = [source.rows[row] for row in cleaned.kept] if len(source.rows) else cleaned.kept + 1
    soft = None if source.soft_labels is None else source.soft_labels[cleaned.kept]
    if soft is not None:
        contents = (*contents, soft.tobytes())
    digest = fingerprint(contents, labels, source.class_names)
    return replace(
        source,
        inputs=inputs,
        labels=labels,
        fingerprint=digest,
        rows=rows,
        soft_labels=soft,
        ids=pick_ids(source, cleaned.kept),
    )


class Kept(Sequence):
    """Some elements of a sequence, looked up on access: pictures on disk stay on disk."""

    def __init__(self, values: Sequence, positions: np.ndarray):
        self._values, self._positions = values, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Kept(self._values, self._positions[index])
        return self._values[int(self._positions[index])]
