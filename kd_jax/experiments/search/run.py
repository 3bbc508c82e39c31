"""A search: settings of a space are tried at a fraction of the training, the better half longer.

The search file is JSON; its paths are those of a sweep's grid, and reach whoever inherits them:

  {"space": {"models.student.objective.soft.temperature": [1.0, 2.0, 4.0],
             "models.student.training.optimizer.learning_rate": {"low": 1e-4, "high": 1e-2,
                                                                 "log": true}},
   "trials": 8}

Every trial trains student and baseline, so both have as many. A trial goes on if it is in the
better half for one of them, by the selection split; the evaluation split chooses nothing. "seed" is
the runs' (100), and "fractions" of the epochs are the rounds' (0.25 and 1). A teacher that no path
touches is trained once, in full."""

import copy
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from kd_jax.config.load import plain
from kd_jax.core.json_files import write_json
from kd_jax.experiments.plan import make_plan
from kd_jax.experiments.run import run_experiment
from kd_jax.experiments.search.space import draw, read
from kd_jax.experiments.sweep.grid import (
    Run,
    label,
    require_teachers,
    set_value,
    share_teachers,
)
from kd_jax.experiments.sweep.workers import require_going_on
from kd_jax.experiments.workdir import Workdir
from kd_jax.tasks import METRICS, cell, header
from kd_jax.training.interruption import Diverged, StopSignal

log = logging.getLogger("kd_jax")

FILE = "search.json"
ROLES = ("student", "baseline")


def run_search(config: ConfigDict, file: Path, workdir: Path) -> dict[str, Any]:
    """Runs, or goes on with, a search.

    Args:
      config: inherited, its references live (`kd_jax.config.load.load_config`); it isn't changed.
      file: the search file.
      workdir: the search's folder: a folder a run, and `search.json`, written after each of them.

    Returns:
      What stands in `search.json`: "finished"; "primary", the metric; "rounds", each with its
      "fraction" and "runs" (name, setting, and of student and baseline the "selection" and
      "evaluation" value, or why it diverged); and "best", for each of both its setting in the last
      round and these values.

    Raises:
      ValueError: for a file or a run that isn't right, or a folder of another search or config; in
        one line, before anything is trained.
      Interrupted: after SIGTERM; the same call goes on.
    """
    spec = read(file)
    trials = draw(spec)
    if len(trials) < (spec["trials"] or 0):
        log.info("the space has %d settings, fewer than %d trials", len(trials), spec["trials"])
    folder, trained = workdir.resolve(), dict[str, str]()
    # All trials are checked here, before the first of them begins.
    first = [
        _lay_out(config, spec, number, setting, 0, folder, trained)
        for number, setting in enumerate(trials)
    ]
    with closing(Workdir(workdir, plain(config) | {"search": spec})):
        found: dict[str, Any] = {"finished": False, "rounds": []}
        entries: list[dict[str, Any]] = []
        alive, stop = [*range(len(trials))], StopSignal()
        for step, fraction in enumerate(spec["fractions"]):
            runs = (
                first
                if step == 0
                else [_lay_out(config, spec, n, trials[n], step, folder, trained) for n in alive]
            )
            entries = []
            found["rounds"].append({"fraction": fraction, "runs": entries})
            for each in runs:
                require_going_on(stop)
                told = f"round {step + 1} of {len(spec['fractions'])}, {each.name}: {each.setting}"
                log.info("%s", told)
                entry, primary = _run(each, folder)
                entries.append(entry)
                if primary is not None:
                    found["primary"] = primary
                write_json(workdir / FILE, found)
            if all("diverged" in entry for entry in entries):
                raise ValueError(f"all trials of round {step + 1} diverged; search elsewhere")
            better = _better_half(entries, found["primary"])
            alive = [alive[place] for place in better]
        found |= {"finished": True, "best": _best(entries, found["primary"])}
        write_json(workdir / FILE, found)
        _show(found, plain(config), workdir)
        return found


def _lay_out(
    config: ConfigDict,
    spec: Mapping[str, Any],
    number: int,
    setting: Mapping[str, Any],
    step: int,
    folder: Path,
    trained: dict[str, str],
) -> Run:
    # ConfigDict(config) would share its references, and with them all overrides.
    version = copy.deepcopy(config)
    taken = {path: set_value(version, path, value, "space") for path, value in setting.items()}
    version.seed = spec["seed"]
    name = f"round{step + 1}-trial{number + 1:02}"
    try:
        _shorten(version, spec["fractions"][step])
        needs = share_teachers(version, name, folder, trained)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"trial {number + 1}, {dict(setting)}: {error}") from error
    return Run(name, taken, spec["seed"], plain(version), needs)


