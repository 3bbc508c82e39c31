"""A run that is stopped on one mesh and goes on on another ends with the same weights."""

import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from starting import launch

pytestmark = pytest.mark.slow

CONFIG = [
    "--config=sst2_minilm",
    "--smoke",
    "--config.dtype=float64",
    "--config.training.epochs=12",
    "--config.checkpoint.every_steps=10",
    "--simulate_devices=8",
]
CUT = ["--config.parallel.tensor=2", "--config.parallel.fsdp=2"]
SHARED = ["--config.parallel.fsdp=4"]


def test_a_stopped_run_goes_on_on_another_mesh(tmp_path):
    whole = launch(*CONFIG, f"--workdir={tmp_path / 'whole'}")
    _, errors = whole.communicate(timeout=400)
    assert whole.returncode == 0, errors
    other = f"--workdir={tmp_path / 'other'}"
    first = launch(*CONFIG, *CUT, other)
    metrics, deadline = tmp_path / "other" / "metrics.jsonl", time.monotonic() + 200
    while not (metrics.exists() and "selection/accuracy" in metrics.read_text()):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.02)
    first.terminate()
    _, errors = first.communicate(timeout=200)
    assert first.returncode == 75, errors
    second = launch(*CONFIG, *SHARED, other)
    _, errors = second.communicate(timeout=400)
    assert second.returncode == 0, errors
    assert "resumed at step" in errors
    for model in ("baseline", "teacher", "student"):
        expected, found = (
            load_file(tmp_path / run / model / "model.safetensors") for run in ("whole", "other")
        )
        assert expected.keys() == found.keys()
        for path, value in expected.items():
            np.testing.assert_allclose(found[path], value, rtol=1e-9, atol=1e-9, err_msg=path)
