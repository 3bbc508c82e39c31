"""A sweep: a grid of overrides x seeds over one config, each run in its own workdir, and a table of
  mean ± std.

The sweep file is JSON; its grid's paths are those of the flags without `--config.`, its lists stand
for tuples too:

  {"seeds": [0, 1, 2], "grid": {"models.student.objective.soft.temperature": [1.0, 4.0]}, "devices":
  [0, 1]}

Without "grid" it is the config itself, once a seed. Without "devices" the runs follow one another
in this process, on all devices; with them each run is a process of its own that sees one GPU (its
number in CUDA_VISIBLE_DEVICES).

Runs share teachers. A teacher that is trained and learns from no other is trained once for each
different section of the config that it gets (seed apart) and restored by the later runs. So all
seeds share one teacher, the spread of the students is that of their own seeds, and the statistics
count such a teacher once. An assistant is trained in every run."""

import json
import logging
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from kd_jax.analysis.intervals import LEVEL, over_seeds
from kd_jax.config.load import plain
from kd_jax.core.csv_files import write_csv
from kd_jax.core.json_files import read_facts, write_json
from kd_jax.experiments.report import tell_interval, tell_spread
from kd_jax.experiments.run import run_experiment
from kd_jax.experiments.sweep.grid import Run, label, lay_out, read
from kd_jax.experiments.sweep.workers import Outcomes, over_devices, require_going_on
from kd_jax.experiments.workdir import Workdir
from kd_jax.tasks import header
from kd_jax.training.interruption import Diverged, StopSignal

log = logging.getLogger("kd_jax")


def run_sweep(config: ConfigDict, file: Path, workdir: Path) -> dict[str, Any]:
    """Runs, or goes on with, a sweep. A run whose numbers stop being finite is noted and the others
    go on.

    Args:
      config: inherited, its references live (`kd_jax.config.load.load_config`); it isn't changed.
      file: the sweep file.
      workdir: the sweep's folder: a folder a run, and `sweep.json` and `sweep.csv` (a row for each
        model of each run), written after each of them. It
        can't be moved before the sweep is finished, since runs name the teachers they restore by
        their full path.

    Returns:
      What stands in `sweep.json`. "finished": whether all runs are there. "runs": setting, seed,
        workdir, models and
      gain, or why it diverged. "settings": setting, seeds, diverged seeds, models and gain; each
      number is a mean, a sample standard deviation (None for n = 1) and n, or None where no run has
      it. A model has its metrics, the primary one on the selection split too, and "evaluations",
      the primary one on further datasets.

    Raises:
      ValueError: for a file or a run that isn't right, or a folder of another sweep or config; in
        one line.
      Interrupted: after SIGTERM; the same call goes on.
    """
    spec = read(file)
    # Taken out before the folder is claimed: the next start may use other devices.
    devices = spec.pop("devices", None)
    if devices is not None:
        if jax.distributed.is_initialized():
            raise ValueError(
                '"devices" in the sweep file are those of one machine; leave them out in a cluster'
            )
        jax.config.update(
            "jax_platforms", "cpu"
        )  # The GPUs are the runs', so this process must not take them.
    # All runs are checked here, before the first of them begins.
    runs = lay_out(config, spec, workdir.resolve())
    with closing(Workdir(workdir, plain(config) | {"sweep": spec})) as folder:
        # Runs of an earlier start keep their entries until they are done again.
        done = _earlier(folder.path / "sweep.json")
        found: dict[str, Any] = {}
        # Closing the generator stops the processes that it has started, also after an error.
        with closing(
            over_devices(runs, folder.path, devices) if devices else _one_by_one(runs, folder.path)
        ) as outcomes:
            for ended, outcome in outcomes:
                done[ended.name] = _entry(ended, outcome, folder.path)
                found = _summary([done[each.name] for each in runs if each.name in done], len(runs))
                # Written after every run, so that a stopped sweep can be read as far as it got.
                write_json(folder.path / "sweep.json", found)
                write_csv(folder.path / "sweep.csv", _table(found["runs"]))
        _show(found, plain(config), folder.path)
        return found


