"""What a sweep's runs came to: an entry a run, means over the seeds, and the tables."""

import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from kd_jax.analysis.intervals import LEVEL, over_seeds
from kd_jax.experiments.report import tell_interval, tell_spread
from kd_jax.experiments.sweep.grid import Run, label
from kd_jax.tasks import header
from kd_jax.training.interruption import Diverged


def make_entry(ended: Run, outcome: Mapping[str, Any] | Diverged, folder: Path) -> dict[str, Any]:
    """Returns what a sweep keeps of a run: its models' numbers, or why it diverged.

    Args:
      ended: the run.
      outcome: its results.json, or why it has none.
      folder: the sweep's.
    """
    about = {"setting": ended.setting, "seed": ended.seed, "workdir": str(folder / ended.name)}
    if isinstance(outcome, Diverged):
        return about | {"diverged": str(outcome)}
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
    return about | {"models": models, **gain, "primary": primary}


def _metrics(model: Mapping[str, Any]) -> list[str]:
    """Returns the names of the numbers of a model's entry."""
    return [key for key in model if key not in ("fingerprint", "evaluations")]


def summarize(entries: Sequence[Mapping[str, Any]], runs: int) -> dict[str, Any]:
    """Returns what stands in sweep.json.

    Args:
      entries: of the runs that have ended, in the grid's order.
      runs: how many there are.
    """
    settings: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        # A dict is no key of another one, so the setting is grouped by its JSON.
        settings.setdefault(json.dumps(entry["setting"]), []).append(entry)
    return {
        "finished": len(entries) == runs,
        "runs": list(entries),
        "settings": [_setting(of_one_setting) for of_one_setting in settings.values()],
    }


def rows(entries: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
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


def show(found: Mapping[str, Any], config: Mapping[str, Any], folder: Path) -> None:
    """Prints a sweep's tables; the first process of a cluster does.

    Args:
      found: what stands in sweep.json.
      config: resolved.
      folder: the sweep's.
    """
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
