"""What a run writes for people and programs: metrics.jsonl, TensorBoard events, and whole files at once."""

import json
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
from tensorboardX import SummaryWriter

log = logging.getLogger("kd_jax")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all; only the first process writes."""
    if jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("w") as file:
            json.dump(value, file, indent=2, sort_keys=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def read_facts(path: Path, needed: Collection[str], consequence: str) -> dict[str, Any] | None:
    """A JSON object that an earlier start wrote; None where there is none, or, with a warning, where it is damaged.

    Args:
      path: of the file.
      needed: keys without which it isn't whole.
      consequence: what happens if it is damaged, for the warning.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict) or not found.keys() >= {*needed}:
            raise ValueError(f"{', '.join(sorted(needed))} should stand in it")
        return found
    except (OSError, ValueError) as error:
        log.warning("%s can't be read (%s); %s", path, error, consequence)
        return None


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Lists rejected or quarantined rows as JSON lines; no file when there are none."""
    if rows and jax.process_index() == 0:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_json(value: Any) -> Any:
    """A value with dicts and lists for its mappings and sequences, as it comes back from JSON."""
    if isinstance(value, Mapping):
        return {key: as_json(inner) for key, inner in value.items()}
    return [as_json(inner) for inner in value] if isinstance(value, (list, tuple)) else value


class Records:
    """One model's metrics, appended to the workdir's metrics.jsonl and to TensorBoard events.

    Steps after `resumed_at` that an interrupted run left behind are taken out first, so that no step stands twice.

    Args:
      workdir: holds metrics.jsonl.
      model: whose metrics they are.
      resumed_at: the step that training goes on from.
    """

    def __init__(self, workdir: Path, model: str, *, resumed_at: int):
        self._model, self._path, self._events = model, workdir / "metrics.jsonl", None
        if jax.process_index() == 0:
            _forget_after(self._path, model, resumed_at)
            self._events = SummaryWriter(str(workdir / model / "events"), purge_step=resumed_at + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One JSON object: model, step, values."""
        if self._events is not None:
            # Opened anew, since the records of another member of the group may have replaced the file meanwhile.
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
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry["model"] != model or entry["step"] <= step:
            kept.append(line)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(f"{line}\n" for line in kept))
    temporary.replace(path)