def _one_by_one(runs: Sequence[Run], folder: Path) -> Outcomes:
    stop = StopSignal()
    for number, each in enumerate(runs, start=1):
        require_going_on(stop)
        log.info("run %d of %d: %s", number, len(runs), each.name)
        try:
            outcome = run_experiment(each.config, folder / each.name, show=False)
        # Numbers that explode are a result of a setting, and no reason to end the sweep.
        except Diverged as error:
            outcome = error
        yield each, outcome


def _earlier(file: Path) -> dict[str, dict[str, Any]]:
    """Returns the runs that an earlier start noted, by name."""
    # Runs that are finished are found so, and their entries are made again.
    found = read_facts(file, ("runs",), "its entries are made again") or {"runs": []}
    return {Path(entry["workdir"]).name: entry for entry in found["runs"]}


def _entry(ended: Run, outcome: Mapping[str, Any] | Diverged, folder: Path) -> dict[str, Any]:
    entry = {"setting": ended.setting, "seed": ended.seed, "workdir": str(folder / ended.name)}
    if isinstance(outcome, Diverged):
        log.warning("%s diverged: %s", ended.name, outcome)
        return entry | {"diverged": str(outcome)}
    # The fingerprint tells later whether several runs share one teacher.
    primary = outcome.get("primary", "accuracy")
    models = {}
    for name in outcome["order"]:
        model = outcome["models"][name]
        # The metrics of runs of before there were tasks stand beside everything else.
        own = model.get("metrics") or {key: model[key] for key in ("accuracy", "loss", "ece")}
        chosen = (model.get("selection") or {}).get(primary, model.get("selection_accuracy"))
        models[name] = {**own, f"selection_{primary}": chosen, "fingerprint": model["fingerprint"]}
        models[name]["evaluations"] = {
            key: scores[name][primary] for key, scores in outcome["evaluations"].items()
        }
    gain = {key: outcome.get(key) for key in ("gain", "gain_interval")}
    return entry | {"models": models, **gain, "primary": primary}


def _metrics(model: Mapping[str, Any]) -> list[str]:
    """Returns the names of the numbers of a model's entry."""
    return [key for key in model if key not in ("fingerprint", "evaluations")]


def _summary(entries: Sequence[Mapping[str, Any]], runs: int) -> dict[str, Any]:
    settings: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        # A dict is no key of another one, so the setting is grouped by its JSON.
        settings.setdefault(json.dumps(entry["setting"]), []).append(entry)
    return {
        "finished": len(entries) == runs,
        "runs": list(entries),
        "settings": [_setting(of_one_setting) for of_one_setting in settings.values()],
    }


