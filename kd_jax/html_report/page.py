"""The page of a finished run or sweep, and its Markdown."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from kd_jax.experiments.report import (
    LEFT,
    metrics_of,
    tabulate,
    tell_gain,
    tell_guess,
    tell_interval,
    tell_size,
    tell_spread,
    values_of,
)
from kd_jax.experiments.sweep.grid import label as label_of
from kd_jax.html_report import figures
from kd_jax.html_report.read import (
    RESULTS,
    SEARCH,
    SWEEP,
    Finished,
    read_run,
    read_search,
    read_sweep,
)
from kd_jax.tasks import METRICS, cell, header

log = logging.getLogger("kd_jax")

PAGE, MARKDOWN = "report.html", "report.md"
KINDS = {
    "gained": "Where the student is better than its baseline",
    "lost": "Where the student is worse than its baseline",
    "not_learned": "Where the teacher is better than its student",
}
"""Of examples: key in examples.json -> title."""


@dataclass(frozen=True)
class Table:
    """A table: its title, columns and rows of words; `left` tells which columns are words."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    left: Sequence[str] = LEFT


@dataclass(frozen=True)
class Figure:
    """A figure as SVG, with what it shows in words; a wide one takes the whole line."""

    title: str
    svg: str
    wide: bool = False


@dataclass(frozen=True)
class Page:
    """What a page holds.

    Attributes:
      title: its name.
      asked: what was asked, in a line.
      lines: what was found, the most important first.
      tables: of numbers.
      figures: SVG.
      examples: by kind, as in examples.json.
      runs: of a sweep: name -> where its own report is, from this one's folder.
      facts: what it was made of: name -> words.
      config: as JSON.
      command: to repeat it.
    """

    title: str
    asked: str
    lines: Sequence[str]
    tables: Sequence[Table]
    figures: Sequence[Figure]
    facts: Mapping[str, str]
    config: str
    command: str
    examples: Mapping[str, Any] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)


def write_report(folder: str | Path) -> Path:
    """Writes the report of a finished run, sweep or search into its folder: HTML and Markdown.

    The page is one file that opens without a network. The runs of a sweep or search get theirs as
    well.

    Args:
      folder: of `kd_jax.run`, or of a sweep or search.

    Returns:
      The page's path.

    Raises:
      ValueError: in one line, if the folder holds nothing that is finished.
    """
    folder = Path(folder)
    if (folder / SWEEP).is_file():
        page = _of_sweep(folder)
    elif (folder / SEARCH).is_file():
        page = _of_search(folder)
    else:
        page = _of_run(read_run(folder))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        # Names, texts and labels come from the user's data.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html").render(page=page, kinds=KINDS)
    # Half a character of a text of the user's is shown as a question mark.
    (folder / PAGE).write_text(text, encoding="utf-8", errors="replace")
    (folder / MARKDOWN).write_text(_markdown(page), encoding="utf-8", errors="replace")
    return folder / PAGE


def _of_run(run: Finished) -> Page:
    results = run.results
    roles = results["compare"]
    columns, rows = tabulate(results)
    tables = [Table(columns, rows, "Models")]
    if results.get("evaluations"):
        tables.append(_elsewhere(results))
    return Page(
        title=f"{results['experiment']}, seed {results['seed']}",
        asked=(
            f"Does {roles['student']} gain by learning from {roles['teacher']}, over"
            f" {roles['baseline']}, the same model trained as long without a teacher?"
        ),
        lines=[*tell_gain(results), *tell_size(results), *tell_guess(results)],
        tables=tables,
        figures=_figures_of(run),
        facts=_facts(results),
        config=json.dumps(results.get("config", {}), indent=2),
        command=f"kd-jax --repeat={run.folder / RESULTS}",
        examples={kind: found for kind, found in run.examples.items() if kind in KINDS and found},
    )


def _figures_of(run: Finished) -> list[Figure]:
    results = run.results
    roles, order = results["compare"], results["order"]
    primary = metrics_of(results)[0]
    colours = {name: figures.colour_of(name, roles, order) for name in order}
    found = []
    named = {"selection": f"{header(primary)}, selection split", "loss": "training loss"}
    for kind, label in named.items():
        if curves := run.curves.get(kind):
            drawn = _in_percent(curves, primary) if kind == "selection" else curves
            svg = figures.draw_curves(drawn, colours, label=label, log=kind == "loss")
            found.append(Figure(f"While they were trained: {label}", svg))
    compared = [name for name in dict.fromkeys(roles.values()) if name in results["models"]]
    models = {name: results["models"][name] for name in compared}
    sized = {name: m for name, m in results["models"].items() if m["parameters"]}
    points = {
        name: [(m["parameters"], _shown(values_of(m)[primary], primary), None)]
        for name, m in sized.items()
        if values_of(m)[primary] is not None
    }
    if len(points) > 1:
        higher = METRICS[primary].higher
        svg = figures.draw_sizes(points, colours, label=header(primary), higher=higher)
        found.append(Figure(f"Size and {header(primary)}; dotted: what no smaller one beats", svg))
    bins = {name: m["calibration"] for name, m in models.items() if m.get("calibration")}
    if bins:
        svg = figures.draw_calibration(bins, colours)
        found.append(Figure("Calibration: how often a model is right, by how sure it is", svg))
    found += _by_class(results, models, colours)
    for name, model in results["models"].items():
        if values := model.get("shapley", {}).get("values"):
            worth = {each: _shown(value, primary) for each, value in values.items()}
            svg = figures.draw_gains(worth, label=f"{header(primary)}, points")
            found.append(Figure(f"{name}: what each member adds (Shapley values)", svg))
    return found


