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


@pytest.mark.parametrize("backend", ["jit", pytest.param("pmap", marks=pytest.mark.soak)])
def test_two_processes_train_what_one_does(backend, tmp_path):
    shared = [
        "--config=configs/digits.py:smoke",
        "--config.dtype=float64",
        f"--config.parallel.backend={backend}",
        "--config.models.teacher.model.dropout=0.0",
    ]
    one = launch(*shared, f"--workdir={tmp_path / 'one'}", "--simulate_devices=8")
    _, errors = one.communicate(timeout=400)
    assert one.returncode == 0, errors
    port = free_port()
    cluster = [
        f"--coordinator=localhost:{port}",
        "--num_processes=2",
        f"--workdir={tmp_path / 'two'}",
    ]
    pair = [launch(*shared, *cluster, f"--process_id={i}", "--simulate_devices=4") for i in (0, 1)]
    for process in pair:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
    for model in ("teacher", "student", "baseline"):
        alone, together = (
            load_file(tmp_path / run / model / "model.safetensors") for run in ("one", "two")
        )
        assert alone.keys() == together.keys()
        for path, value in alone.items():
            np.testing.assert_allclose(together[path], value, rtol=1e-9, atol=1e-9, err_msg=path)


def started(port, workdir, epochs):
    """Two processes, of which the first leads; returns them once both are training."""
    arguments = [
        "--config=configs/digits.py:smoke",
        f"--config.training.epochs={epochs}",
        "--config.checkpoint.every_steps=5",
        f"--coordinator=localhost:{port}",
        "--num_processes=2",
        f"--workdir={workdir}",
        "--simulate_devices=2",
    ]
    pair = [launch(*arguments, f"--process_id={i}") for i in (0, 1)]
    metrics = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not metrics.exists() or metrics.stat().st_size == 0:
        assert time.monotonic() < deadline
        assert all(each.poll() is None for each in pair)
        time.sleep(0.1)
    return pair


def test_processes_whose_first_one_was_killed_end_with_one_line_and_are_resumed(tmp_path):
    first, second = started(free_port(), tmp_path / "run", epochs=2000)
    first.kill()
    _, errors = second.communicate(timeout=200)
    assert second.returncode == 75
    assert errors.splitlines()[-1].startswith("the cluster's first process is gone")
    assert not re.search(r"^[EF]\d{4} ", errors, re.MULTILINE)
    assert "stack trace" not in errors
    first.communicate(timeout=60)


def test_sigterm_to_a_process_of_a_cluster_stops_all_with_their_state_saved(tmp_path):
    pair = started(free_port(), tmp_path / "run", epochs=2000)
    pair[1].terminate()
    for process in pair:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 75, errors
        assert "resume" in errors.splitlines()[-1] or "same command" in errors, errors
