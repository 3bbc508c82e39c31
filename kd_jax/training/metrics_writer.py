"""Writes a model's metrics to metrics.jsonl, and to the run's writers beside it."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from kd_jax.training.writers import OpenedWriters

log = logging.getLogger("kd_jax")

LOG = "metrics.jsonl"

EVALUATION = "evaluation/"
"""Before the names of what a finished model reached on the evaluation split."""


class MetricsWriter:
    """One model's metrics, appended to the workdir's metrics.jsonl and passed on to the writers.

    Steps after `resumed_at` that an interrupted run left behind are taken out first, so that no
    step stands twice.

    Args:
      workdir: holds metrics.jsonl.
      model: whose metrics they are.
      resumed_at: the step that training goes on from.
      writers: the run's, which stay open.
    """

    def __init__(
        self, workdir: Path, model: str, *, resumed_at: int, writers: OpenedWriters | None = None
    ):
        self._model, self._path = model, workdir / LOG
        self._writers = OpenedWriters() if writers is None else writers
        # All processes have the same metrics; a second writer would double every line.
        self._writes = jax.process_index() == 0
        if self._writes:
            _forget_after(self._path, model, resumed_at)
            self._writers.begin(model, resumed_at)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one JSON object: model, step, values."""
        if self._writes:
            _append(self._path, self._model, step, values)
            self._writers.write(self._model, step, values)

    def close(self) -> None:
        """Tells the writers that the training is over."""
        if self._writes:
            self._writers.end(self._model)


def write_evaluation(
    workdir: Path, model: str, step: int, values: Mapping[str, float], writers: OpenedWriters
) -> None:
    """Writes what a finished model reached, in place of what an earlier evaluation wrote.

    Args:
      workdir: holds metrics.jsonl.
      model: the model's name.
      step: of the checkpoint that was chosen.
      values: by metric, without `EVALUATION`; finite.
      writers: the run's.
    """
    if jax.process_index() != 0:
        return
    named = {f"{EVALUATION}{name}": value for name, value in values.items()}
    _keep(workdir / LOG, lambda entry: entry["model"] != model or not _is_evaluation(entry))
    _append(workdir / LOG, model, step, named)
    writers.write(model, step, named)
    # Flushed at once; nothing more comes of this model.
    writers.end(model)


def _append(path: Path, model: str, step: int, values: Mapping[str, float]) -> None:
    # Opened anew, since the records of another member of the group may have replaced the file
    # meanwhile.
    with path.open("a") as file:
        file.write(json.dumps({"model": model, "step": step, **values}) + "\n")


def _is_evaluation(entry: Mapping[str, Any]) -> bool:
    return any(key.startswith(EVALUATION) for key in entry)


def _forget_after(path: Path, model: str, step: int) -> None:
    """Drops the model's lines after `step`, and what it reached in an earlier training."""
    # Other models write to the same file, and may be at quite another step.
    _keep(
        path,
        lambda entry: (
            entry["model"] != model or (entry["step"] <= step and not _is_evaluation(entry))
        ),
    )


def _keep(path: Path, stays: Callable[[Mapping[str, Any]], bool]) -> None:
    """Drops the lines that don't stay, and a last line that a kill cut short."""
    if not path.exists():
        return
    kept = []
    damaged = 0
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            wanted = stays(entry)
        except (ValueError, TypeError, KeyError, RecursionError):
            # A kill in the middle of a write leaves half a last line, which is no damage.
            damaged += number < len(lines)
            continue
        if wanted:
            kept.append(line)
    if damaged:
        log.warning("%s: %d lines can't be read and are left out", path, damaged)
    # Written aside and renamed, so a kill here loses none of the older lines.
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(f"{line}\n" for line in kept))
    temporary.replace(path)
