"""Tables and folders of the user's own, from the file to results.json."""

import json

import pytest
from starting import make_pictures, smoke

from kd_jax.experiments.run import run_experiment

pytestmark = pytest.mark.slow


def test_a_table_of_the_users_own_runs_and_its_bad_rows_are_listed(tmp_path):
    rows = [
        f'"{word} {number} times",{label}\n'
        for number in range(40)
        for word, label in (("good", "up"), ("bad", "down"), ("so so", "level"))
    ]
    table = tmp_path / "reviews.csv"
    table.write_bytes(b"text,label\n" + "".join(rows).encode() + b'"\xff\xfe",up\n')
    data = {
        "data.name": str(table),
        "data.train": "train[:80%]",
        "data.selection": "train[80%:90%]",
        "data.evaluation": "train[90%:]",
    }
    with pytest.raises(ValueError, match="max_rejected"):
        run_experiment(smoke("docstrings.py", **data), tmp_path / "refused")
    results = run_experiment(
        smoke("docstrings.py", **data, **{"data.max_rejected": 1}), tmp_path / "run"
    )
    assert results["rejected"] == 1
    assert "UTF-8" in json.loads((tmp_path / "run" / "rejected.jsonl").read_text())["reason"]


def test_rows_without_a_label_teach_students_and_nobody_else(tmp_path, caplog):
    table = tmp_path / "reviews.csv"
    rows = [
        f"{word} {number} times,{label if number % 4 else ''}\n"
        for number in range(80)
        for word, label in (("good", "up"), ("bad", "down"))
    ]
    table.write_text("text,label\n" + "".join(rows))
    data = {
        "data.name": str(table),
        "data.train": "train[:80%]",
        "data.selection": "train[80%:90%]",
        "data.evaluation": "train[90%:]",
    }
    config = smoke("docstrings.py", **data)
    with caplog.at_level("INFO"):
        results = run_experiment(config, tmp_path / "run")
    assert results["unlabelled"] > 20
    assert f"{results['unlabelled']} of the training rows have no label" in caplog.text
    assert results["rejected"] == 0
    # Where nobody has a teacher, such a row is of no use.
    labels = config["models"]["baseline"]["objective"]
    config["models"]["student"] |= {"teachers": (), "cached": (), "objective": labels}
    with pytest.raises(ValueError, match="missing label in column 'label'"):
        run_experiment(config, tmp_path / "labels")


def test_hostile_rows_of_the_users_own_are_repaired_or_quarantined_and_counted(tmp_path):
    rows = [
        f"{word} {number} times,{label}\n"
        for number in range(40)
        for word, label in (("good", "up"), ("bad", "down"))
    ]
    hostile = [
        "<b>fine</b>,up\n",
        "b\u0430d b\u0430d,down\n",
        "GOOD 0 times,up\n",
        "Good 1 Times,down\n",
        f"{'x' * 30_000},up\n",
    ]
    held_out = "text,label\nsomething else,up\nentirely,down\n"
    (tmp_path / "reviews").mkdir()
    for split, content in (
        ("train", rows + hostile),
        ("selection", [held_out]),
        ("evaluation", [held_out]),
    ):
        (tmp_path / "reviews" / f"{split}.csv").write_text(
            "".join(["text,label\n"] * (split == "train") + content)
        )
    data = {
        "data.name": str(tmp_path / "reviews"),
        "data.train": "train",
        "data.selection": "selection",
        "data.evaluation": "evaluation",
    }
    results = run_experiment(smoke("docstrings.py", **data), tmp_path / "run")
    assert results["cleaning"] == {
        "mode": "repair",
        "rows": 85,
        "kept": 81,
        "repaired": {"markup": 1, "mixed_scripts": 1},
        "quarantined": {"conflicting_labels": 2, "duplicate": 1, "too_long": 1},
    }
    entries = [
        json.loads(line)
        for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    ]
    assert {entry["row"] for entry in entries} - {2, 84} == {
        4,
        85,
        86,
    }  # Of 2 and 84, equal rows, one is kept.
    assert all(entry.keys() >= {"dataset", "row", "reasons", "value"} for entry in entries)


def test_a_folder_of_the_users_own_pictures_runs(tmp_path):
    make_pictures(tmp_path / "pictures")
    config = smoke(
        "digits.py",
        **{"data.name": str(tmp_path / "pictures"), "view.channels": 3, "training.batch_size": 8},
    )
    assert run_experiment(config, tmp_path / "run")["models"]["student"]["accuracy"] >= 0
