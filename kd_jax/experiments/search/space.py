"""The search file, and the settings that are drawn from its space."""

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kd_jax.core.json_files import read_given
from kd_jax.core.options import check_keys

KEYS = {"space": True, "trials": False, "seed": False, "fractions": False}
RANGE = {"low": True, "high": True, "log": False, "integer": False}

TUNING_SEED = 100
"""Where none is given: apart from those that people report."""

FRACTIONS = (0.25, 1.0)


def read(file: Path) -> dict[str, Any]:
    """Reads and checks a search file: "space", and "trials", "seed" and "fractions".

    Returns:
      The file's content, what it leaves out filled in; "trials" is None where all combinations of
      lists are tried.

    Raises:
      ValueError: saying what is wrong with it, in one line.
    """
    spec = read_given(file, "search")
    if not isinstance(spec, dict) or not isinstance(spec.get("space", {}), dict):
        raise ValueError(
            f'the search file {file} must look like {{"space": {{"PATH": [VALUE, ...], "PATH":'
            f' {{"low": A, "high": B}}}}, "trials": 8}}'
        )
    check_keys(spec, KEYS, f"the search file {file}")
    if not spec["space"]:
        raise ValueError(f"the space of {file} is empty; name at least one option")
    for path, values in spec["space"].items():
        _check_values(path, values, file)
    ranges = [path for path, values in spec["space"].items() if isinstance(values, dict)]
    trials = spec.get("trials")
    if trials is None and ranges:
        raise ValueError(
            f"{ranges[0]!r} in {file} is a range, of which all can't be tried: say how many trials"
        )
    if trials is not None and not _is_count(trials, 2):
        raise ValueError(f"trials in {file} must be an integer from 2 on, got {trials!r}")
    seed = spec.get("seed", TUNING_SEED)
    if not _is_count(seed, 0):
        raise ValueError(f"seed in {file} must be an integer from 0 on, got {seed!r}")
    fractions = spec.get("fractions", [*FRACTIONS])
    rising = isinstance(fractions, list) and all(map(_is_number, fractions)) and fractions
    if not rising or sorted({*fractions}) != fractions or fractions[-1] != 1 or fractions[0] <= 0:
        raise ValueError(
            f"fractions in {file} must be numbers above 0 that rise to 1, got {fractions!r}"
        )
    return {"space": spec["space"], "trials": trials, "seed": seed, "fractions": fractions}


def draw(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the settings of all trials, no two alike, the same for the same file.

    Args:
      spec: as `read` returns it.

    Returns:
      Settings, path -> value. All combinations of lists in order where their number is not above
      "trials" or that is None; else as many drawn at random.

    Raises:
      ValueError: if there is one setting only.
    """
    space, trials = spec["space"], spec["trials"]
    lists = [values for values in space.values() if isinstance(values, list)]
    combinations = math.prod(map(len, lists)) if len(lists) == len(space) else math.inf
    if combinations < 2:
        raise ValueError("the space has one setting only; give an option two values or more")
    if trials is None or combinations <= trials:
        return [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]
    rng = np.random.default_rng(spec["seed"])
    found: list[dict[str, Any]] = []
    # A range of few integers may have fewer settings than trials.
    for _ in range(100 * trials):
        setting = {path: _draw_value(values, rng) for path, values in space.items()}
        if setting not in found:
            found.append(setting)
        if len(found) == trials:
            break
    if len(found) < 2:
        raise ValueError("the space has one setting only; widen its ranges")
    return found


def _draw_value(values: Any, rng: np.random.Generator) -> Any:
    if isinstance(values, list):
        return values[int(rng.integers(len(values)))]
    low, high = values["low"], values["high"]
    if values.get("integer", False):
        return int(rng.integers(low, high + 1))
    if values.get("log", False):
        drawn = math.exp(rng.uniform(math.log(low), math.log(high)))
    else:
        drawn = rng.uniform(low, high)
    # Few digits read well, and must not leave the range.
    return float(min(max(float(f"{drawn:.6g}"), low), high))


def _check_values(path: str, values: Any, file: Path) -> None:
    owner = f"{path!r} in {file}"
    if isinstance(values, list):
        if not values:
            raise ValueError(f"{owner} has no values")
        if len({json.dumps(value) for value in values}) < len(values):
            raise ValueError(f"{owner} must have different values, got {json.dumps(values)}")
        return
    if not isinstance(values, dict):
        raise ValueError(
            f'{owner} must be a list of values or a range {{"low": A, "high": B}}, got {values!r}'
        )
    check_keys(values, RANGE, owner)
    low, high = values["low"], values["high"]
    if not _is_number(low) or not _is_number(high) or not low < high:
        raise ValueError(f"{owner} must have low below high, got {low!r} and {high!r}")
    for key in ("log", "integer"):
        if not isinstance(values.get(key, False), bool):
            raise ValueError(f"{owner}: {key} must be true or false, got {values[key]!r}")
    if values.get("log", False) and low <= 0:
        raise ValueError(f"{owner} is logarithmic, so low must be above 0, got {low!r}")
    if values.get("integer", False) and not (_is_count(low) and _is_count(high)):
        raise ValueError(f"{owner} is of integers, got {low!r} and {high!r}")
    if values.get("integer", False) and values.get("log", False):
        raise ValueError(f"{owner} can't be logarithmic and of integers; give a list")


def _is_number(value: Any) -> bool:
    # In Python a bool is an int; infinity has no place in a range.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any, least: float = -math.inf) -> bool:
    return type(value) is int and value >= least
