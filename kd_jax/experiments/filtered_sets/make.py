"""Trusted sets made, kept on disk and found again."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kd_jax.core.json_files import as_json, read_facts, write_json
from kd_jax.core.rng import derived_seed
from kd_jax.core.shared_files import written
from kd_jax.data.cleaning import find_label_errors, highest_in_class, spectral_signatures
from kd_jax.data.cleaning.clean import check_left, entry
from kd_jax.data.source import Source
from kd_jax.data.subsets import relabel
from kd_jax.experiments.filtered_sets.cross_validate import ask, ask_held_out
from kd_jax.training.context import RunContext
from kd_jax.training.trained_model import TrainedModel

FOLDER = "trusted_sets"
DOUBTS = "doubts.json"

log = logging.getLogger("kd_jax")


@dataclass(frozen=True)
class TrustedSet:
    """What is left of the training split.

    Attributes:
      source: the rows that are trusted; in mode "report" all of them.
      quarantined: a JSON-able dict for each row that is doubted: its `set`, `row`, `reasons` and
        shortened `value`.
      facts: JSON: who judged, "rows", "kept", and "doubted": reason -> rows.
    """

    source: Source
    quarantined: list[dict[str, Any]]
    facts: dict[str, Any]


def load(name: str, spec: Mapping[str, Any], workdir: Path, train: Source) -> TrustedSet:
    """Loads a filtered set of a finished run.

    Raises:
      ValueError: if it isn't there.
    """
    found = _read(workdir / FOLDER / name)
    # Doubts are positions of rows, so on other training data they would name wrong ones.
    if found is None or found["training_data"] != train.fingerprint:
        raise ValueError(f"the run in {workdir} has no whole trusted set {name!r}")
    return _sift(name, spec["mode"], found, train)


def make(
    name: str, spec: Mapping[str, Any], judge: TrainedModel, context: RunContext
) -> TrustedSet:
    """Has the judge look at every training row, or finds what the same judge said of the same rows.

    Args:
      name: of the set.
      spec: its section, checked.
      judge: the finished model.
      context: the data and the devices.

    Raises:
      ValueError: if more rows would be set aside than are left, or the judge has no `pooled`
        feature to see poison by.
      Interrupted: after SIGTERM; the same call goes on.
    """
    train, folder = context.datasets.splits["train"], context.workdir / FOLDER / name
    # All that the doubts depend on; the mode only says what is done with them.
    facts = {
        "judge": spec["judge"],
        "judge_fingerprint": judge.description["fingerprint"],
        "training_data": train.fingerprint,
        "seed": derived_seed(context.seed, "trusted", name),
        "options": as_json(
            {key: spec[key] for key in ("label_errors", "label_share", "folds", "poison")}
        ),
    }
    found = _read(folder)
    # Asking the judge can take whole trainings, so kept doubts are used where nothing changed.
    if found is None or {key: found.get(key) for key in facts} != facts:
        if found is not None:
            log.warning("trusted_sets.%s was made from something else; it is made again", name)
        # The user knows the set by its name, so errors from below get it.
        try:
            found = facts | {"doubted": _doubt(spec, judge, facts["seed"], folder, context)}
        except ValueError as error:
            raise ValueError(f"trusted_sets.{name}: {error}") from None
        _keep(found, folder)
    made = _sift(name, spec["mode"], found, train)
    log.info(
        "trusted_sets.%s: %d of %d training rows kept; doubted: %s",
        name,
        made.facts["kept"],
        len(train),
        made.facts["doubted"],
    )
    return made


def _doubt(
    spec: Mapping[str, Any], judge: TrainedModel, seed: int, folder: Path, context: RunContext
) -> dict[str, list[int]]:
    """Returns reason -> positions of the training rows that it speaks against, ascending."""
    labels = context.datasets.splits["train"].labels
    # The judge as it is has a say only about poison, and about labels without folds.
    said = ask(judge, context) if spec["poison"] is not None or not spec["folds"] else {}
    # Checked before the folds, whose trainings would be lost otherwise.
    if spec["poison"] is not None and "pooled" not in said:
        raise ValueError(
            f"the judge {judge.plan.name!r} has no feature 'pooled'; it has"
            f" {', '.join(sorted(said))}"
        )
    doubts = {}
    if spec["label_errors"]:
        # A model fits the labels that it learned, wrong ones too, so it finds few of them.
        if not spec["folds"] and judge.plan.objective and not judge.plan.restore:
            log.warning(
                "%s judges labels that it learned from, and will doubt few: give it folds",
                judge.plan.name,
            )
        logits = (
            ask_held_out(judge, spec["folds"], seed, folder, context)
            if spec["folds"]
            else said["logits"]
        )
        scores, suspects = find_label_errors(np.asarray(jax.nn.softmax(logits)), labels)
        # A share is of all labelled rows together, so class limits don't count here.
        if spec["label_share"] is not None:
            labelled = np.minimum(labels, 0)  # All classes as one.
            suspects = highest_in_class(scores, labelled, spec["label_share"])
        doubts["label_error"] = suspects
    if spec["poison"] is not None:
        doubts["poison"] = highest_in_class(
            spectral_signatures(said["pooled"], labels), labels, spec["poison"]
        )
    return {reason: np.flatnonzero(rows).tolist() for reason, rows in doubts.items()}


def _sift(name: str, mode: str, found: Mapping[str, Any], train: Source) -> TrustedSet:
    """Returns the set without the suspects in mode "drop"; reports them in both modes."""
    # A row can be doubted for several reasons, and is reported once with all of them.
    reasons: dict[int, list[str]] = {}
    for reason, rows in found["doubted"].items():
        for row in rows:
            reasons.setdefault(row, []).append(reason)
    bad = sorted(reasons)
    # Users look for a row by its number in their own file, which cleaning may have shifted.
    numbers = train.rows if len(train.rows) else range(1, len(train) + 1)
    entries = [{"set": name} | entry(row, train.inputs[row], reasons[row], numbers) for row in bad]
    doubted = {reason: len(rows) for reason, rows in found["doubted"].items()}
    source = train
    if mode == "drop" and bad:
        advice = "the judge, or at the shares that are doubted"
        # Too many doubts speak against the judge rather than the data, so nothing is dropped then.
        check_left(len(bad), len(train) - len(bad), doubted, f"trusted_sets.{name}", advice)
        kept = np.delete(np.arange(len(train)), bad)
        source = replace(
            relabel(train, kept, train.labels[kept], train.class_names),
            name=f"{train.name} {name}",
            rows=[numbers[row] for row in kept.tolist()],
        )
    facts = {key: value for key, value in found.items() if key != "doubted"}
    facts |= {"mode": mode, "rows": len(train), "kept": len(source), "doubted": doubted}
    return TrustedSet(source, entries, facts)


def _keep(found: Mapping[str, Any], folder: Path) -> None:
    """Keeps the doubts; the models that were trained for them have had their say."""
    # Written before the folds go: a kill in between costs only disk space.
    write_json(folder / DOUBTS, found)
    if jax.process_index() == 0:
        for each in folder.glob("fold_*"):
            shutil.rmtree(each)
    # Another process may read the doubts as soon as this returns.
    written(folder / DOUBTS)


def _read(folder: Path) -> dict[str, Any] | None:
    return read_facts(
        folder / DOUBTS, ("training_data", "doubted"), "the trusted set is made again"
    )
