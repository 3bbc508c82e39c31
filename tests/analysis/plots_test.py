"""Figures: what is drawn is what was given, whatever the names, and the file is a picture."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from kd_jax.analysis import plots

ODD = ["$x$", "漢字", "_", "a\\b", "", "😀"]


@pytest.fixture
def drawn(monkeypatch):
    """The figures, which are written too."""
    figures, save = [], plots._save
    monkeypatch.setattr(
        plots, "_save", lambda figure, path: (figures.append(figure), save(figure, path))
    )
    return figures


def is_picture(path):
    with Image.open(path) as image:
        return image.format == "PNG" and min(image.size) > 100


def test_bars_are_the_values_with_their_errors(tmp_path, drawn):
    values, errors = {"vgg": 0.3, "$vit$": -0.1}, {"vgg": 0.02, "$vit$": 0.05}
    plots.plot_worths(
        values, errors, tmp_path / "new" / "bars.png", title="members of $e$", unit="share"
    )
    assert is_picture(tmp_path / "new" / "bars.png")
    (axes,) = drawn[0].axes
    bars = axes.containers[-1]
    assert [bar.get_height() for bar in bars] == [0.3, -0.1]
    assert [to_hex(bar.get_facecolor()) for bar in bars] == [plots.POSITIVE, plots.NEGATIVE]
    spans = np.array([line[:, 1] for line in bars.errorbar.lines[2][0].get_segments()])
    np.testing.assert_allclose(spans, [[0.28, 0.32], [-0.15, -0.05]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["vgg", "$vit$"]
    assert (axes.get_ylabel(), axes.get_title()) == ("share", "members of $e$")


def test_exact_values_have_no_error_bars(tmp_path, drawn):
    plots.plot_worths(
        {"a": 1.0, "b": 2.0}, {"a": 0.0, "b": 0.0}, tmp_path / "bars.png", title="", unit=""
    )
    assert drawn[0].axes[0].containers[-1].errorbar is None


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_lie_over_the_picture_on_a_scale_about_zero(channels, tmp_path, drawn):
    picture = np.random.default_rng(0).integers(0, 256, (12, 8, channels), dtype=np.uint8)
    grids = {
        "teacher": np.array([[1.0, -3.0], [0.5, 2.0], [0.0, 0.0]]),
        "student": np.zeros((3, 2)),
    }
    plots.plot_patches(picture, grids, tmp_path / "patches.png", title="$5$")
    assert is_picture(tmp_path / "patches.png")
    alone, *panels = drawn[0].axes[:3]
    np.testing.assert_array_equal(alone.images[0].get_array()[..., :channels], picture)
    for panel, (name, values) in zip(panels, grids.items(), strict=True):
        below, above = panel.images
        assert below.get_extent() == above.get_extent() == [0, 8, 12, 0]
        np.testing.assert_array_equal(above.get_array(), values)
        assert panel.get_title() == name
    assert panels[0].images[1].get_clim() == (-3, 3)
    assert panels[1].images[1].get_clim() == (-1, 1)


def test_tokens_stand_from_top_to_bottom_with_their_values(tmp_path, drawn):
    values = np.array([0.5, -1.0, 0.0, 0.25, 0.0, 0.1])
    plots.plot_tokens(
        {"teacher": (ODD, values), "student": (["a"], [0.0])}, tmp_path / "t.png", title="the $e$"
    )
    assert is_picture(tmp_path / "t.png")
    teacher, student = drawn[0].axes
    assert [bar.get_width() for bar in teacher.containers[0]] == values.tolist()
    assert [label.get_text() for label in teacher.get_yticklabels()] == ODD
    assert teacher.yaxis_inverted()
    assert teacher.get_xlim() == pytest.approx((-1.1, 1.1))
    assert student.get_xlim() == pytest.approx((-1.1, 1.1))
