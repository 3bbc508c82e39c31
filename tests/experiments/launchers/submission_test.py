"""Jobs through submitit; what needs it is skipped where it isn't installed."""

import importlib.util
import json
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from paths import ROOT

from kd_jax.experiments.launchers import submission
from kd_jax.experiments.launchers.job import make_job
from kd_jax.experiments.launchers.submission import Command, submit

NEEDS_SUBMITIT = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="submitit isn't installed"
)


@pytest.fixture(autouse=True)
def _signals_as_before():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a shell program in the place of Python: its arguments are `-m kd_jax.cli ...`."""

    def write(text):
        file = tmp_path / "program"
        file.write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        file.chmod(0o755)
        monkeypatch.setattr(submission.sys, "executable", str(file))

    return write


def job(tmp_path, *arguments, workers=None):
    return make_job(arguments, "digits", tmp_path / "run", workers)


class Requeued(Exception):
    pass


def requeue(number, frame):
    raise Requeued


# The command in a job.


def test_a_command_that_ends_well_has_run_as_it_was_given(program, tmp_path):
    program('printf "%s\\n" "$@" > given')
    assert Command(["--config=digits", "--smoke x"])() == 0
    assert (tmp_path / "given").read_text().splitlines() == [
        "-m",
        "kd_jax.cli",
        "--config=digits",
        "--smoke x",
    ]


def test_a_command_that_fails_is_an_error(program):
    program("exit 3")
    with pytest.raises(RuntimeError, match=r"status 3; the job's \.err file says why"):
        Command([])()


def test_status_75_requeues_the_job(program):
    program("exit 75")
    signal.signal(signal.SIGUSR2, requeue)
    with pytest.raises(Requeued):
        Command([])()


def test_who_sends_sigterm_decides_himself_whether_the_job_is_requeued(program, tmp_path):
    program('trap "exit 75" TERM; touch begun; while :; do sleep 0.05; done')
    signal.signal(signal.SIGUSR2, requeue)

    def stop():
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(SystemExit) as caught:
        Command([])()
    assert caught.value.code == 75


@NEEDS_SUBMITIT
def test_a_job_whose_time_is_over_stops_its_command_and_goes_on_by_the_same(program, tmp_path):
    # The signal of the timeout comes to all processes of the job.
    loop = "for i in $(seq 400); do sleep 0.05; done"
    program(f'trap "echo saved > state; exit 75" TERM; touch begun; {loop}')
    command, found = Command(["--smoke"]), []

    def over(number, frame):
        found.append(command.checkpoint())
        raise Requeued

    signal.signal(signal.SIGUSR2, over)

    def stop():
        # The program may begin before the call that starts it returns.
        while not (tmp_path / "begun").exists() or command._child is None:
            time.sleep(0.05)
        os.kill(command._child.pid, signal.SIGUSR2)
        time.sleep(0.2)
        assert command._status is None
        os.kill(os.getpid(), signal.SIGUSR2)

    threading.Thread(target=stop).start()
    with pytest.raises(Requeued):
        command()
    assert (tmp_path / "state").read_text() == "saved\n"
    again = pickle.loads(pickle.dumps(found[0].function))
    assert again.arguments == ("--smoke",)


# Submitting.


def test_without_submitit_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r"^--launcher=slurm needs the extra slurm: uv sync "):
        submit(job(tmp_path), "slurm", {})


@NEEDS_SUBMITIT
@pytest.mark.parametrize(
    ("cluster", "options", "message"),
    [
        ("local", {"partitoin": "gpu"}, r"^--launcher=local: Unknown argument 'partitoin' for "),
        (
            "local",
            {"timeout_min": "soon"},
            r"^--launcher=local: Parameter \"timeout_min\" expected",
        ),
        ("slurm", {}, r"^--launcher=slurm: Could not detect \"srun\""),
        ("local", {"tasks_per_node": 2}, r"^a worker is one process; leave nodes and tasks_per"),
    ],
)
def test_what_submitit_refuses_is_refused_in_one_line(
    tmp_path, monkeypatch, cluster, options, message
):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=message) as caught:
        submit(job(tmp_path, workers=2), cluster, options)
    assert "\n" not in str(caught.value)


@NEEDS_SUBMITIT
def test_a_sweep_is_an_array_that_slurm_requeues(tmp_path, monkeypatch):
    """sbatch and srun are stood in for by programs that keep what they are given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "srun"):
        (folder / name).write_text(
            f"#!/bin/sh\ncp $1 {tmp_path}/given; echo Submitted batch job 12\n"
        )
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    options = {"partition": "gpu", "gpus_per_node": 1, "mem_gb": 8, "cpus_per_task": 4}
    ids = submit(job(tmp_path, workers=3), "slurm", options)
    assert ids == ["12_0", "12_1", "12_2"]
    text = (tmp_path / "given").read_text()
    for line in (
        "--array=0-2%3",
        "--requeue",
        "--signal=USR2@90",
        "--time=240",
        "--partition=gpu",
        "--gpus-per-node=1",
        "--mem=8GB",
        "--cpus-per-task=4",
        "--job-name=kd-jax-digits",
    ):
        assert f"#SBATCH {line}\n" in text
    assert len(list((tmp_path / "run" / "jobs").glob("12_*_submitted.pkl"))) == 3


