"""What of `parallel` is refused for the models of an experiment."""

import pytest

from kd_jax.config.load import load_config, plain
from kd_jax.config.overrides import override
from kd_jax.experiments.run import run_experiment


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"tensor": "4"},
            r"parallel.tensor=4 doesn't divide the 2 attention heads of models.teacher; 1, 2 do,"
            r" or parallel.replicated=\('teacher',\)",
        ),
        (
            {"tensor": "2", "replicated": "('teacher', 'student', 'baseline')"},
            "parallel.tensor=2 cuts no parameter of baseline, teacher, student; with"
            " parallel.tensor=1 these devices share the batch",
        ),
        (
            {"replicated": "('pupil',)"},
            "parallel.replicated names 'pupil'; there are baseline, student, teacher",
        ),
    ],
)
def test_a_layout_that_no_model_has_is_refused_before_training(tmp_path, overrides, message):
    config = load_config("sst2_minilm", smoke=True)
    for key, value in overrides.items():
        override(config, f"parallel.{key}", value)
    with pytest.raises(ValueError, match=message):
        run_experiment(plain(config), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*/checkpoints"))
