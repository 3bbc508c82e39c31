"""What explains a run, as tables and pictures."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from kd_jax.analysis import plots
from kd_jax.data.source import Source
from kd_jax.explain.run import Run

UNIT = "share of the accuracy"


def _console() -> Console:
    # Where the output is a file, rich would break tables at 80 columns.
    return Console(width=None if sys.stdout.isatty() else 120)


def show_worths(worths: Mapping[str, Any], title: str) -> None:
    """Prints players and what each is worth, in points of accuracy."""
    table = Table(
        title=title,
        caption=f"{100 * worths['empty']:.1f} % without any, {100 * worths['all']:.2f} % with all",
    )
    for column in ("player", "Shapley value, points", "standard error"):
        table.add_column(column, justify="left" if column == "player" else "right")
    for player, value in worths["values"].items():
        table.add_row(
            player, f"{100 * value:+.2f}", f"{100 * worths['standard_errors'][player]:.2f}"
        )
    _console().print(table)


def plot_worths(worths: Mapping[str, Any], title: str, path: Path) -> str:
    """Bars of what the players are worth; the file's name."""
    plots.plot_worths(worths["values"], worths["standard_errors"], path, title=title, unit=UNIT)
    return path.name


def show_attributions(found: Mapping[str, Any]) -> None:
    """Prints what the models predict of each example, and how alike their attributions are."""
    pairs = [(a, b) for a, others in found["cosine"].items() for b in others]
    models = (found["teacher"], found["model"])
    table = Table(title="where teacher and student look alike", caption=found["cosine_note"])
    for column in ("example", "label", *models, *(f"cosine of {a} and {b}" for a, b in pairs)):
        table.add_column(
            column, justify="right" if column.startswith(("example", "cosine")) else "left"
        )
    for each in found["examples"]:
        predictions = (each["predictions"][model] for model in models)
        table.add_row(
            str(each["example"]),
            each["label"] or "",
            *predictions,
            *(_words(each["cosine"][a][b]) for a, b in pairs),
        )
    # A line above the mean keeps it apart from the examples.
    table.add_section()
    table.add_row("mean", "", "", "", *(_words(found["cosine"][a][b]) for a, b in pairs))
    _console().print(table)


def plot_attributions(found: Mapping[str, Any], run: Run) -> list[str]:
    """Draws a picture for each example; returns the files' names."""
    source, names = run.context.datasets.splits["evaluation"], []
    for each in found["examples"]:
        path = run.folder / f"attribution_{each['example']:03}.png"
        _plot_example(each, found["grid"], source, path)
        names.append(path.name)
    return names


def _plot_example(
    each: Mapping[str, Any], grid: tuple[int, int] | None, source: Source, path: Path
) -> None:
    title, values = f"example {each['example']}: logit of {each['class']!r}", each["attributions"]
    # Tokens may differ by model, so each model brings its own; patches are the same for all.
    if grid is None:
        plots.plot_tokens(
            {name: (of["tokens"], of["values"]) for name, of in values.items()}, path, title=title
        )
    else:
        patches = {name: np.reshape(of["values"], grid) for name, of in values.items()}
        plots.plot_patches(source.inputs[each["example"]], patches, path, title=title)


def _words(cosine: float | None) -> str:
    return "-" if cosine is None else f"{cosine:+.3f}"
