import json
from contextlib import closing

import pytest

from kd_jax.core.json_files import read_facts, write_json
from kd_jax.training.metrics_writer import MetricsWriter, write_evaluation
from kd_jax.training.writers import OpenedWriters, Writer


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def steps(workdir, model="student"):
    return [entry["step"] for entry in lines(workdir) if entry["model"] == model]


def train(workdir, start, stop, model="student"):
    """Writes the steps after `start` up to `stop`, as a run resumed at `start` does."""
    with closing(MetricsWriter(workdir, model, resumed_at=start)) as records:
        for step in range(start + 1, stop + 1):
            records.write(step, {"loss": 1 / step, "accuracy": start})


# metrics.jsonl


def test_a_line_is_one_json_object_of_model_step_and_values(tmp_path):
    train(tmp_path, 0, 2)
    assert lines(tmp_path)[1] == {"model": "student", "step": 2, "loss": 0.5, "accuracy": 0}


def test_a_line_can_be_read_as_soon_as_it_is_written(tmp_path):
    with closing(MetricsWriter(tmp_path, "student", resumed_at=0)) as records:
        records.write(1, {"loss": 2.0})
        assert steps(tmp_path) == [1]


def test_a_resumed_run_writes_no_step_twice(tmp_path):
    train(tmp_path, 0, 5)
    train(tmp_path, 3, 6)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert [entry["accuracy"] for entry in lines(tmp_path)] == [0, 0, 0, 3, 3, 3]


def test_a_run_that_starts_again_from_nothing_leaves_no_old_line(tmp_path):
    train(tmp_path, 0, 5)
    train(tmp_path, 0, 2)
    assert steps(tmp_path) == [1, 2]


def test_lines_of_other_models_stay_whatever_their_step(tmp_path):
    train(tmp_path, 0, 5, "teacher")
    train(tmp_path, 0, 3)
    train(tmp_path, 1, 2)
    assert steps(tmp_path, "teacher") == [1, 2, 3, 4, 5]
    assert steps(tmp_path) == [1, 2]


def test_members_of_a_group_write_side_by_side_and_resume_together(tmp_path):
    for start, stop in ((0, 3), (2, 4)):
        with (
            closing(MetricsWriter(tmp_path, "student", resumed_at=start)) as one,
            closing(MetricsWriter(tmp_path, "wide", resumed_at=start)) as other,
        ):
            for step in range(start + 1, stop + 1):
                one.write(step, {"loss": start})
                other.write(step, {"loss": start})
    assert [(entry["model"], entry["step"], entry["loss"]) for entry in lines(tmp_path)] == [
        (model, step, 0 if step < 3 else 2)
        for step in (1, 2, 3, 4)
        for model in ("student", "wide")
    ]


@pytest.mark.parametrize("kept", [1, 10, 40])
def test_a_last_line_that_a_kill_cut_short_is_dropped(tmp_path, kept):
    train(tmp_path, 0, 3)
    path = tmp_path / "metrics.jsonl"
    *whole, last = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole) + last[:kept])
    train(tmp_path, 2, 3)
    assert steps(tmp_path) == [1, 2, 3]


def test_a_last_line_that_lacks_only_its_newline_is_not_glued_to_the_next(tmp_path):
    train(tmp_path, 0, 3)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    train(tmp_path, 3, 4)
    assert steps(tmp_path) == [1, 2, 3, 4]


# The run's writers


class Noting(Writer):
    def __init__(self):
        self.told = []

    def begin(self, model, resumed_at):
        self.told.append(("begin", model, resumed_at))

    def write(self, model, step, values):
        self.told.append((model, step, values))

    def end(self, model):
        self.told.append(("end", model))


@pytest.fixture
def noting():
    return Noting()


@pytest.fixture
def opened(noting):
    writers = OpenedWriters()
    writers.add("noting", noting)
    return writers


def test_the_runs_writers_get_what_the_file_gets(tmp_path, noting, opened):
    with closing(MetricsWriter(tmp_path, "student", resumed_at=3, writers=opened)) as records:
        records.write(4, {"loss": 0.5})
    assert noting.told == [
        ("begin", "student", 3),
        ("student", 4, {"loss": 0.5}),
        ("end", "student"),
    ]
    assert lines(tmp_path) == [{"model": "student", "step": 4, "loss": 0.5}]


# What a finished model reached


def test_what_a_model_reached_stands_in_the_file_and_reaches_the_writers(tmp_path, noting, opened):
    train(tmp_path, 0, 2)
    write_evaluation(tmp_path, "student", 1, {"accuracy": 0.5}, opened)
    named = {"evaluation/accuracy": 0.5}
    assert lines(tmp_path)[-1] == {"model": "student", "step": 1, **named}
    assert noting.told == [("student", 1, named), ("end", "student")]


def test_a_second_evaluation_takes_the_place_of_the_first(tmp_path):
    train(tmp_path, 0, 1)
    for model in ("student", "teacher"):
        for accuracy in (0.25, 0.5):
            write_evaluation(tmp_path, model, 1, {"accuracy": accuracy}, OpenedWriters())
    assert [(line["model"], line.get("evaluation/accuracy")) for line in lines(tmp_path)] == [
        ("student", None),
        ("student", 0.5),
        ("teacher", 0.5),
    ]


def test_a_model_that_is_trained_again_has_reached_nothing_yet(tmp_path):
    train(tmp_path, 0, 5)
    write_evaluation(tmp_path, "student", 2, {"accuracy": 0.5}, OpenedWriters())
    train(tmp_path, 3, 5)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]


# Whole files


def test_json_is_written_into_folders_that_do_not_exist_yet(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json(path, {"z": 1, "a": [None, 0.5]})
    assert json.loads(path.read_text()) == {"z": 1, "a": [None, 0.5]}
    assert list(json.loads(path.read_text())) == ["z", "a"]


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"finished": False})
    with pytest.raises(TypeError):
        write_json(path, {"finished": True, "accuracy": object()})
    assert json.loads(path.read_text()) == {"finished": False}


@pytest.mark.parametrize("content", ["{", "[1]", '"kept"', '{"kept": 3}', '{"teacher": "a"}'])
def test_facts_that_are_not_whole_are_announced_and_taken_for_none(tmp_path, caplog, content):
    file = tmp_path / "facts.json"
    file.write_text(content)
    assert read_facts(file, ("kept", "teacher"), "it is made again") is None
    assert "facts.json can't be read" in caplog.text
    assert caplog.text.rstrip().endswith("; it is made again")


def test_facts_that_are_whole_or_absent_are_read_in_silence(tmp_path, caplog):
    file = tmp_path / "facts.json"
    assert read_facts(file, ("kept",), "it is made again") is None
    write_json(file, {"kept": 3, "more": None})
    assert read_facts(file, ("kept",), "it is made again") == {"kept": 3, "more": None}
    assert not caplog.text
