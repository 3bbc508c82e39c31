"""Reads and writes JSON files so that a killed process never leaves half a file behind."""

import json
import logging
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax

log = logging.getLogger("kd_jax")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all; only the first process writes.

    JSON knows neither NaN nor infinity: null takes their place.
    """
    if jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside the target and renamed: a reader, or the start after a kill, sees the old
        # file or the new one and nothing in between.
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("w") as file:
            json.dump(finite(value), file, indent=2, sort_keys=False, allow_nan=False)
            file.write("\n")
            # Without fsync a power failure may keep the rename and lose the content.
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def read_own(path: Path, remedy: str, kind: type = dict) -> Any:
    """Reads a JSON file that can't be made again.

    Args:
      path: of the file.
      remedy: what whoever has only the damaged file can do.
      kind: what it holds: an object, or a text.

    Raises:
      ValueError: naming the file and the remedy, if it is absent or damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    # A file of brackets alone is nested deeper than Python recurses.
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} can't be read ({_reason(error)}); {remedy}") from None
    if not isinstance(found, kind):
        raise ValueError(f"{path} is damaged (it holds something else); {remedy}")
    return found


def read_given(path: Path, what: str) -> Any:
    """Reads a JSON file that a user wrote.

    Args:
      path: the file.
      what: it is, for messages.

    Raises:
      ValueError: in one line, if it can't be read or isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"the {what} file {path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"the {what} file {path} is not JSON: {error}") from None


def _reason(error: BaseException) -> str:
    """Says what is wrong with a file, without its name."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def read_facts(path: Path, needed: Collection[str], consequence: str) -> dict[str, Any] | None:
    """Reads a JSON object that an earlier start of the run wrote.

    Args:
      path: of the file.
      needed: keys without which the file is incomplete.
      consequence: what happens if the file is damaged, for the warning.

    Returns:
      The object; None if there is no file, or, after a warning, if it is damaged.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not found.keys() >= {*needed}:
            raise ValueError(f"{', '.join(sorted(needed))} should stand in it")
        return found
    except (OSError, ValueError, RecursionError) as error:
        # A damaged file costs repeated work, never the run: the caller computes it again.
        log.warning("%s can't be read (%s); %s", path, _reason(error), consequence)
        return None


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rejected or quarantined rows as JSON lines; no file if there are none."""
    if rows and jax.process_index() == 0:
        path.write_text("".join(json.dumps(finite(row), allow_nan=False) + "\n" for row in rows))


def finite(value: Any) -> Any:
    """Returns a value with None in place of every float that JSON can't say."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(value: Any) -> Any:
    """Converts mappings to dicts and sequences to lists, as a value comes back from JSON."""
    if isinstance(value, Mapping):
        return {key: as_json(inner) for key, inner in value.items()}
    return [as_json(inner) for inner in value] if isinstance(value, (list, tuple)) else value
