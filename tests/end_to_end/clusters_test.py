"""Several processes train what one does."""

import re
import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from starting import launch

pytestmark = pytest.mark.slow


def free_port():
    import socket

    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


IMAGES = ["--config=configs/digits.py:smoke", "--config.models.teacher.model.dropout=0.0"]
# The teacher's embeddings, heads and hidden layers are cut over the devices of a process, and over
# those of two.
TEXTS = [
    "--config=configs/sst2_minilm.py:smoke",
    "--config.models.teacher.model.dropout=0.0",
    "--config.models.student.model.dropout=0.0",
    "--config.models.baseline.model.dropout=0.0",
    "--config.parallel.tensor=2",
    "--config.parallel.fsdp=2",
]
JOBS = {
    "jit": (2, [*IMAGES, "--config.parallel.backend=jit"]),
    "pmap": (2, [*IMAGES, "--config.parallel.backend=pmap"]),
    "2 x 2 x 2": (2, TEXTS),
    "2 x 2 x 2, four processes": (4, TEXTS),
}


@pytest.mark.parametrize(
    "job", [each if each == "jit" else pytest.param(each, marks=pytest.mark.soak) for each in JOBS]
)
def test_processes_train_what_one_does(job, tmp_path):
    count, shared = JOBS[job]
    shared = [*shared, "--config.dtype=float64"]
    one = launch(*shared, f"--workdir={tmp_path / 'one'}", "--simulate_devices=8")
    _, errors = one.communicate(timeout=400)
    assert one.returncode == 0, errors
    addresses = [
        f"--coordinator=localhost:{free_port()}",
        f"--num_processes={count}",
        f"--workdir={tmp_path / 'many'}",
        f"--simulate_devices={8 // count}",
    ]
    processes = [launch(*shared, *addresses, f"--process_id={i}") for i in range(count)]
    for process in processes:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
    for model in ("teacher", "student", "baseline"):
        alone, together = (
            load_file(tmp_path / run / model / "model.safetensors") for run in ("one", "many")
        )
        assert alone.keys() == together.keys()
        for path, value in alone.items():
            np.testing.assert_allclose(together[path], value, rtol=1e-9, atol=1e-9, err_msg=path)


def cluster(workdir, epochs, count=2):
    """Some processes, of which the first leads."""
    arguments = [
        "--config=configs/digits.py:smoke",
        f"--config.training.epochs={epochs}",
        "--config.checkpoint.every_steps=5",
        f"--coordinator=localhost:{free_port()}",
        f"--num_processes={count}",
        f"--workdir={workdir}",
        "--simulate_devices=2",
    ]
    return [launch(*arguments, f"--process_id={i}") for i in range(count)]


def started(workdir, epochs, count=2):
    """A cluster that is training."""
    members = cluster(workdir, epochs, count)
    metrics = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not metrics.exists() or metrics.stat().st_size == 0:
        assert time.monotonic() < deadline
        assert all(each.poll() is None for each in members)
        time.sleep(0.1)
    return members


@pytest.mark.parametrize(
    ("count", "killed"), [(2, 0), (4, 0), pytest.param(4, 2, marks=pytest.mark.soak)]
)
def test_processes_of_which_one_was_killed_end_with_one_line(tmp_path, count, killed):
    members = started(tmp_path / "run", epochs=2000, count=count)
    lost = members.pop(killed)
    lost.kill()
    for member in members:
        _, errors = member.communicate(timeout=200)
        assert member.returncode == 75, errors
        assert errors.splitlines()[-1].startswith("a process of the cluster is gone")
        assert not re.search(r"^[EF]\d{4} |GRPC", errors, re.MULTILINE)
        assert "stack trace" not in errors
    lost.communicate(timeout=60)


@pytest.mark.soak
@pytest.mark.parametrize("count", [2, 4])
def test_a_cluster_goes_on_after_a_kill_to_the_same_weights(tmp_path, count):
    workdir = tmp_path / "killed"
    members = started(workdir, epochs=12, count=count)
    while not [*workdir.glob("*/checkpoints/[0-9]*")]:
        assert all(each.poll() is None for each in members)
        time.sleep(0.05)
    members[0].kill()
    for member in members:
        member.communicate(timeout=200)
    assert [each.returncode for each in members[1:]] == [75] * (count - 1)
    for run in (workdir, tmp_path / "alone"):
        for member in cluster(run, 12, count):
            _, errors = member.communicate(timeout=400)
            assert member.returncode == 0, errors
    for model in ("teacher", "student", "baseline"):
        resumed, alone = (
            load_file(tmp_path / run / model / "model.safetensors") for run in ("killed", "alone")
        )
        for path, value in alone.items():
            np.testing.assert_array_equal(resumed[path], value, err_msg=path)


def test_sigterm_to_a_process_of_a_cluster_stops_all_with_their_state_saved(tmp_path):
    pair = started(tmp_path / "run", epochs=2000)
    pair[1].terminate()
    for process in pair:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 75, errors
        assert "resume" in errors.splitlines()[-1] or "same command" in errors, errors


@pytest.mark.soak
def test_processes_of_which_each_has_a_folder_of_its_own_are_refused(tmp_path):
    port = free_port()
    members = [
        launch(
            "--config=configs/digits.py:smoke",
            f"--coordinator=localhost:{port}",
            "--num_processes=2",
            f"--process_id={number}",
            f"--workdir={tmp_path / str(number)}",
            "--simulate_devices=1",
        )
        for number in range(2)
    ]
    for member in members:
        _, errors = member.communicate(timeout=200)
        assert member.returncode not in (0, 75), errors
        assert "isn't one folder for all 2 processes" in errors.splitlines()[-1], errors
    assert not [*tmp_path.glob("*/*/checkpoints")]


def test_a_cluster_tells_whether_a_job_fits(tmp_path):
    port = free_port()
    members = [
        launch(
            "--config=configs/digits.py:smoke",
            "--stage=fit",
            f"--coordinator=localhost:{port}",
            "--num_processes=2",
            f"--process_id={number}",
            "--simulate_devices=1",
        )
        for number in range(2)
    ]
    for member in members:
        found, errors = member.communicate(timeout=200)
        assert member.returncode == 0, errors
        assert "it fits" in found + errors
