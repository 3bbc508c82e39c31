import numpy as np
import pytest

from kd_jax.core.types import Sample
from kd_jax.experiments import report
from kd_jax.tasks import make_task

SCORES = {"accuracy": 0.8125, "loss": 0.5, "ece": 0.1}
ENTRY = SCORES | {"teachers": [], "parameters": 10, "train_seconds": 1.0}
FOUND = {
    "experiment": "digits",
    "seed": 0,
    "order": ["teacher", "student"],
    "models": {"teacher": ENTRY, "student": ENTRY | {"accuracy": 0.625}},
    "evaluations": {
        "scans": {
            name: SCORES | {"accuracy": value, "rows": 1200, "left_out": 34}
            for name, value in (("teacher", 0.5), ("student", 0.375))
        },
        "blurred": {
            name: SCORES | {"accuracy": 0.25, "rows": 7, "left_out": 0}
            for name in ("teacher", "student")
        },
    },
    "robustness": {
        name: {
            "in_domain": accuracy,
            "mean": 0.3,
            "worst": 0.25,
            "worst_dataset": "blurred",
            "drop": 0.2,
        }
        for name, accuracy in (("teacher", 0.8125), ("student", 0.625))
    },
    "gain": 0.0,
    "gap_closed": None,
    "compression": 1.0,
    "speedup": {"batch_1": 1.0},
}


def cells(text):
    return [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in text.splitlines()
        if line[0] == "│"
    ]


def test_the_table_of_datasets_begins_in_domain_and_ends_with_the_worst(tmp_path, capsys):
    report.show(FOUND, tmp_path)
    rows = cells(capsys.readouterr().out.partition("by dataset")[2].partition("┏")[2])
    assert rows == [
        ["in domain", "", "", "81.25", "62.50"],
        ["scans", "1,200", "34", "50.00", "37.50"],
        ["blurred", "7", "0", "25.00", "25.00"],
        ["mean of these", "", "", "30.00", "30.00"],
        ["drop from in domain", "", "", "20.00", "20.00"],
        ["worst", "", "", "25.00", "25.00"],
        ["", "", "", "blurred", "blurred"],
    ]


def test_a_run_without_further_datasets_shows_no_such_table(tmp_path, capsys):
    report.show(FOUND | {"evaluations": {}, "robustness": {}}, tmp_path)
    assert "by dataset" not in capsys.readouterr().out


def right_in(rows, count=40):
    right = np.isin(np.arange(count), rows)
    return {"sample": Sample(count, lambda i: float(right[i].mean())), "right": right}


ROLES = {"student": "s", "baseline": "b"}


def test_a_gain_is_trusted_as_far_as_its_rows_go():
    accuracy = make_task("classification")
    scores = {"s": right_in(range(30)), "b": right_in(range(10))}
    found = report.gain_interval(scores, ROLES, accuracy, 0)
    low, high = found["gain_interval"]
    assert 0.3 < low < 0.5 < high < 0.7
    assert found["gain_rows"]["rows"] == 40
    # Twenty rows that only the student has right: 2 / 2^20.
    assert found["gain_rows"]["mcnemar"] == pytest.approx(2 / 2**20)
    assert report.gain_interval(scores, ROLES, accuracy, 0) == found
    # Of an error less is a gain.
    turned = report.gain_interval(scores, ROLES, make_task("regression", "rmse"), 0)
    assert turned["gain_interval"] == pytest.approx([-high, -low], abs=0.02)


def test_without_rows_there_is_no_interval():
    nothing = {"gain_interval": None, "gain_rows": None}
    task = make_task("masked_language_model")
    assert (
        report.gain_interval({"s": {"sample": None}, "b": {"sample": None}}, ROLES, task, 0)
        == nothing
    )
    # Outputs that only a file holds may not cover the evaluation split.
    assert report.gain_interval({"s": right_in([1])} | {"b": {}}, ROLES, task, 0) == nothing


@pytest.mark.parametrize(
    ("interval", "told"),
    [
        ([0.01, 0.03], "95 % interval over 400 rows: +1.00 to +3.00: a gain"),
        ([-0.03, -0.01], "95 % interval over 400 rows: -3.00 to -1.00: a loss"),
        (
            [-0.01, 0.03],
            "95 % interval over 400 rows: -1.00 to +3.00: no difference shown (one of this size"
            " needs about 1,500 rows)",
        ),
    ],
)
def test_a_line_says_whether_a_gain_is_shown(interval, told):
    about = {"rows": 400, "level": 0.95, "needed": 1500}
    assert report.tell_interval(interval, "accuracy", about) == told


def test_a_line_names_the_exact_test_and_seeds():
    about = {"rows": 40, "level": 0.95, "needed": None, "mcnemar": 1.0}
    assert report.tell_interval([0.0, 0.0], "log_loss", about) == (
        "95 % interval over 40 rows: +0.0000 to +0.0000: no difference shown (McNemar's p = 1)"
    )
    about = {"seeds": 3, "level": 0.95, "needed": 9}
    assert "over 3 seeds" in report.tell_interval([-0.1, 0.2], "accuracy", about, "seeds")


# Where a run was made


def test_the_environment_names_the_processor_and_its_widest_vectors(monkeypatch):
    told = "model name\t: Some CPU\nflags\t\t: fpu avx avx2 avx512f\n"
    monkeypatch.setattr(report.Path, "read_text", lambda *_, **__: told)
    assert report.environment("", {})["processor"] == "Some CPU avx512f"

    def missing(*_, **__):
        raise OSError

    monkeypatch.setattr(report.Path, "read_text", missing)
    assert report.environment("", {})["processor"]
