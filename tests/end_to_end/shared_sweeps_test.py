"""Processes share a sweep in a folder, also where one of them is killed or stopped."""

import json
import os
import re
import signal
import time

import pytest
from starting import launch

pytestmark = pytest.mark.slow


def start(tmp_path, spec, *more, flags=("--join",)):
    file = tmp_path / "sweep_file.json"
    file.write_text(json.dumps(spec))
    return launch(
        "--config=configs/digits.py:smoke",
        "--config.parallel.data=1",
        "--config.models.teacher.model.width=0.0625",
        f"--sweep={file}",
        f"--workdir={tmp_path / 'sweep'}",
        *flags,
        *more,
        environment={"JAX_NUM_CPU_DEVICES": "1"},
    )


def read(path):
    """The content of a JSON file; nothing before it is there."""
    return json.loads(path.read_text()) if path.exists() else {}


def claims(tmp_path):
    """Run -> its claims in order, each with what became of it."""
    found = {}
    for file in sorted((tmp_path / "sweep" / "queue").glob("*/*/claim.json")):
        folder = file.parent
        ended = (folder / "ended.json").exists() and (folder / "released.json").exists()
        found.setdefault(folder.parent.name, []).append(read(file) | {"ended": ended})
    return found


def wait_for(tmp_path, processes, holds):
    """Waits until a run is claimed by a process that it returns, with the run's name."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        for run, each in claims(tmp_path).items():
            holder = next((p for p in processes if p.pid == each[-1]["pid"]), None)
            if holder is not None and not each[-1]["ended"] and holds(run):
                return holder, run
        # A worker may end well only after all runs.
        assert all(each.poll() is None for each in processes)
        time.sleep(0.05)
    raise AssertionError("no run was claimed")


def test_three_workers_of_which_one_is_killed_do_each_of_eight_runs_once(tmp_path):
    spec = {"seeds": [*range(8)]}
    workers = [start(tmp_path, spec) for _ in range(3)]
    killed, run = wait_for(tmp_path, workers, lambda run: run != "seed0")
    # It trains: its folder is locked and described.
    while not (tmp_path / "sweep" / run / "config.json").exists():
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "sweep" / run / "results.json").exists()
    others = [each for each in workers if each is not killed]
    told = [each.communicate(timeout=900) for each in others]
    assert [each.returncode for each in others] == [0, 0], told
    found = claims(tmp_path)
    assert sorted(found) == [f"seed{number}" for number in range(8)]
    # Each run has ended once; the killed worker's alone was claimed again, by another one.
    assert [sum(each["ended"] for each in found[name]) for name in found] == [1] * 8
    assert {name: len(each) for name, each in found.items() if len(each) > 1} == {run: 2}
    assert found[run][0]["pid"] == killed.pid != found[run][1]["pid"]
    assert any(f"{run} is taken over: process {killed.pid} on" in errors for _, errors in told)
    summary = read(tmp_path / "sweep" / "sweep.json")
    assert summary["finished"]
    assert [entry["seed"] for entry in summary["runs"]] == spec["seeds"]
    for entry in summary["runs"]:
        results = read(tmp_path / "sweep" / f"seed{entry['seed']}" / "results.json")
        assert entry["gain"] == results["gain"]
    assert len((tmp_path / "sweep" / "sweep.csv").read_text().splitlines()) == 1 + 8 * 3
    assert (tmp_path / "sweep" / "report.html").is_file()


def test_a_stopped_worker_gives_its_run_back_and_a_process_alone_is_refused(tmp_path):
    # So long that nobody finishes.
    long = ("--config.training.epochs=4000.0", "--config.checkpoint.every_steps=10")
    worker = start(tmp_path, {"seeds": [0]}, *long)
    wait_for(tmp_path, [worker], lambda run: run == "seed0")
    alone = start(tmp_path, {"seeds": [0]}, *long, flags=())
    _, errors = alone.communicate(timeout=200)
    assert alone.returncode == 1
    assert errors.splitlines()[-1] == (f"error: another process is at work in {tmp_path / 'sweep'}")
    other = start(tmp_path, {"seeds": [1]}, *long)
    _, errors = other.communicate(timeout=200)
    assert other.returncode == 1
    assert "belongs to another config; they differ in sweep.seeds; give" in errors.splitlines()[-1]
    while not list((tmp_path / "sweep" / "seed0").glob("*/checkpoints/[0-9]*")):
        assert worker.poll() is None
        time.sleep(0.1)
    os.kill(worker.pid, signal.SIGTERM)
    _, errors = worker.communicate(timeout=100)
    assert worker.returncode == 75, errors
    assert re.search(r"stopped at step \d+ of \d+; the same command resumes it", errors)
    (claim,) = claims(tmp_path)["seed0"]
    assert not claim["ended"]
    assert (tmp_path / "sweep" / "queue" / "seed0" / "1" / "released.json").exists()
    assert not list((tmp_path / "sweep" / "queue" / ".workers").iterdir())
