"""What a run found: results.json and the table that people read."""

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from kd_jax.analysis.intervals import LEVEL, bootstrap, mcnemar
from kd_jax.core.pytree import on_host
from kd_jax.core.rng import derived_seed
from kd_jax.core.types import Batch
from kd_jax.tasks import METRICS, TASKS, Task, cell, header, shown
from kd_jax.training.trained_model import TrainedModel

LEFT = ("model", "learned from")
"""Columns of words, the first of a run's table."""


def compare(
    models: Mapping[str, Mapping[str, Any]], roles: Mapping[str, str], task: Task
) -> dict[str, float | None]:
    """Computes gain, gap closed and compression of the compared student.

    Args:
      models: name -> its entry in results.json.
      roles: "student", "baseline" and "teacher" -> name.
      task: whose primary metric is compared.

    Returns:
      "gain" (student minus baseline in the primary metric, the other way round where less of it is
      better; None where one is undefined), "gap_closed" (gain over teacher minus baseline; None
      where the teacher isn't better than the baseline), "compression" (teacher's parameters over
      the student's; None where nobody knows them).
    """
    student, baseline, teacher = (
        models[roles[role]] for role in ("student", "baseline", "teacher")
    )
    ratio = None
    if teacher["parameters"] is not None:
        ratio = teacher["parameters"] / student["parameters"]
    gain, gap = (_gain(each, baseline, task) for each in (student, teacher))
    # Over a teacher that is no better than the baseline there is no gap, and a share of it is none.
    return {
        "gain": gain,
        "gap_closed": gain / gap if gain is not None and gap is not None and gap > 0 else None,
        "compression": ratio,
    }


def gain_interval(
    scores: Mapping[str, Mapping[str, Any]], roles: Mapping[str, str], task: Task, seed: int
) -> dict[str, Any]:
    """Says how far the gain can be trusted, over the rows of the evaluation split.

    Args:
      scores: name -> of `score`, of the compared student and baseline at least.
      roles: "student" and "baseline" -> name.
      task: whose primary metric is compared.
      seed: of the run.

    Returns:
      "gain_interval", [low, high] of a paired bootstrap, or None where there is none; "gain_rows":
      "rows" that it is over, the "level" of confidence, how many rows are "needed" to show a gain
      of this size, and, where the metric is a share of right rows, "mcnemar", the p-value of an
      exact test.
    """
    student, baseline = (scores[roles[role]] for role in ("student", "baseline"))
    ours, theirs = student.get("sample"), baseline.get("sample")
    if ours is None or theirs is None or ours.size != theirs.size:
        return {"gain_interval": None, "gain_rows": None}
    # More is a gain, or less.
    pair = (ours, theirs) if METRICS[task.primary].higher else (theirs, ours)
    found = bootstrap(*pair, seed=derived_seed(seed, "interval", "gain"))
    if found is None:
        return {"gain_interval": None, "gain_rows": None}
    about: dict[str, Any] = {"rows": found.size, "level": LEVEL, "needed": found.needed}
    if student.get("right") is not None and baseline.get("right") is not None:
        about["mcnemar"] = mcnemar(student["right"], baseline["right"])
    return {"gain_interval": [found.low, found.high], "gain_rows": about}


def _gain(model: Mapping[str, Any], baseline: Mapping[str, Any], task: Task) -> float | None:
    ours, theirs = (task.rank(each["metrics"]) for each in (model, baseline))
    return None if ours is None or theirs is None else ours - theirs


def inference_seconds(model: TrainedModel, batch: Batch, repetitions: int) -> float:
    """Measures the median seconds of one compiled forward pass on the first device."""
    device = jax.local_devices()[0]
    # On one device, because collectives between devices would be timed as well.
    # A model may be cut over the devices of several processes, which gather it together.
    variables, batch = jax.device_put((jax.tree.map(on_host, model.variables), batch), device)
    forward = jax.jit(lambda variables, batch: model.network(variables, batch).logits)
    # The first call compiles, so it stays outside the timing.
    jax.block_until_ready(forward(variables, batch))
    seconds = []
    for _ in range(repetitions):
        began = time.perf_counter()
        # JAX returns before the device is done; without waiting only the dispatch would be timed.
        jax.block_until_ready(forward(variables, batch))
        seconds.append(time.perf_counter() - began)
    # The median, since a single slow repetition would pull a mean up.
    return float(np.median(seconds))


VECTORS = ("amx_bf16", "avx512f", "avx2", "avx", "asimd")
"""Vector instructions of CPUs, the widest first."""


