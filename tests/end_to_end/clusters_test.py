"""Several processes train what one does."""

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
