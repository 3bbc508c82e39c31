"""A finished run or sweep becomes one page and its Markdown; what isn't finished is refused."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

import kd_jax as kd
from kd_jax.html_report.figures import draw_curves, pareto
from kd_jax.html_report.read import Curve

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def entry(value, **more):
    found = {
        "teachers": [],
        "data": ["train"],
        "origin": "trained",
        "parameters": 1000,
        "metrics": {"loss": 0.5, "accuracy": value, "ece": 0.1},
        "train_seconds": 3.0,
        "by_class": {n: {"f1": value - k / 10} for k, n in enumerate(("cat", "$dog$", "<b>"))},
        "confusion_matrix": [[3, 1, 0], [0, 2, 2], [1, 1, 1]],
        "calibration": [{"confidence": 0.7, "accuracy": value, "rows": 12}],
    }
    return found | more


def write_run(folder, **more):
    """A finished run's folder, as the reader finds it; its class names are hostile."""
    results = {
        "experiment": "pets",
        "seed": 3,
        "order": ["baseline", "teacher", "student"],
        "compare": {"student": "student", "baseline": "baseline", "teacher": "teacher"},
        "models": {
            "baseline": entry(0.5),
            "teacher": entry(0.9, parameters=9000),
            "student": entry(0.75, teachers=["teacher"], agreement={"teacher": 0.8}),
        },
        "primary": "accuracy",
        "task": {"name": "classification"},
        "config": {"name": "pets", "seed": 3},
        "gain": 0.25,
        "gap_closed": 0.625,
        "compression": 9.0,
        "gain_interval": [0.1, 0.4],
        "gain_rows": {"rows": 12, "level": 0.95, "needed": 5},
        "speedup": {"batch_1": 2.0},
        "evaluations": {},
        "environment": {
            "jax": "1",
            "backend": "cpu",
            "device_count": 1,
            "process_count": 1,
            "commit": "abc",
            "data_fingerprint": "sha256:12",
            "data_provenance": {},
        },
    }
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results | more))
    lines = [
        {"model": model, "step": step, "loss": 1 / step, "selection/accuracy": step / 20}
        for model in results["order"]
        for step in (5, 10)
    ]
    text = "\n".join([*map(json.dumps, lines), '{"model": "stud'])
    (folder / "metrics.jsonl").write_text(text)
    example = {
        "row": 7,
        "text": "<script>alert(1)</script> & co",
        "label": "<b>",
        "outputs": {"student": "cat, 51 %", "baseline": "$dog$, 60 %"},
    }
    examples = {"gained": [example], "lost": [], "not_learned": []}
    (folder / "examples.json").write_text(json.dumps(examples))
    return folder