@NEEDS_SUBMITIT
@pytest.mark.slow
# submitit's jobs outlive the process that submits them.
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_local_workers_of_which_one_is_stopped_and_one_killed_end_a_sweep(tmp_path, monkeypatch):
    import submitit

    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    (tmp_path / "grid.json").write_text(json.dumps({"seeds": [*range(8)]}))
    arguments = ["--config=configs/digits.py:smoke", "--config.models.teacher.model.width=0.0625"]
    arguments += [f"--sweep={tmp_path / 'grid.json'}", f"--workdir={tmp_path / 'run'}"]
    jobs = submit(job(tmp_path, *arguments, workers=3), "local", {"timeout_min": 60})
    queue = tmp_path / "run" / "queue"

    def holders():
        """Run -> pid of who is at work on it now."""
        found = {}
        for file in queue.glob("*/*/claim.json"):
            if not (file.parent / "released.json").exists():
                found[file.parent.parent.name] = json.loads(file.read_text())["pid"]
        return found

    def wait_for(condition):
        deadline = time.monotonic() + 900
        while not (found := condition()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return found

    # The one that trains the teacher is told that its time is over: it is started again.
    pid = wait_for(holders)["seed0"]
    wait_for((tmp_path / "run" / "seed0" / "config.json").exists)
    stopped = next(each for each in jobs if each == str(parent_of(parent_of(pid))))
    os.kill(parent_of(pid), signal.SIGUSR2)
    wait_for(lambda: (queue / "seed0" / "1" / "released.json").exists())
    # One that has begun another run is killed, and its job fails.
    killed, pid = wait_for(lambda: [item for item in holders().items() if item[0] != "seed0"])[0]
    os.kill(pid, signal.SIGKILL)
    done = [submitit.local.local.LocalJob(tmp_path / "run" / "jobs", each) for each in jobs]
    wait_for(lambda: all(each.paths.result_pickle.exists() for each in done))
    results = sorted(str(each.exception() or each.result()).splitlines()[-1][-40:] for each in done)
    assert results[:2] == ["0", "0"]
    assert "kd-jax ended with status -9" in "".join(str(each.exception()) for each in done)
    assert stopped in {each.job_id for each in done if each.exception() is None}
    ended = [path.parent.parent.name for path in queue.glob("*/*/ended.json")]
    assert sorted(ended) == [f"seed{number}" for number in range(8)]
    counts = {path.name: len(list(path.iterdir())) for path in queue.glob("seed*")}
    assert {name for name, count in counts.items() if count == 2} == {"seed0", killed}
    found = json.loads((tmp_path / "run" / "sweep.json").read_text())
    assert found["finished"]
    assert [entry["seed"] for entry in found["runs"]] == [*range(8)]


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
