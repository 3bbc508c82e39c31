"""Recorded results: sealed, without folders of one machine, and in a table that is up to date."""

import json

import pytest
import results_table as tool
from paths import ROOT

from kd_jax.core import seal
from kd_jax.experiments.repeat import read

RECORDED = sorted(path.relative_to(ROOT) for path in (ROOT / "results").glob("*/*.json"))


def run_of(seed, student, **more):
    entry = {"teacher": 0.9, "baseline": 0.5, "student": student}
    return seal.seal(
        {
            "seed": seed,
            "primary": "accuracy",
            "compare": {"student": "student", "baseline": "baseline", "teacher": "teacher"},
            "models": {
                name: {
                    "metrics": {"accuracy": value},
                    "fingerprint": "shared" if name == "teacher" else f"{name}{seed}",
                }
                for name, value in entry.items()
            },
            "gain": student - 0.5,
            "gain_interval": [-0.01, 0.2],
            "environment": {"commit": "0123456789"},
            "truncated": {"/home/me/goemotions train, max_length 64": {"texts": 9, "cut": 1}},
            "config": {
                "data": {"name": "/home/me/goemotions", "class_names": "/home/me/go/labels.txt"},
                "models": {"teacher": {"restore": "/runs/sweep/seed0/teacher"}},
            },
        }
        | more
    )


def test_a_sweep_is_recorded_run_by_run_and_tabulated_over_its_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "RESULTS", tmp_path / "results")
    for seed, student in enumerate((0.6, 0.62, 0.61)):
        folder = tmp_path / "sweep" / f"seed{seed}"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(run_of(seed, student)))
    written = tool.record(tmp_path / "sweep", "mine")
    assert [path.name for path in written] == ["seed0.json", "seed1.json", "seed2.json"]
    found = read(written[1])
    assert found["config"]["data"] == {"name": "goemotions", "class_names": "go/labels.txt"}
    assert found["config"]["models"]["teacher"]["restore"] == "seed0/teacher"
    assert list(found["truncated"]) == ["goemotions train, max_length 64"]
    row = tool.table(tmp_path / "results").splitlines()[-1]
    assert row == (
        "| `mine` | accuracy % | 3 | 90.00 | 50.00 ± 0.00 | 61.00 ± 1.00 |"
        " +11.00, 8.52 to 13.48 over seeds: a gain | 0123456 |"
    )


def test_a_single_run_has_its_interval_over_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "RESULTS", tmp_path / "results")
    (tmp_path / "results.json").write_text(json.dumps(run_of(4, 0.6)))
    assert [path.name for path in tool.record(tmp_path, "one")] == ["seed4.json"]
    row = tool.table(tmp_path / "results").splitlines()[-1]
    assert "+10.00, -1.00 to 20.00 over rows: not shown" in row


def test_what_was_changed_or_is_not_there_is_not_recorded(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"holds no results\.json"):
        tool.record(tmp_path, "none")
    for setting in ("t=1-seed0", "t=4-seed0"):
        (tmp_path / "grid" / setting).mkdir(parents=True)
        (tmp_path / "grid" / setting / "results.json").write_text(json.dumps(run_of(0, 0.6)))
    monkeypatch.setattr(tool, "RESULTS", tmp_path / "results")
    with pytest.raises(ValueError, match="has more than one setting"):
        tool.record(tmp_path / "grid", "grid")
    (tmp_path / "grid" / "search.json").write_text("{}")
    with pytest.raises(ValueError, match="is a search"):
        tool.record(tmp_path / "grid", "grid")
    changed = run_of(0, 0.6) | {"gain": 0.9}
    (tmp_path / "results.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="was changed after it was written"):
        tool.record(tmp_path, "changed")


@pytest.mark.parametrize("path", RECORDED, ids=str)
def test_recorded_results_can_be_repeated_and_name_no_folder_of_one_machine(path):
    found = read(ROOT / path)
    assert '"/' not in json.dumps(found)
    assert found["environment"]["commit"]
