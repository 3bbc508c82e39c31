"""Figures of a report, as SVG that takes the colours of the page it stands in.

Text and axes have the page's colour, so that one file reads well in a light and in a dark theme."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kd_jax.html_report.read import Curve

COLOURS = {"teacher": "#8a63d2", "student": "#1f8a70", "baseline": "#d9772b"}
"""By role; all of them can be told apart from white and from black."""

OTHERS = ("#3b82c4", "#b5507f", "#7a8b2f", "#4aa3a3", "#a0683a")
INK, GRID = "#010203", "#040506"
"""Stand for the page's colours, which Matplotlib knows nothing of."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kd_jax",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "legend.frameon": False,
}
MOST_CLASSES = 40
"""Classes that a figure shows; more wouldn't be read."""


def colour_of(model: str, roles: Mapping[str, str], models: Sequence[str]) -> str:
    """Returns a model's colour: that of its role, or one of its own."""
    for role, name in roles.items():
        if name == model and role in COLOURS:
            return COLOURS[role]
    others = [name for name in models if name not in roles.values()]
    return OTHERS[others.index(model) % len(OTHERS)]


def draw_curves(
    curves: Mapping[str, Curve], colours: Mapping[str, str], *, label: str, log: bool = False
) -> str:
    """Draws a line a model over the optimizer steps.

    Args:
      curves: by model.
      colours: by model.
      label: of the values.
      log: whether the values' axis is logarithmic.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.0), layout="constrained")
        axes = figure.add_subplot()
        for name, curve in curves.items():
            mark = "o" if len(curve.steps) < 15 else None
            axes.plot(curve.steps, curve.values, marker=mark, ms=3, color=colours[name], label=name)
        positive = all(value > 0 for curve in curves.values() for value in curve.values)
        if log and positive:
            axes.set_yscale("log")
        axes.grid(axis="y", linewidth=0.6)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(label, parse_math=False)
        _name_lines(axes)
        return _svg(figure)


def draw_confusion(
    matrices: Mapping[str, Sequence[Sequence[int]]],
    names: Sequence[str],
    colours: Mapping[str, str],
) -> str:
    """Draws a confusion matrix a model, each row in shares of its label.

    Args:
      matrices: by model, row the label, column the prediction.
      names: of the classes.
      colours: by model.
    """
    count = len(names)
    side = min(4.0, max(2.2, 0.28 * count))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=((side + 0.9) * len(matrices), side + 0.8), layout="constrained")
        panels = figure.subplots(1, len(matrices), squeeze=False)[0]
        for panel, (model, matrix) in zip(panels, matrices.items(), strict=True):
            counts = np.asarray(matrix, float)
            share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            # One colour whose strength is the share, so that it works on any background.
            shades = np.zeros((count, count, 4))
            shades[..., :3] = to_rgb(colours[model])
            shades[..., 3] = share
            for row, column in zip(*np.nonzero(counts), strict=True):
                panel.add_patch(Rectangle((column, row), 1, 1, color=shades[row, column], lw=0))
                if count <= 12:
                    told = f"{int(counts[row, column])}"
                    panel.text(column + 0.5, row + 0.5, told, ha="center", va="center", size=8)
            panel.set(xlim=(0, count), ylim=(count, 0), aspect="equal")
            spots = np.arange(count) + 0.5
            panel.set_xticks(spots, list(names), rotation=90, size=8, parse_math=False)
            panel.set_yticks(spots, list(names), size=8, parse_math=False)
            panel.tick_params(length=0)
            panel.set_title(model, parse_math=False)
            panel.set_xlabel("predicted")
        panels[0].set_ylabel("label")
        return _svg(figure)


def draw_calibration(
    bins: Mapping[str, Sequence[Mapping[str, float]]], colours: Mapping[str, str]
) -> str:
    """Draws how often a model is right against how sure it is.

    Args:
      bins: by model, of "confidence", "accuracy" and "rows".
      colours: by model.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.8, 3.4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], ls=":", color=INK, lw=1)
        for name, found in bins.items():
            points = [(each["confidence"], each["accuracy"]) for each in found]
            sizes = [4 + 60 * each["rows"] / sum(b["rows"] for b in found) for each in found]
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, color=colours[name], label=name, lw=1.2)
            axes.scatter(xs, ys, s=sizes, color=colours[name])
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
        axes.set_xlabel("confidence")
        axes.set_ylabel("share that is right")
        axes.grid(linewidth=0.6)
        _name_lines(axes)
        return _svg(figure)


def draw_gains(gains: Mapping[str, float], *, label: str) -> str:
    """Draws a bar a class, or a member of an ensemble, from the largest loss to the largest gain.

    Args:
      gains: by name.
      label: of the values.
    """
    order = sorted(gains, key=lambda name: gains[name])
    # The ends say most where all don't fit.
    if len(order) > MOST_CLASSES:
        order = order[: MOST_CLASSES // 2] + order[-MOST_CLASSES // 2 :]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 0.9 + 0.22 * len(order)), layout="constrained")
        axes = figure.add_subplot()
        values = [gains[name] for name in order]
        shades = [COLOURS["student" if value >= 0 else "baseline"] for value in values]
        axes.barh(np.arange(len(order)), values, color=shades)
        axes.axvline(0, color=INK, lw=0.8)
        axes.set_yticks(np.arange(len(order)), order, parse_math=False, size=8)
        axes.set_xlabel(label, parse_math=False)
        axes.grid(axis="x", linewidth=0.6)
        return _svg(figure)


def draw_sizes(
    points: Mapping[str, Sequence[tuple[float, float, float | None]]],
    colours: Mapping[str, str],
    *,
    label: str,
    higher: bool,
) -> str:
    """Draws the primary metric against the number of parameters, and what no other one beats.

    Args:
      points: by model: parameters, value, and standard deviation or None.
      colours: by model.
      label: of the metric.
      higher: whether more of it is better.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for model, found in points.items():
            xs, ys, spreads = zip(*found, strict=True)
            axes.errorbar(
                xs,
                ys,
                yerr=[spread or 0 for spread in spreads],
                fmt="o",
                ms=5,
                capsize=3,
                lw=1,
                color=colours[model],
                label=model,
            )
        front = pareto([(x, y) for found in points.values() for x, y, *_ in found], higher=higher)
        axes.step(*zip(*front, strict=True), where="post", color=INK, lw=0.8, ls=":")
        axes.set_xscale("log")
        axes.set_xlabel("parameters")
        axes.set_ylabel(label, parse_math=False)
        axes.grid(linewidth=0.6)
        _name_lines(axes)
        return _svg(figure)


def pareto(points: Sequence[tuple[float, float]], *, higher: bool) -> list[tuple[float, float]]:
    """Returns the points that none of as few parameters or fewer beats, by size."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1] if higher else p[1])):
        if not front or (y > front[-1][1] if higher else y < front[-1][1]):
            front.append((x, y))
    return front


def _name_lines(axes: Axes) -> None:
    legend = axes.legend(fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _svg(figure: Figure) -> str:
    """Writes a figure without what only a file of its own needs."""
    buffer = io.StringIO()
    # Without a date the same run gives the same page.
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor").replace(GRID, "var(--line)")
    # The page's width decides, and the height follows.
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="([\d.]+)pt"', r'\1 style="max-width:\2pt"', text, count=1)
    # Figures of one page must not share names; only what is referred to needs one.
    used = set(re.findall(r"#([\w.-]+)", text))
    return re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