class Page(HTMLParser):
    """What a browser would show and fetch."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.text.append(data.strip())


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def test_a_page_tells_what_was_found_and_how_to_repeat_it(tmp_path):
    folder = write_run(tmp_path / "run")
    page = read(kd.write_report(folder))
    words = " ".join(page.text)
    for told in (
        "pets, seed 3",
        "gain over the baseline: +25.00 points, 62 % of the gap to the teacher",
        "95 % interval over 12 rows: +10.00 to +40.00: a gain",
        "9.0x fewer parameters",
        "75.00",
        "Where the student is better than its baseline",
        "cat, 51 %",
        f"kd-jax --repeat={folder / 'results.json'}",
        "sha256:12",
    ):
        assert told in words, told
    # Empty kinds have no heading.
    assert "Where the teacher is better" not in words
    assert page.tags.count("figure") == page.tags.count("svg") == 6
    assert '"seed": 3' in words


def test_a_page_runs_and_fetches_nothing_and_shows_hostile_names_as_they_are(tmp_path):
    page = read(kd.write_report(write_run(tmp_path / "run")))
    assert "script" not in page.tags
    assert "<script>alert(1)</script> & co" in page.text
    assert "<b>" in page.text
    assert "$dog$" in page.text
    assert page.links
    assert all(link.startswith(("data:", "#")) for link in page.links)


def test_markdown_holds_the_table_and_no_html(tmp_path):
    folder = write_run(tmp_path / "run", experiment="a|b <i>")
    kd.write_report(folder)
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "| student | teacher | 75.00 |" in text
    assert "+10.00 to +40.00" in text
    assert text.startswith("# a\\|b &lt;i>, seed 3")


def test_results_of_earlier_versions_have_a_page_too(tmp_path):
    folder = write_run(tmp_path / "run", config=None)
    results = json.loads((folder / "results.json").read_text())
    for key in ("config", "primary", "task", "gain_interval", "gain_rows"):
        del results[key]
    results["gain"] = None
    for model in results["models"].values():
        for key in ("by_class", "confusion_matrix", "calibration"):
            del model[key]
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "examples.json").unlink()
    (folder / "metrics.jsonl").unlink()
    page = read(kd.write_report(folder))
    assert page.tags.count("svg") == 1
    assert "Examples where the models differ most" not in page.text


def test_a_sweep_has_a_page_and_one_for_each_run(tmp_path):
    runs = [write_run(tmp_path / f"t={t}-seed0") for t in (1, 4)]
    spread = {"mean": 0.75, "std": 0.01, "n": 2}
    models = {
        name: {"accuracy": spread, "selection_accuracy": spread}
        for name in ("baseline", "teacher", "student")
    }
    found = {
        "finished": False,
        "runs": [
            {"setting": {"a.t": t}, "seed": 0, "workdir": f"/elsewhere/{run.name}"}
            for t, run in zip((1, 4), runs, strict=True)
        ],
        "settings": [
            {
                "setting": {"a.t": t},
                "seeds": [0, 1],
                "diverged": [2],
                "models": models,
                "gain": spread,
                "gain_interval_seeds": [-0.1, 0.2],
                "gain_seeds": {"seeds": 2, "level": 0.95, "needed": 9},
                "primary": "accuracy",
            }
            for t in (1, 4)
        ],
    }
    (tmp_path / "sweep.json").write_text(json.dumps(found))
    page = read(kd.write_report(tmp_path))
    words = " ".join(page.text)
    assert "not all runs have ended: 2 are here" in words
    assert "gain over the baseline, t=4" in words
    assert "-10.00 to +20.00: no difference shown" in words
    assert "t=1: diverged with seeds 2" in words
    assert "75.00 ± 1.00" in words
    links = [link for link in page.links if link.endswith("report.html")]
    assert len(links) == 2
    assert all((run / "report.html").is_file() for run in runs)


def test_a_search_has_a_page_with_its_rounds(tmp_path):
    write_run(tmp_path / "round1-trial01")
    tried = {"selection": 0.75, "evaluation": 0.5}
    runs = [
        {"name": "round1-trial01", "setting": {"a.t": 1}, "student": tried, "baseline": tried},
        {"name": "round1-trial02", "setting": {"a.t": 4}, "diverged": "step 3"},
    ]
    best = {"student": runs[0] | tried}
    found = {"finished": True, "primary": "accuracy", "best": best}
    found["rounds"] = [{"fraction": 0.25, "runs": runs}]
    (tmp_path / "search.json").write_text(json.dumps(found))
    page = read(kd.write_report(tmp_path))
    words = " ".join(page.text)
    assert "best student: 75.00 on the selection split, with t=1" in words
    assert "Round 1, 0.25 of the training" in words
    assert [link for link in page.links if "report" in link] == ["round1-trial01/report.html"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no finished run, sweep or search: there is no results\.json, sweep\.json or search"),
        ({"config.json": "{}"}, "holds no finished run, sweep or search"),
        ({"search.json": '{"rounds": [{"fraction": 1, "runs": []}]}'}, "no finished run yet"),
        ({"results.json": "{}"}, r"results\.json is no results\.json of a finished run"),
        ({"results.json": "{"}, r"results\.json"),
        ({"sweep.json": '{"settings": [], "runs": []}'}, "has no finished run yet"),
    ],
)
def test_what_is_not_finished_is_refused_in_one_line(files, message, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as refusal:
        kd.write_report(tmp_path)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "report.html").exists()


def test_a_figure_takes_the_pages_colours_and_shares_no_names_with_others():
    svg = draw_curves({"a_b^c": Curve([1, 2], [0.5, 0.25])}, {"a_b^c": "#1f8a70"}, label="x_1")
    root = ET.fromstring(svg)
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert "a_b^c" in [element.text for element in root.iter() if element.text]
    names = [element.get("id") for element in root.iter() if element.get("id")]
    assert all(f"#{name}" in svg for name in names)


def test_no_point_of_a_front_is_beaten_by_a_smaller_model():
    points = [(10, 0.5), (10, 0.6), (20, 0.55), (30, 0.9), (40, 0.9)]
    assert pareto(points, higher=True) == [(10, 0.6), (30, 0.9)]
    assert pareto(points, higher=False) == [(10, 0.5)]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium; Debian's package is chromium")
@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("width", [400, 1600])
def test_a_browser_opens_it_without_errors_or_requests(width, theme, tmp_path):
    folder = write_run(tmp_path / "run")
    page = kd.write_report(folder)
    assert BROWSER is not None
    log = tmp_path / "net.json"
    command = [
        BROWSER,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        f"--blink-settings=preferredColorScheme={theme}",
        f"--window-size={width},1200",
        f"--log-net-log={log}",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "+25.00 points" in done.stdout
    assert "CONSOLE" not in done.stderr
    # The browser's own services may ask for something, but never in this page's name.
    asked = re.findall(r'"url":"(https?://[^"]+)"', log.read_text(errors="replace"))
    assert not [url for url in asked if Path(url).suffix in (".js", ".css", ".woff2", ".svg")]
