"""Writes a model's metrics to metrics.jsonl and TensorBoard events."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import jax

log = logging.getLogger("kd_jax")


class MetricsWriter:
    """One model's metrics, appended to the workdir's metrics.jsonl and to TensorBoard events.

    Steps after `resumed_at` that an interrupted run left behind are taken out first, so that no
    step stands twice.

    Args:
      workdir: holds metrics.jsonl.
      model: whose metrics they are.
      resumed_at: the step that training goes on from.
    """

    def __init__(self, workdir: Path, model: str, *, resumed_at: int):
        self._model, self._path, self._events = model, workdir / "metrics.jsonl", None
        # All processes have the same metrics; a second writer would double every line.
        if jax.process_index() == 0:
            _forget_after(self._path, model, resumed_at)
            # It imports torch wherever that is installed: four seconds, not for a refusal.
            from tensorboardX import SummaryWriter

            # TensorBoard never rewrites its files; purge_step makes it ignore what will come again.
            self._events = SummaryWriter(str(workdir / model / "events"), purge_step=resumed_at + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one JSON object: model, step, values."""
        if self._events is not None:
            # Opened anew, since the records of another member of the group may have replaced the
            # file meanwhile.
            with self._path.open("a") as file:
                file.write(json.dumps({"model": self._model, "step": step, **values}) + "\n")
            for name, value in values.items():
                self._events.add_scalar(f"{self._model}/{name}", value, step)

    def close(self) -> None:
        """Flushes the events."""
        if self._events is not None:
            self._events.close()


def _forget_after(path: Path, model: str, step: int) -> None:
    """Drops the model's lines after `step`, and a last line that a kill cut short."""
    if not path.exists():
        return
    kept = []
    damaged = 0
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            stays = entry["model"] != model or entry["step"] <= step
        except (ValueError, TypeError, KeyError, RecursionError):
            # A kill in the middle of a write leaves half a last line, which is no damage.
            damaged += number < len(lines)
            continue
        # Other models write to the same file, and may be at quite another step.
        if stays:
            kept.append(line)
    if damaged:
        log.warning("%s: %d lines can't be read and are left out", path, damaged)
    # Written aside and renamed, so a kill here loses none of the older lines.
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(f"{line}\n" for line in kept))
    temporary.replace(path)
