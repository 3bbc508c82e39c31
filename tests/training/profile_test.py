"""Steps that are profiled, and where the profile lies."""

import gzip
import json
import logging

import jax
import jax.numpy as jnp
import pytest

from kd_jax.training.profile import ProfiledSteps, ProfiledTraining


@pytest.mark.parametrize(
    "text", ["15:10", "x", "10", "0:5", "1:2:3", "-1:5", "1.5:3", "", ":", "5:"]
)
def test_what_are_no_steps_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r"^profile must be FIRST:LAST, two steps from 1 on .*"):
        ProfiledSteps.parse(text)


def test_one_step_can_be_profiled():
    assert ProfiledSteps.parse("3:3") == ProfiledSteps(3, 3)


def test_steps_beyond_the_last_are_refused_by_the_models_name():
    ProfiledSteps(10, 15).check("student", 15)
    message = r"^profile=10:15 ends beyond the last step of models.student, 14$"
    with pytest.raises(ValueError, match=message):
        ProfiledSteps(10, 15).check("student", 14)


@pytest.fixture
def traces(monkeypatch):
    """What is asked of the profiler, and the steps that are taken meanwhile."""
    told = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: told.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: told.append("stop"))
    return told


def take(told, steps, *, resumed_at, last, folder):
    def advance(state, batch):
        told.append(batch)
        return state, {}

    training = ProfiledTraining(advance, steps, folder, name="student", resumed_at=resumed_at)
    for step in range(resumed_at + 1, last + 1):
        training(None, step)
    training.close()


@pytest.mark.parametrize(
    ("resumed_at", "last", "expected"),
    [
        (0, 6, [1, 2, "start", 3, 4, "stop", 5, 6]),
        (3, 5, ["start", 4, "stop", 5]),  # Resumed in the middle.
        (0, 3, [1, 2, "start", 3, "stop"]),  # Interrupted in the middle.
        (0, 2, [1, 2]),
        (4, 6, [5, 6]),
    ],
)
def test_exactly_these_steps_are_profiled(traces, tmp_path, resumed_at, last, expected):
    take(traces, ProfiledSteps(3, 4), resumed_at=resumed_at, last=last, folder=tmp_path)
    assert traces == expected


def test_one_line_says_where_it_is_and_one_that_there_is_none(traces, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        take(traces, ProfiledSteps(1, 2), resumed_at=0, last=2, folder=tmp_path)
        take(traces, ProfiledSteps(1, 2), resumed_at=2, last=3, folder=tmp_path)
    first, second = (record.message for record in caplog.records)
    assert first.startswith(f"student: profile of steps 1 to 2 in {tmp_path}; ")
    assert second == "student: no profile, as step 2 is behind it"


def test_other_processes_take_the_steps_and_profile_nothing(traces, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    take(traces, ProfiledSteps(1, 2), resumed_at=0, last=2, folder=tmp_path)
    assert traces == [1, 2]


def test_the_file_that_perfetto_opens_holds_the_steps(tmp_path):
    step = jax.jit(lambda state, batch: (state + batch, {}))
    training = ProfiledTraining(step, ProfiledSteps(2, 3), tmp_path, name="student", resumed_at=0)
    state = jnp.zeros(4)
    for _ in range(4):
        state, _metrics = training(state, jnp.ones(4))
    (file,) = tmp_path.glob("plugins/profile/*/*.trace.json.gz")
    with gzip.open(file) as opened:
        events = json.load(opened)["traceEvents"]
    steps = [event["args"]["step_num"] for event in events if event.get("name") == "train"]
    assert steps == ["2", "3"]
