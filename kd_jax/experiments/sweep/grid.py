"""The sweep file, and the runs that it makes of a config: each a setting of the grid with a
seed."""

import copy
import difflib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from kd_jax.config.hashing import config_hash, flatten
from kd_jax.config.load import plain
from kd_jax.config.names import LABELLED, TRAIN
from kd_jax.core.json_files import read_given
from kd_jax.core.options import check_keys
from kd_jax.experiments.plan import make_plan
from kd_jax.training.interruption import Diverged

KEYS = {"seeds": True, "grid": False, "devices": False}
LONGEST_LABEL = 100  # Characters; file systems allow 255 in a name.


@dataclass(frozen=True)
class Run:
    """One setting of the grid with one seed.

    Attributes:
      name: of its folder in the sweep's.
      setting: path in the config -> value.
      seed: the experiment's.
      config: resolved, plain Python values.
      needs: names of the runs whose teachers it restores.
    """

    name: str
    setting: dict[str, Any]
    seed: int
    config: dict[str, Any]
    needs: frozenset[str]


def read(file: Path) -> dict[str, Any]:
    """Reads and checks a sweep file: "seeds", and "grid" and "devices" where they are given.

    Raises:
      ValueError: saying what is wrong with it, in one line.
    """
    spec = read_given(file, "sweep")
    # The shape first, because the checks below look into it.
    if not isinstance(spec, dict) or not isinstance(spec.get("grid", {}), dict):
        raise ValueError(
            f'the sweep file {file} must look like {{"seeds": [0, 1], "grid": {{"PATH": [VALUE,'
            f" ...]}}}}"
        )
    check_keys(spec, KEYS, f"the sweep file {file}")
    for name, values in {key: spec[key] for key in KEYS if key != "grid" and key in spec}.items():
        # The exact type, because in Python True is an integer too.
        if not _is_list(values) or any(type(value) is not int or value < 0 for value in values):
            raise ValueError(
                f"{name} in {file} must be a list of integers from 0 on, got {json.dumps(values)}"
            )
        # The same seed twice would count as two samples in the standard deviation.
        if len(set(values)) != len(values):
            raise ValueError(
                f"{name} in {file} must differ from one another, got {json.dumps(values)}"
            )
    for path, values in spec.get("grid", {}).items():
        if not _is_list(values):
            raise ValueError(
                f"grid {path!r} in {file} must be a list of values, got {json.dumps(values)}"
            )
    return spec


def lay_out(config: ConfigDict, spec: Mapping[str, Any], workdir: Path) -> list[Run]:
    """Lays out all runs of a sweep, each after those whose teachers it restores.

    All are checked before the first begins.

    Args:
      config: inherited, its references live; it isn't changed.
      spec: the sweep file's content.
      workdir: the sweep's folder.

    Raises:
      ValueError: for an override that the config doesn't have or take, or a run that can't be; in
        one line.
    """
    grid: Mapping[str, list[Any]] = spec.get("grid", {})
    # A dict keeps the order of the runs, in which teachers come before those who restore them.
    runs: dict[str, Run] = {}
    trained: dict[str, str] = {}
    for *values, seed in itertools.product(*grid.values(), spec["seeds"]):
        version = copy.deepcopy(
            config
        )  # ConfigDict(config) would share its references, and with them all overrides.
        setting = {
            path: set_value(version, path, value) for path, value in zip(grid, values, strict=True)
        }
        version.seed = seed
        name = _name(setting, seed)
        if name in runs and runs[name].setting != setting:
            # Values that differ only in characters that names don't have.
            name += f"-{config_hash(setting)}"
        if name in runs:
            raise ValueError(f"the sweep has two runs {name!r}; give each value of the grid once")
        # Every run is planned now, so that the last one can't fail after hours.
        try:
            needs = share_teachers(version, name, workdir, trained)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{name}: {error}") from error
        runs[name] = Run(name, setting, seed, plain(version), needs)
    return list(runs.values())


def require_teachers(run: Run) -> None:
    """Checks that the teachers that a run restores are there: the runs that train them have ended.

    Raises:
      Diverged: if one isn't, since its numbers exploded.
    """
    for name, model in run.config["models"].items():
        folder = Path(model.get("restore") or "")
        if folder.parent.name in run.needs and not (folder / "finished.json").is_file():
            raise Diverged(
                f"models.{name}, which {folder.parent.name} was to train, diverged there"
            )