def _by_class(
    results: Mapping[str, Any], models: Mapping[str, Any], colours: Mapping[str, str]
) -> list[Figure]:
    found = []
    student, baseline = (
        models.get(results["compare"][role], {}).get("by_class", {})
        for role in ("student", "baseline")
    )
    gains = {
        name: 100 * (student[name]["f1"] - baseline[name]["f1"])
        for name in student
        if name in baseline and None not in (student[name]["f1"], baseline[name]["f1"])
    }
    if len(gains) > 1:
        svg = figures.draw_gains(gains, label="gain over the baseline in F1, points")
        found.append(Figure("Gain by class", svg))
    matrices = {
        name: m["confusion_matrix"] for name, m in models.items() if "confusion_matrix" in m
    }
    names = list(student)
    if matrices and 1 < len(names) <= figures.MOST_CLASSES:
        svg = figures.draw_confusion(matrices, names, colours)
        found.append(Figure("Confusion: labels by row, predictions by column", svg, wide=True))
    return found


def _elsewhere(results: Mapping[str, Any]) -> Table:
    primary = metrics_of(results)[0]
    order = [name for name in results["order"] if name in results["robustness"]]
    rows = [
        [dataset, *(cell(primary, scores[name][primary]) for name in order)]
        for dataset, scores in results["evaluations"].items()
    ]
    rows.insert(
        0,
        ["in domain", *(cell(primary, results["robustness"][n]["in_domain"]) for n in order)],
    )
    title = f"{header(primary)}, on further datasets"
    return Table(["dataset", *order], rows, title, ("dataset",))


def _facts(results: Mapping[str, Any]) -> dict[str, str]:
    environment = results["environment"]
    cleaning = results.get("cleaning") or {}
    facts = {
        "data": environment["data_fingerprint"],
        "rows": f"{cleaning.get('kept', '?')} of {cleaning.get('rows', '?')} training rows kept",
        "commit": environment["commit"] or "not a checkout",
        "machine": (
            f"{environment['device_count']} {environment['backend']} device(s),"
            f" {environment.get('cpus') or '?'} CPU(s), {environment['process_count']} process(es)"
        ),
        "jax": environment["jax"],
    }
    for key, value in environment.get("data_provenance", {}).items():
        several = isinstance(value, Mapping)
        told = ", ".join(f"{name} {each}" for name, each in value.items()) if several else value
        facts[key] = str(told)
    return facts


def _label(setting: Mapping[str, Any]) -> str:
    """Returns a setting's label with room to break lines."""
    return label_of(setting).replace(",", ", ")


def _of_sweep(folder: Path) -> Page:
    found = read_sweep(folder)
    runs = _runs_of([Path(entry["workdir"]).name for entry in found["runs"]], folder)
    first = next(iter(runs.values())).results
    roles, primary = first["compare"], metrics_of(first)[0]
    lines, rows = [], []
    for setting in found["settings"]:
        name = _label(setting["setting"]) or "the config"
        if (interval := setting.get("gain_interval_seeds")) is not None:
            told = tell_interval(interval, primary, setting["gain_seeds"], "seeds")
            lines.append(f"gain over the baseline, {name}: {told}")
        if setting["diverged"]:
            lines.append(f"{name}: diverged with seeds {', '.join(map(str, setting['diverged']))}")
        for model, spreads in setting["models"].items():
            gain = tell_spread(setting["gain"], primary) if model == roles["student"] else ""
            measured = (primary, f"selection_{primary}")
            rows.append(
                [
                    name,
                    model,
                    str(len(setting["seeds"])),
                    *(tell_spread(spreads[key], primary) for key in measured),
                    gain,
                ]
            )
    if not found["finished"]:
        lines.insert(0, f"not all runs have ended: {len(found['runs'])} are here")
    columns = ["setting", "model", "seeds", header(primary), "selection", "gain"]
    table = Table(
        columns, rows, "Mean ± sample standard deviation over the seeds", ("setting", "model")
    )
    return Page(
        title=f"{first['experiment']}, {len(runs)} runs",
        asked=(
            f"Does {roles['student']} gain by learning from {roles['teacher']}, over"
            f" {roles['baseline']}, in {len(found['settings'])} setting(s)?"
        ),
        lines=lines,
        tables=[table],
        figures=_figures_of_sweep(found, runs, primary),
        facts=_facts(first),
        config=json.dumps(first.get("config", {}), indent=2),
        command=f"kd-jax --repeat={folder / next(iter(runs)) / RESULTS}  # Its first run.",
        runs={name: f"{name}/{PAGE}" for name in runs},
    )


