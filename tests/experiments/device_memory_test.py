"""What lies on the devices while a model is trained: itself, and the teachers that it asks."""

import jax
import pytest

from kd_jax.config.load import load_config, plain
from kd_jax.experiments import train_models
from kd_jax.experiments.run import run_experiment

pytestmark = pytest.mark.slow
STUDENT = dict(name="cnn", widths=(5, 11), batch_norm=False)
TEACHER = dict(name="cnn", widths=(7, 9), batch_norm=False)
"""Of widths that no other test has."""


@pytest.fixture
def kernels(monkeypatch):
    """How many of a teacher's and of a student's kernels are on the devices when each training
    begins."""
    found = []
    train = train_models.train

    def counted(state, **options):
        shapes = [each.shape for each in jax.live_arrays()]
        found.append((shapes.count((3, 3, 7, 9)), shapes.count((3, 3, 5, 11))))
        return train(state, **options)

    monkeypatch.setattr(train_models, "train", counted)
    return found


@pytest.mark.parametrize(
    ("dtype", "cached", "asked"),
    [
        ("float32", [], 1),
        # The step's own copy alone.
        ("bfloat16", [], 1),
        ("float32", ["teacher"], 0),
    ],
)
def test_a_teacher_is_on_the_devices_while_it_is_asked(kernels, tmp_path, dtype, cached, asked):
    config = plain(load_config("digits", smoke=True))
    config["models"]["teacher"] |= dict(model=TEACHER, dtype=dtype)
    config["models"]["student"] |= dict(model=STUDENT, cached=cached)
    config["models"]["baseline"]["model"] = STUDENT
    config["parallel"]["data"] = 1
    run_experiment(config, tmp_path, show=False)
    # Of the student's training, the last one.
    # Its own kernel and two moments; neither its first weights nor the finished baseline.
    assert kernels[-1] == (asked, 3)