def _is_list(values: Any) -> bool:
    return isinstance(values, list) and bool(values)


def set_value(config: ConfigDict, path: str, value: Any, owner: str = "grid") -> Any:
    """Sets one value in place and returns it as the config took it: its type is the config's.

    Args:
      config: inherited; it is changed.
      path: of the value.
      value: new.
      owner: what names the path, for messages.

    Raises:
      ValueError: if there is no such path, it is a section, or takes no such value.
    """
    # Flat paths make a section's name differ from the name of a value.
    known = flatten(plain(config))
    if path == "seed":
        key = "seeds" if owner == "grid" else "seed"
        raise ValueError(f"{owner} 'seed': seeds are listed under \"{key}\"")
    if any(other.startswith(f"{path}.") for other in known) or isinstance(value, dict):
        raise ValueError(
            f"{owner} {path!r}: only single values can be overridden, not whole sections"
        )
    if path not in known:
        # A cutoff of 0 always finds something, as any hint is better than none.
        close = difflib.get_close_matches(path, known, 1, 0.0)[0]
        raise ValueError(f"{owner} {path!r}: the config has no such path; did you mean {close!r}?")
    section, _, key = path.rpartition(".")
    holder: Any = config[section] if section else config
    # ConfigDict would take True for a number, since a bool is an int in Python.
    if (
        isinstance(value, bool)
        and isinstance(holder[key], (int, float))
        and not isinstance(holder[key], bool)
    ):
        raise ValueError(f"{owner} {path!r}: {json.dumps(value)} is not a number")
    try:
        holder[key] = value
    except TypeError as error:
        raise ValueError(f"{owner} {path!r}: {error}") from None
    return holder[key]


def label(setting: Mapping[str, Any]) -> str:
    """Names a setting in short: the paths' ends, as long as it takes to tell them apart, and the
    values.
    """
    return ",".join(f"{_end(path, setting)}={_as_word(value)}" for path, value in setting.items())


def _name(setting: Mapping[str, Any], seed: int) -> str:
    short = label(setting)
    # The hash keeps two settings apart whose names begin alike.
    if len(short) > LONGEST_LABEL:
        short = f"{short[:LONGEST_LABEL]}-{config_hash(setting)}"
    return f"{short}-seed{seed}" if setting else f"seed{seed}"


def _end(path: str, paths: Mapping[str, Any]) -> str:
    parts = path.split(".")
    # From the shortest end on, so that the table stays narrow.
    ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
    return next(
        end
        for end in ends
        if sum(f".{other}".endswith(f".{end}") for other in paths) == 1 or end == path
    )


def _as_word(value: Any) -> str:
    # Other characters could mean something to a file system or a shell.
    return re.sub(r"[^\w.+-]+", "_", str(value)).strip("_")


def share_teachers(
    config: ConfigDict, name: str, workdir: Path, trained: dict[str, str]
) -> frozenset[str]:
    """Lets a run restore the teachers that an earlier one trains.

    Args:
      config: of the run, changed in place.
      name: of the run's folder in `workdir`.
      workdir: of all runs, a full path.
      trained: what a teacher is made by -> the run that trains it; those of this run are added.

    Returns:
      The runs that it restores teachers from.
    """
    # Whoever labels a set or judges rows teaches too, and can be shared just as well.
    plan, needs = make_plan(plain(config)), set()
    teaching = {teacher for model in plan.models for teacher in (*model.teachers, *model.members)}
    teaching |= {section["teacher"] for section in plan.transfer_sets.values()}
    teaching |= {section["judge"] for section in plan.trusted_sets.values()}
    # What the seeds compare is made anew for each of them, also where it teaches somebody.
    teaching -= {plan.config["compare"][role] for role in ("student", "baseline")}
    for model in plan.models:
        # Only a model that depends on no other one is the same in every run.
        alone = not (model.teachers or model.peers or model.restore or model.starts)
        alone = alone and model.data in ((TRAIN,), (LABELLED,))
        if model.name in teaching and model.objective and alone:
            # All that a teacher depends on but the seed.
            facts = [asdict(model), plan.config["data"], plan.config["checkpoint"]]
            owner = trained.setdefault(json.dumps(facts, sort_keys=True), name)
            if owner != name:
                needs.add(owner)
                # The later run finds the teacher in the earlier one's folder and doesn't train it.
                with config.unlocked():
                    models: Any = config.models
                    models[model.name].restore = str(workdir / owner / model.name)
    return frozenset(needs)
