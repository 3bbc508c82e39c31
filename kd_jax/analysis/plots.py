"""Pictures of what was measured, one function a figure, written as PNG without a display."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kd_jax.core.types import Array

POSITIVE, NEGATIVE = "#b40426", "#3b4cc0"
"""The ends of the colour map "coolwarm"."""


def plot_worths(
    values: Mapping[str, float], errors: Mapping[str, float], path: Path, *, title: str, unit: str
) -> None:
    """Bars of what each player is worth, with standard errors.

    Args:
      values: by player.
      errors: standard errors, by player; 0 where exact.
      path: the PNG.
      title: of the figure.
      unit: of the values.
    """
    # A Figure of its own, as pyplot would keep it alive and may ask for a display.
    figure = Figure(figsize=(2 + 1.1 * len(values), 3.6), layout="constrained")
    axes, spots = figure.add_subplot(), np.arange(len(values))
    heights = [values[player] for player in values]
    spread = [errors[player] for player in values]
    # Exact values have no spread; bars of length 0 would look like a measurement.
    axes.bar(
        spots, heights, yerr=spread if any(spread) else None, capsize=4, color=_colours(heights)
    )
    axes.axhline(0, color="black", linewidth=0.8)
    # Names may hold a dollar sign, which Matplotlib would read as mathematics.
    axes.set_xticks(spots, list(values), parse_math=False)
    axes.set_ylabel(unit, parse_math=False)
    axes.set_title(title, parse_math=False)
    _save(figure, path)


def plot_patches(
    image: Array, attributions: Mapping[str, Array], path: Path, *, title: str
) -> None:
    """Draws a picture, and beside it for each model the picture under the attribution of its
    patches.

    Args:
      image: `[H, W, C]` uint8, of 1 or 3 channels.
      attributions: model -> `[rows, columns]`; each has a scale of its own, symmetric about 0.
      path: the PNG.
      title: of the figure.
    """
    figure = Figure(figsize=(3 * (len(attributions) + 1), 3.4), layout="constrained")
    panels = figure.subplots(1, len(attributions) + 1, squeeze=False)[0]
    picture = np.asarray(image)
    # Matplotlib would colour a single channel by a colour map.
    picture = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
    # In pixels and downwards, so that the patches lie over the picture.
    extent = (0.0, float(picture.shape[1]), float(picture.shape[0]), 0.0)
    for panel in panels:
        panel.imshow(picture, extent=extent)
        panel.set_axis_off()
    panels[0].set_title(title, parse_math=False)
    for panel, (name, values) in zip(panels[1:], attributions.items(), strict=True):
        # Symmetric about 0, so that no effect has the middle colour.
        largest = _largest(values)
        shown = panel.imshow(
            values, extent=extent, cmap="coolwarm", vmin=-largest, vmax=largest, alpha=0.7
        )
        panel.set_title(name, parse_math=False)
        figure.colorbar(shown, ax=panel, shrink=0.8)
    _save(figure, path)


def plot_tokens(
    attributions: Mapping[str, tuple[Sequence[str], Array]], path: Path, *, title: str
) -> None:
    """Draws each model's tokens from top to bottom, with bars of their attributions.

    Args:
      attributions: model -> its tokens and `[T]` their values; each has a scale of its own.
      path: the PNG.
      title: of the figure.
    """
    longest = max(len(tokens) for tokens, _ in attributions.values())
    figure = Figure(figsize=(4 * len(attributions), 1.2 + 0.2 * longest), layout="constrained")
    panels = figure.subplots(1, len(attributions), squeeze=False)[0]
    for panel, (name, (tokens, values)) in zip(panels, attributions.items(), strict=True):
        _bars_of_tokens(panel, tokens, np.asarray(values))
        panel.set_title(name, parse_math=False)
    figure.suptitle(title, parse_math=False)
    _save(figure, path)


def _bars_of_tokens(panel: Axes, tokens: Sequence[str], values: np.ndarray) -> None:
    spots, largest = np.arange(len(tokens)), 1.1 * _largest(values)
    panel.barh(spots, values, color=_colours(values))
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_yticks(spots, list(tokens), parse_math=False)
    panel.set_xlim(-largest, largest)
    panel.locator_params(axis="x", nbins=5)
    # The first token belongs on top, and Matplotlib counts from below.
    panel.invert_yaxis()


def _colours(values: Sequence[float] | np.ndarray) -> list[str]:
    return [POSITIVE if value >= 0 else NEGATIVE for value in values]


def _largest(values: Array) -> float:
    """Returns the end of a symmetric scale; never 0, which would be none."""
    return float(np.max(np.abs(values))) or 1.0


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes; the numbers stand in the JSON.
        warnings.filterwarnings(
            "ignore", message=r"Glyph .* missing from font", category=UserWarning
        )
        figure.savefig(path, format="png", dpi=120)
