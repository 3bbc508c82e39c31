"""Runs that are stopped, killed or out of disk end as if nothing had happened."""

import json
import re
import signal
import time

import pytest
from starting import fingerprints, launch, launched, scores_with_teacher, smoke

from kd_jax.experiments.run import run_experiment
from kd_jax.training.interruption import Interrupted, StopSignal

pytestmark = pytest.mark.slow


TWICE = [False] * 3 + [True] + [False] * 5 + [True]


IN_THE_STUDENT = [False] * 10 + [True]


@pytest.mark.parametrize(
    ("name", "stop_requests"),
    [
        ("digits.py", TWICE),
        pytest.param("docstrings.py", TWICE, marks=pytest.mark.soak),
        pytest.param(
            "digits_conditioned.py", IN_THE_STUDENT, marks=pytest.mark.soak
        ),  # The map of the condition.
        pytest.param("digits_peers.py", TWICE, marks=pytest.mark.soak),
        ("cifar10_resnet56.py:crd", IN_THE_STUDENT),  # Banks and embeddings of the loss.
        pytest.param(
            "cifar10_resnet56.py:factor_transfer", IN_THE_STUDENT, marks=pytest.mark.soak
        ),  # Networks of the loss.
    ],
)
def test_a_run_stopped_by_sigterm_ends_as_if_it_had_not_been(
    name, stop_requests, tmp_path, monkeypatch
):
    config = smoke(name, **{"checkpoint.every_steps": 2})
    alone = run_experiment(config, tmp_path / "alone")
    asked = iter(stop_requests)
    monkeypatch.setattr(StopSignal, "asked", lambda _self, **_: next(asked, False))
    stops = 0
    while True:
        try:
            resumed = run_experiment(config, tmp_path / "stopped")
            break
        except Interrupted:
            stops += 1
    assert stops == sum(stop_requests)
    assert fingerprints(resumed) == fingerprints(alone)
    assert scores_with_teacher(resumed) == scores_with_teacher(alone)
    lines = [
        json.loads(line)
        for line in (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()
    ]
    keys = [(line["model"], line["step"], tuple(sorted(line))) for line in lines]
    assert len(keys) == len(set(keys))


def started(workdir):
    """Starts a run that would take minutes, and returns it once it trains."""
    arguments = ["--config=configs/digits.py:smoke", "--config.training.epochs=4000.0"]
    arguments += [f"--workdir={workdir}", "--config.checkpoint.every_steps=10"]
    process = launch(*arguments, "--config.parallel.data=1")
    while process.poll() is None and not list(workdir.glob("*/checkpoints/10")):
        time.sleep(0.1)
    return process


def test_ctrl_c_saves_says_so_in_two_lines_and_can_be_resumed(tmp_path):
    process = started(tmp_path)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    first, second = errors.strip().splitlines()[-2:]
    assert first.endswith("stopping after this step, with all saved; Ctrl-C again ends at once")
    assert re.fullmatch(r"stopped at step \d+ of \d+; the same command resumes it", second)
    stopped = int(second.split()[3])
    (folder,) = tmp_path.glob("*/checkpoints")
    assert (folder / str(stopped)).is_dir()


def test_ctrl_c_twice_ends_at_once_in_one_line_more(tmp_path):
    process = started(tmp_path)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    if process.returncode == 75:
        pytest.skip("it had saved before the second signal came")
    assert process.returncode == -signal.SIGINT, errors
    assert time.monotonic() - began < 10
    assert "Traceback" not in errors
    assert errors.strip().splitlines()[-1] == "interrupted; what was saved stays"


@pytest.mark.soak
def test_a_killed_process_resumes_to_the_same_fingerprints(tmp_path):
    overrides = {
        "training.epochs": 4.0,
        "models.teacher.training.epochs": 4.0,
        "checkpoint.every_steps": 10,
    }
    shared = [f"--config.{key}={value}" for key, value in overrides.items()]
    shared += ["--config=configs/digits.py:smoke", "--config.parallel.data=1"]
    alone = launched(*shared, f"--workdir={tmp_path / 'alone'}")
    arguments = [*shared, f"--workdir={tmp_path / 'killed'}"]
    killed = launch(*arguments, environment={"JAX_NUM_CPU_DEVICES": "8"})
    checkpoints = tmp_path / "killed" / "teacher" / "checkpoints"
    while killed.poll() is None and not (checkpoints / "20").exists():
        pass
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / "results.json").exists()
    resumed = launch(*arguments, environment={"JAX_NUM_CPU_DEVICES": "8"})
    _, errors = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, errors
    assert "resumed at step" in errors
    assert fingerprints(
        json.loads((tmp_path / "killed" / "results.json").read_text())
    ) == fingerprints(alone)


@pytest.mark.soak
def test_a_full_disk_ends_a_run_in_one_line_and_loses_nothing(tmp_path):
    """Files may not grow beyond what the baseline's checkpoints need; the teacher's are larger."""
    arguments = [
        "--config=configs/digits.py:smoke",
        f"--workdir={tmp_path / 'run'}",
        "--config.parallel.data=1",
        "--config.models.teacher.model.width=0.25",
    ]
    environment = {"JAX_NUM_CPU_DEVICES": "8"}
    full = launch(
        *arguments, environment=environment, after="ulimit -f 488"
    )  # Blocks of 1,024 bytes.
    _, errors = full.communicate(timeout=200)
    assert full.returncode not in (0, 75)
    assert "Traceback" not in errors
    assert re.search(
        r"error: a checkpoint could not be written to .*/teacher/checkpoints: .*File too large.*;"
        r" last good: none$",
        errors.strip().splitlines()[-1],
    )
    again = launch(*arguments, environment=environment)
    _, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    alone = launched(arguments[0], f"--workdir={tmp_path / 'alone'}", *arguments[2:])
    assert fingerprints(
        json.loads((tmp_path / "run" / "results.json").read_text())
    ) == fingerprints(alone)