def _of_search(folder: Path) -> Page:
    found = read_search(folder)
    runs = _runs_of([e["name"] for each in found["rounds"] for e in each["runs"]], folder)
    first = next(iter(runs.values())).results
    roles, primary = first["compare"], metrics_of(first)[0]
    both = ("student", "baseline")
    tables = []
    for number, each in enumerate(found["rounds"], 1):
        rows = []
        for entry in each["runs"]:
            values = [entry[role]["selection"] if role in entry else None for role in both]
            shown = [cell(primary, value) for value in values]
            rows.append([entry["name"], _label(entry["setting"]), *shown])
        title = (
            f"Round {number}, {each['fraction']:g} of the training: {header(primary)} on the"
            f" selection split"
        )
        tables.append(Table(["trial", "setting", *both], rows, title, ("trial", "setting")))
    lines = [] if found["finished"] else ["the search has not ended yet"]
    for role, best in found.get("best", {}).items():
        told = cell(primary, best["selection"])
        lines.append(f"best {role}: {told} on the selection split, with {_label(best['setting'])}")
    lines.append("these runs chose the settings: compare them with other seeds, by a sweep")
    return Page(
        title=f"{first['experiment']}, a search of {len(found['rounds'][0]['runs'])} trials",
        asked=(
            f"Which settings serve {roles['student']} and {roles['baseline']} best, tried as often"
            f" for both?"
        ),
        lines=lines,
        tables=tables,
        figures=[],
        facts=_facts(first),
        config=json.dumps(first.get("config", {}), indent=2),
        command=f"kd-jax --repeat={folder / next(iter(runs)) / RESULTS}  # Its first run.",
        runs={name: f"{name}/{PAGE}" for name in runs},
    )


def _runs_of(names: Sequence[str], folder: Path) -> dict[str, Finished]:
    """Opens the runs of a sweep or search that have results, and writes their reports.

    Runs that diverged have none, and neither have those that are still to come.

    Raises:
      ValueError: if none has.
    """
    runs = {name: read_run(folder / name) for name in names if (folder / name / RESULTS).is_file()}
    if not runs:
        raise ValueError(f"no run of {folder} has a {RESULTS}: they diverged or are gone")
    for name in runs:
        write_report(folder / name)
    return runs


def _figures_of_sweep(
    found: Mapping[str, Any], runs: Mapping[str, Finished], primary: str
) -> list[Figure]:
    """Draws each setting's means over size, since a sweep may change what a student is."""
    sizes = {
        (json.dumps(entry["setting"]), name): model["parameters"]
        for entry in found["runs"]
        if (run := runs.get(Path(entry["workdir"]).name)) is not None
        for name, model in run.results["models"].items()
    }
    points: dict[str, list[tuple[float, float, float | None]]] = {}
    for setting in found["settings"]:
        for name, spreads in setting["models"].items():
            size, spread = sizes.get((json.dumps(setting["setting"]), name)), spreads[primary]
            if size and spread is not None:
                deviation = None if spread["std"] is None else _shown(spread["std"], primary)
                point = (size, _shown(spread["mean"], primary), deviation)
                points.setdefault(name, []).append(point)
    first = next(iter(runs.values())).results
    colours = {n: figures.colour_of(n, first["compare"], first["order"]) for n in points}
    if not points:
        return []
    higher = METRICS[primary].higher
    svg = figures.draw_sizes(points, colours, label=header(primary), higher=higher)
    return [Figure(f"Size and {header(primary)}; dotted: what no smaller one beats", svg)]


def _shown(value: float, metric: str) -> float:
    """Returns a value as tables show it: shares in percent."""
    return 100 * value if METRICS[metric].share else value


def _in_percent(curves: Mapping[str, Any], metric: str) -> dict[str, Any]:
    factor = 100 if METRICS[metric].share else 1
    return {
        name: type(curve)(curve.steps, [factor * value for value in curve.values])
        for name, curve in curves.items()
    }


def _markdown(page: Page) -> str:
    """Writes the page's words and tables, for model cards and issues."""
    lines = [f"# {_plain(page.title)}", "", page.asked, ""]
    lines += [f"- {line}" for line in page.lines]
    for table in page.tables:
        lines += ["", f"**{_plain(table.title)}**", ""]
        lines.append("| " + " | ".join(map(_plain, table.columns)) + " |")
        marks = ("---" if column in table.left else "---:" for column in table.columns)
        lines.append("|" + "|".join(marks) + "|")
        lines += ["| " + " | ".join(map(_plain, row)) + " |" for row in table.rows]
    lines += ["", *(f"- {name}: {_plain(value)}" for name, value in page.facts.items())]
    lines += ["", f"Repeat it: `{page.command}`", ""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Keeps a text from being read as a table's end or as HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