def _table(entries: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields a row for each model of each run, as tools for tables want them."""
    for entry in entries:
        about = {**entry["setting"], "seed": entry["seed"]}
        for name, values in entry.get("models", {}).items():
            elsewhere = {
                f"{entry.get('primary', 'accuracy')} on {key}": score
                for key, score in values["evaluations"].items()
            }
            own = {key: values[key] for key in _metrics(values)}
            yield about | {"model": name} | own | elsewhere
        if "diverged" in entry:
            yield about | {"diverged": entry["diverged"]}


def _setting(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    finished = [entry for entry in entries if "models" in entry]
    # A setting may have only runs that diverged, and then there is nothing to average.
    names = finished[0]["models"] if finished else ()
    models = {name: _spreads([entry["models"][name] for entry in finished]) for name in names}
    return {
        "setting": entries[0]["setting"],
        "seeds": [entry["seed"] for entry in finished],
        "diverged": [entry["seed"] for entry in entries if entry not in finished],
        "models": models,
        "gain": _spread(entry["gain"] for entry in finished),
        **_over_seeds(finished),
        "primary": finished[0].get("primary", "accuracy") if finished else None,
    }


def _over_seeds(finished: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns "gain_interval_seeds", [low, high], and what it is over; None for one seed, or where
    a run has no gain."""
    gains = [entry["gain"] for entry in finished]
    found = None if None in gains else over_seeds(gains)
    if found is None:
        return {"gain_interval_seeds": None, "gain_seeds": None}
    about = {"seeds": found.size, "level": LEVEL, "needed": found.needed}
    return {"gain_interval_seeds": [found.low, found.high], "gain_seeds": about}


def _spreads(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Computes one model's spread over the runs of a setting, of its metrics and further
    accuracies.
    """
    # A teacher that runs share is one model, not a sample of several.
    distinct = {entry["fingerprint"]: entry for entry in entries}.values()
    # Runs that an earlier start noted may have been evaluated elsewhere.
    found = [entry.get("evaluations", {}) for entry in distinct]
    elsewhere = {dataset: _spread(each.get(dataset) for each in found) for dataset in found[-1]}
    return {key: _spread(entry.get(key) for entry in distinct) for key in _metrics(entries[0])} | {
        "evaluations": elsewhere
    }


def _spread(values: Iterable[float | None]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    # The sample's deviation divides by n - 1, so one value has none.
    std = statistics.stdev(known) if len(known) > 1 else None
    return {"mean": statistics.fmean(known), "std": std, "n": len(known)}


def _show(found: Mapping[str, Any], config: Mapping[str, Any], folder: Path) -> None:
    if jax.process_index() != 0:
        return
    table = Table(
        title=f"{config['name']}, mean ± sample standard deviation over the seeds",
        caption=(
            "no ±: a single model, such as a teacher that the seeds share; tune by"
            " selection, not by what is reported"
        ),
    )
    primary = next((each["primary"] for each in found["settings"] if each["primary"]), "accuracy")
    for column in ("setting", "model", header(primary), "selection", "gain"):
        table.add_column(column, no_wrap=column != "setting", overflow="fold")
    for setting in found["settings"]:
        about = [label(setting["setting"]) or "the config", f"seeds: {len(setting['seeds'])}"]
        about += [f"seed {seed} diverged" for seed in setting["diverged"]]
        models = setting["models"]
        # Both are shown, as tuning by the evaluation split would make it a second selection split.
        accuracies, selections = (
            [tell_spread(model[key], primary) for model in models.values()]
            for key in (primary, f"selection_{primary}")
        )
        gains = [
            tell_spread(setting["gain"], primary) if name == config["compare"]["student"] else ""
            for name in models
        ]
        cells = (about, models, accuracies, selections, gains)
        table.add_row(*("\n".join(cell) for cell in cells), end_section=True)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for setting in found["settings"]:
        if (interval := setting.get("gain_interval_seeds")) is not None:
            told = tell_interval(interval, setting["primary"], setting["gain_seeds"], "seeds")
            name = label(setting["setting"])
            console.print(f"gain over the baseline{f', {name}' if name else ''}: {told}")
        _show_evaluations(setting, console)
    console.print(f"results: {folder / 'sweep.json'} and sweep.csv")


def _show_evaluations(setting: Mapping[str, Any], console: Console) -> None:
    """Prints one setting's models on each further dataset, in domain first, if there are any."""
    models = setting["models"]
    # All models of a setting see the same datasets, so the first one names them.
    datasets = next(iter(models.values()), {}).get("evaluations", {})
    if not datasets:
        return
    primary = setting["primary"]
    table = Table(
        title=f"{header(primary)}, by dataset: {label(setting['setting']) or 'the config'}"
    )
    for column in ("dataset", *models):
        table.add_column(column, justify="left" if column == "dataset" else "right")
    table.add_row(
        "in domain",
        *(tell_spread(model[primary], primary) for model in models.values()),
        end_section=True,
    )
    for dataset in datasets:
        table.add_row(
            dataset,
            *(tell_spread(model["evaluations"][dataset], primary) for model in models.values()),
        )
    console.print(table)
