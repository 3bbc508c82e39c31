"""Runs a published result again, from what its results.json records, and says how far it is met."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from kd_jax.config.load import with_tuples
from kd_jax.core import seal
from kd_jax.core.json_files import read_own, write_json
from kd_jax.data.run_datasets import Datasets
from kd_jax.experiments.plan import make_plan
from kd_jax.experiments.run import run_experiment
from kd_jax.training.sharding import set_precision

log = logging.getLogger("kd_jax")

FILE = "repeat.json"


def repeat_result(file: Path, workdir: Path | None = None) -> dict[str, Any]:
    """Runs the experiment of a results.json again and compares every metric of every model.

    Args:
      file: a results.json of a finished run, wherever it lies.
      workdir: folder of the new run; None: runs/repeated-EXPERIMENT-seedSEED.

    Returns:
      What stands in its repeat.json: "equal", whether every metric and every model's weights are;
      "largest", the largest absolute difference of a metric; "models": name -> metric -> "recorded"
      and "repeated"; and "environment": what is another one than recorded.

    Raises:
      ValueError: in one line, for a file that is no results.json or of a version that recorded no
        config, data that changed, or a config that can't be run here.
      Interrupted: after SIGTERM; the same call goes on.
    """
    recorded = read(file)
    config = with_tuples(recorded["config"])
    # Whoever repeats a run has no access to the dashboards of whoever recorded it.
    config["logging"] = {**config.get("logging", {}), "writers": ("tensorboard",)}
    plan = make_plan(config)
    workdir = workdir or Path("runs", f"repeated-{config['name']}-seed{config['seed']}")
    if file.resolve() == (workdir / "results.json").resolve():
        raise ValueError(f"{file} lies in --workdir={workdir}; name another folder to repeat it in")
    # Other data would only show in other numbers, after hours.
    set_precision([model.dtype for model in plan.models])
    data = Datasets(plan.config["data"], {}, plan.task, taught=plan.taught).fingerprint()
    if data != (known := recorded["environment"]["data_fingerprint"]):
        raise ValueError(
            f"the data changed since {file} was recorded: {plan.config['data']['name']!r} is {data}"
            f" here and was {known}"
        )
    found = run_experiment(config, workdir)
    outcome = compare(recorded, found)
    if jax.process_index() == 0:
        write_json(workdir / FILE, outcome)
        _show(outcome)
    return outcome


def read(file: Path) -> dict[str, Any]:
    """Reads a results.json that can be repeated; errors are `repeat_result`'s."""
    if not file.is_file():
        raise ValueError(f"there is no file {str(file)!r}; name the results.json of a finished run")
    found = read_own(file, "name another results.json")
    if not {"models", "environment"} <= found.keys():
        raise ValueError(f"{file} is no results.json of a finished run")
    if problem := seal.problem(file.parent, file.name, found):
        raise ValueError(f"{file}: {problem}")
    if "config" not in found:
        raise ValueError(
            f"{file} is of an earlier version, which recorded no config; run its config file by"
            f" name instead"
        )
    return found


def compare(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Compares two results of one config; see `repeat_result`."""
    models: dict[str, dict[str, Any]] = {}
    largest, equal = 0.0, True
    for name, entry in recorded["models"].items():
        again = found["models"][name]
        models[name] = {}
        equal &= entry["fingerprint"] == again["fingerprint"]
        for metric, value in entry["metrics"].items():
            other = again["metrics"].get(metric)
            models[name][metric] = {"recorded": value, "repeated": other}
            equal &= value == other
            if value is not None and other is not None:
                largest = max(largest, abs(value - other))
    environment = {
        key: {"recorded": value, "here": found["environment"].get(key)}
        for key, value in recorded["environment"].items()
        if value != found["environment"].get(key)
    }
    return {"equal": equal, "largest": largest, "models": models, "environment": environment}


def _show(outcome: Mapping[str, Any]) -> None:
    table = Table(title="recorded and repeated")
    for column in ("model", "metric", "recorded", "repeated"):
        table.add_column(column, justify="left" if column in ("model", "metric") else "right")
    for name, metrics in outcome["models"].items():
        for metric, both in metrics.items():
            if both["recorded"] != both["repeated"]:
                table.add_row(name, metric, *(f"{both[k]}" for k in ("recorded", "repeated")))
    console = Console(width=120)
    if table.row_count:
        console.print(table)
    for key, both in outcome["environment"].items():
        console.print(f"{key}: {both['recorded']} when it was recorded, {both['here']} here")
    if outcome["equal"]:
        console.print("equal: every metric to the last digit, and every model's weights")
    elif table.row_count:
        console.print(f"not equal: metrics differ by {outcome['largest']:.3g} at most")
    else:
        console.print("every metric is equal to the last digit; the weights differ")