def environment(data_fingerprint: str, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Returns where and on what the run was made."""
    return {
        "jax": jax.__version__,
        "backend": jax.default_backend(),
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        # XLA adds in another order with another number of threads.
        "cpus": _cpus(),
        # And with other vector instructions.
        "processor": _processor(),
        "commit": _commit(),
        "data_fingerprint": data_fingerprint,
        "data_provenance": dict(provenance),
    }


def _cpus() -> int | None:
    # Those that this process may use, where the system tells.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _processor() -> str:
    """Names what computes: a device's kind, or the CPU and its widest vector instructions."""
    if jax.default_backend() != "cpu":
        return jax.devices()[0].device_kind
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    model = re.search(r"^model name\s*:\s*(.*)$", told, re.MULTILINE)
    vectors = next((each for each in VECTORS if re.search(rf"\b{each}\b", told)), "")
    return " ".join(filter(None, (model[1] if model else platform.machine(), vectors)))


def _commit() -> str:
    """Returns the commit of the code that runs; "" where it isn't a git checkout."""
    # The commit of the code that runs, and not of the folder that the user stands in.
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    # A run must not fail for want of git, and an installed package is no checkout.
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def show(results: Mapping[str, Any], workdir: Path) -> None:
    """Prints the table of a finished run."""
    if jax.process_index() != 0:
        return
    # Where the output is a file, rich would break the table at 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(title=f"{results['experiment']}, seed {results['seed']}")
    columns, rows = tabulate(results)
    for column in columns:
        table.add_column(column, justify="left" if column in LEFT else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    metrics = metrics_of(results)
    if results["evaluations"]:
        _show_evaluations(results, console)
    # What only some models have is told below the table, which would get too wide.
    for name, model in results["models"].items():
        if "with_teacher" in model:
            _show_with_teacher(name, model["with_teacher"], metrics, console)
        if "shapley" in model:
            _show_member_values(name, model["shapley"], metrics[0], console)
    for line in (*tell_guess(results), *tell_gain(results), *tell_size(results)):
        console.print(line, soft_wrap=True)
    console.print(f"results: {workdir / 'results.json'}")


def tabulate(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns the columns' names and the rows of the table of a run, a row a model."""
    metrics = metrics_of(results)
    agrees = any(model.get("agreement") for model in results["models"].values())
    columns = [*LEFT, *map(header, metrics), *(("agreement %",) if agrees else ())]
    rows = []
    for name in results["order"]:
        model = results["models"][name]
        agreement = ", ".join(f"{100 * value:.2f}" for value in model.get("agreement", {}).values())
        learned_from = ", ".join(model["teachers"] or model.get("members", ()))
        # What learned nothing in this run didn't learn from its labels either.
        if not learned_from:
            origin = model.get("origin", "trained")
            learned_from = "labels" if origin == "trained" else f"({origin})"
        # Sets are named beside the teachers, since they change what a model learned as well.
        if sets := [part for part in model.get("data", ()) if part != "train"]:
            learned_from += f"; {', '.join(sets)}"
        rows.append(
            [
                name,
                learned_from,
                *(cell(metric, values_of(model)[metric]) for metric in metrics),
                *((agreement,) if agrees else ()),
                "" if model["parameters"] is None else f"{model['parameters']:,}",
                f"{model['train_seconds']:.1f}",
            ]
        )
    return [*columns, "parameters", "trained s"], rows


def tell_guess(results: Mapping[str, Any]) -> list[str]:
    """Says, of classes, what always the same answer would be right for."""
    if "classes" not in results:
        return []
    share = 100 * results["classes"]["largest_share"]
    return [f"always the largest class of the training rows: {share:.2f} % of them"]


def tell_size(results: Mapping[str, Any]) -> list[str]:
    """Says how much smaller and faster the student is, where anybody knows it."""
    if (ratio := results["compression"]) is None:
        return []
    # Speeds are given by batch size, as a GPU may gain much at one and nothing at the other.
    speed = ", ".join(
        f"{value:.1f}x ({name.replace('_', ' ')})" for name, value in results["speedup"].items()
    )
    size = f"{ratio:.1f}x fewer" if ratio >= 1 else f"{1 / ratio:.1f}x more"
    faster = "faster by" if min(results["speedup"].values()) >= 1 else "speed"
    return [f"student against teacher: {size} parameters; {faster} {speed}"]


def tell_gain(results: Mapping[str, Any]) -> list[str]:
    """Says the gain, and how far it can be trusted, where there are such."""
    if results["gain"] is None:
        return []
    primary = metrics_of(results)[0]
    gain, closed = results["gain"], results["gap_closed"]
    told = f"{100 * gain:+.2f} points" if METRICS[primary].share else f"{gain:+.4f}"
    of = "" if primary == "accuracy" else f" in {METRICS[primary].title}"
    # A share of hardly any gap, or of a loss, is a large number that says nothing.
    gap = ""
    if closed is not None and 0 <= closed <= 10:
        gap = f", {100 * closed:.0f} % of the gap to the teacher"
    lines = [f"gain over the baseline{of}: {told}{gap}"]
    if results.get("gain_interval") is not None:
        lines.append(tell_interval(results["gain_interval"], primary, results["gain_rows"]))
    return lines


def tell_interval(
    interval: Sequence[float], primary: str, about: Mapping[str, Any], unit: str = "rows"
) -> str:
    """Says in a line whether a gain is shown, and how many rows or seeds would show it.

    Args:
      interval: [low, high].
      primary: the metric.
      about: its "rows" or "seeds", "level", "needed" and maybe "mcnemar".
      unit: "rows" or "seeds".
    """
    low, high = interval
    percent = METRICS[primary].share
    bounds = " to ".join(f"{100 * x:+.2f}" if percent else f"{x:+.4f}" for x in (low, high))
    verdict = "a gain" if low > 0 else "a loss" if high < 0 else "no difference shown"
    told = f"{100 * about['level']:.0f} % interval over {about[unit]:,} {unit}: {bounds}: {verdict}"
    notes = [f"McNemar's p = {about['mcnemar']:.2g}"] if "mcnemar" in about else []
    if low <= 0 <= high and about["needed"] is not None:
        notes.append(f"one of this size needs about {about['needed']:,} {unit}")
    return f"{told} ({'; '.join(notes)})" if notes else told


def tell_spread(spread: Mapping[str, Any] | None, metric: str) -> str:
    """Says a "mean" and its sample standard deviation "std", where there is one, for a table."""
    if spread is None:
        return "-"
    std = "" if spread["std"] is None else f" ± {cell(metric, spread['std'])}"
    return f"{cell(metric, spread['mean'])}{std}"


def metrics_of(results: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the metrics that a table of results shows, the primary one first."""
    # Runs of before there were tasks know these three.
    section = results.get("task", {"name": "classification"})
    return TASKS[section["name"]](results.get("primary")).columns


def values_of(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a model's metrics in results.json, also of runs of before there were tasks."""
    return model.get("metrics", model)


def _show_member_values(
    name: str, found: Mapping[str, Any], primary: str, console: Console
) -> None:
    share = METRICS[primary].share
    told = {
        member: f"{100 * value:+.2f}" if share else f"{value:+.4f}"
        for member, value in found["values"].items()
    }
    shares = ", ".join(f"{member} {each}" for member, each in told.items())
    # What is worth more is lower for some metrics, and was negated.
    guess = found["empty"] if METRICS[primary].higher else -found["empty"]
    console.print(
        f"{name}'s {METRICS[primary].title} against a guess ({cell(primary, guess)}"
        f"{' %' if share else ''}), by member (Shapley): {shares}{' points' if share else ''}"
    )


def _show_with_teacher(
    name: str, found: Mapping[str, Any], metrics: Sequence[str], console: Console
) -> None:
    scores = ", ".join(shown(metric, found[metric]) for metric in metrics if metric in found)
    further = f"by a map of {found['map_parameters']:,} further parameters"
    console.print(f"{name} with {found['teacher']}'s {found['output']}: {scores}, {further}")


def _show_evaluations(results: Mapping[str, Any], console: Console) -> None:
    """Datasets as rows, since there may be many; the experiment's own comes first, the summary
    last."""
    summary = results["robustness"]
    order = [name for name in results["order"] if name in summary]
    primary = metrics_of(results)[0]
    table = Table(title=f"{header(primary)}, by dataset")
    for column in ("dataset", "rows", "left out", *order):
        table.add_column(column, justify="left" if column == "dataset" else "right")

    def percent(of: str) -> list[str]:
        return [cell(primary, summary[name][of]) for name in order]

    table.add_row("in domain", "", "", *percent("in_domain"), end_section=True)
    for dataset, scores in results["evaluations"].items():
        # The counts are those of the dataset, so any model's entry has them.
        counts = [f"{scores[order[0]][key]:,}" for key in ("rows", "left_out")]
        table.add_row(dataset, *counts, *(cell(primary, scores[name][primary]) for name in order))
    table.add_section()
    table.add_row("mean of these", "", "", *percent("mean"))
    table.add_row("drop from in domain", "", "", *percent("drop"))
    table.add_row("worst", "", "", *percent("worst"))
    table.add_row("", "", "", *(summary[name]["worst_dataset"] or "-" for name in order))
    console.print(table)
