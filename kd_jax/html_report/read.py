"""What a finished run or sweep left in its folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_jax.core.json_files import read_own
from kd_jax.experiments.run import EXAMPLES
from kd_jax.experiments.search.run import FILE as SEARCH

RESULTS, SWEEP, LOG = "results.json", "sweep.json", "metrics.jsonl"


@dataclass(frozen=True)
class Curve:
    """A value of a model while it was trained.

    Attributes:
      steps: optimizer steps, ascending.
      values: one a step.
    """

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
      folder: the run's.
      results: what stands in its results.json.
      curves: of the loss and of the primary metric on the selection split, by what is drawn, then
        by model.
      examples: where models differ most, by kind; empty where the run wrote none.
    """

    folder: Path
    results: Mapping[str, Any]
    curves: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    examples: Mapping[str, Any] = field(default_factory=dict)


def read_run(folder: Path) -> Finished:
    """Opens a run's folder.

    Raises:
      ValueError: in one line, if it holds no finished run, or results.json is damaged.
    """
    if not (folder / RESULTS).is_file():
        raise ValueError(
            f"{folder} holds no finished run, sweep or search: there is no {RESULTS}, {SWEEP} or"
            f" {SEARCH}; the command that began it finishes it"
        )
    results = read_own(folder / RESULTS, "the command that made it makes it again")
    if not {"models", "order", "compare"} <= results.keys():
        raise ValueError(f"{folder / RESULTS} is no results.json of a finished run")
    examples = folder / EXAMPLES
    found = read_own(examples, "delete it") if examples.is_file() else {}
    return Finished(folder, results, _curves(folder / LOG, results), found)


def read_sweep(folder: Path) -> dict[str, Any]:
    """Reads a sweep's sweep.json.

    Raises:
      ValueError: in one line, if it is damaged or no run of it has ended.
    """
    found = read_own(folder / SWEEP, "the command that made it makes it again")
    if not found.get("settings"):
        raise ValueError(f"{folder / SWEEP} has no finished run yet")
    return found


def read_search(folder: Path) -> dict[str, Any]:
    """Reads a search's search.json.

    Raises:
      ValueError: in one line, if it is damaged or no run of it has ended.
    """
    found = read_own(folder / SEARCH, "the command that made it makes it again")
    if not any(each["runs"] for each in found.get("rounds", ())):
        raise ValueError(f"{folder / SEARCH} has no finished run yet")
    return found


def _curves(log: Path, results: Mapping[str, Any]) -> dict[str, dict[str, Curve]]:
    """Reads the training loss and the primary metric on the selection split."""
    primary = results.get("primary", "accuracy")
    wanted = {"loss": "loss", f"selection/{primary}": "selection"}
    found: dict[str, dict[str, Curve]] = {"loss": {}, "selection": {}}
    if not log.is_file():
        return found
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        # The last line of a process that was killed may be cut.
        except ValueError:
            continue
        # Of models that this folder no longer holds, or of another version's lines.
        if entry.get("model") not in results["models"]:
            continue
        for key, kind in wanted.items():
            if (value := entry.get(key)) is not None:
                curve = found[kind].setdefault(entry["model"], Curve([], []))
                curve.steps.append(entry["step"])
                curve.values.append(value)
    return found
