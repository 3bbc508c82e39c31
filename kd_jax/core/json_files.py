"""What a run writes for people and programs: metrics.jsonl, TensorBoard events, and whole files at
once."""

import json
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax

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
    """A JSON object that an earlier start wrote; None where there is none, or, with a warning,
    where it is damaged.

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