def _shorten(config: ConfigDict, fraction: float) -> None:
    """Lets student and baseline, and their peers, train a fraction of their epochs; nobody else."""
    before = _epochs(config)
    plan = make_plan(plain(config))
    compared = {plan.config["compare"][role] for role in ROLES}
    groups = [[model.name for model in group] for group in plan.groups]
    wanted = {name for group in groups if compared & {*group} for name in group}
    # A model that is like another follows it, so what was set last is put right.
    for name in [*sorted(wanted), *sorted(before.keys() - wanted)]:
        epochs = before[name] * (fraction if name in wanted else 1.0)
        if _epochs(config)[name] != epochs:
            section: Any = config[f"models.{name}.training"]
            # A whole number of epochs may be an int.
            with section.ignore_type():
                section["epochs"] = epochs


def _epochs(config: ConfigDict) -> dict[str, float]:
    models = plain(config)["models"]
    # What isn't trained, such as an ensemble, need not say how long.
    return {n: model["training"]["epochs"] for n, model in models.items() if "training" in model}


def _run(each: Run, folder: Path) -> tuple[dict[str, Any], str | None]:
    entry: dict[str, Any] = {"name": each.name, "setting": each.setting}
    try:
        require_teachers(each)
        results = run_experiment(each.config, folder / each.name, show=False)
    # Numbers that explode are a result of a setting, and no reason to end the search.
    except Diverged as error:
        log.warning("%s diverged: %s", each.name, error)
        return entry | {"diverged": str(error)}, None
    primary = results["primary"]
    for role in ROLES:
        model = results["models"][results["compare"][role]]
        entry[role] = {
            "selection": model["selection"][primary],
            "evaluation": model["metrics"][primary],
        }
    return entry, primary


def _order(entries: Sequence[Mapping[str, Any]], role: str, primary: str) -> list[int]:
    """Returns the places of runs from the best on, by the selection split; diverged ones last."""

    def key(place: int) -> tuple[bool, bool, float]:
        value = entries[place].get(role, {}).get("selection")
        ranked = 0.0 if value is None else -value if METRICS[primary].higher else value
        # A value that is undefined is still a run that can be looked at.
        return "diverged" in entries[place], value is None, ranked

    return sorted(range(len(entries)), key=key)


def _better_half(entries: Sequence[Mapping[str, Any]], primary: str) -> list[int]:
    half = (len(entries) + 1) // 2
    kept = {place for role in ROLES for place in _order(entries, role, primary)[:half]}
    return sorted(place for place in kept if "diverged" not in entries[place])


def _best(entries: Sequence[Mapping[str, Any]], primary: str) -> dict[str, Any]:
    best = {}
    for role in ROLES:
        entry = entries[_order(entries, role, primary)[0]]
        best[role] = {"name": entry["name"], "setting": entry["setting"], **entry[role]}
    return best


def _show(found: Mapping[str, Any], config: Mapping[str, Any], workdir: Path) -> None:
    if jax.process_index() != 0:
        return
    primary = found["primary"]
    console = Console(width=None if sys.stdout.isatty() else 120)
    for number, each in enumerate(found["rounds"], 1):
        table = Table(
            title=f"{config['name']}, round {number}: {each['fraction']:g} of the training;"
            f" {header(primary)} on the selection split"
        )
        for column in ("trial", "setting", *ROLES):
            table.add_column(column, justify="right" if column in ROLES else "left")
        for entry in each["runs"]:
            values = (
                "diverged" if "diverged" in entry else cell(primary, entry[role]["selection"])
                for role in ROLES
            )
            table.add_row(entry["name"], label(entry["setting"]), *values)
        console.print(table)
    for role, best in found["best"].items():
        flags = " ".join(f"--config.{path}={value}" for path, value in best["setting"].items())
        shown = cell(primary, best["selection"])
        console.print(f"best {role}: {shown} on the selection split, {flags}", soft_wrap=True)
    console.print(
        "these seeds chose, so compare the two settings with others, by --sweep", soft_wrap=True
    )
    console.print(f"results: {workdir / FILE}")
