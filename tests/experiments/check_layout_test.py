"""What of `parallel` is refused for the models of an experiment."""

from types import SimpleNamespace

import numpy as np
import pytest

from kd_jax.config.load import load_config, plain
from kd_jax.config.overrides import override
from kd_jax.experiments.check_layout import check_layout
from kd_jax.experiments.run import run_experiment
from kd_jax.training.sharding import make_parallel


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


@pytest.mark.parametrize(
    ("head", "size", "told"),
    [
        (dict(predicts="vocabulary", language_head=False), 42, True),
        (dict(predicts="example", language_head=True), 42, True),
        (dict(predicts="vocabulary", language_head=True), 40, False),
        # Of a classifier's vocabulary only the table is there, which is cut along its width.
        (dict(predicts="example", language_head=False), 42, False),
    ],
)
def test_logits_that_each_device_holds_whole_are_told(head, size, told, caplog):
    module = SimpleNamespace(heads=4, vocabulary_size=size, **head)
    plan = SimpleNamespace(members=(), outputs=None)
    table = {"params": {"word_embeddings": {"embedding": np.zeros((size, 16))}}}
    model = SimpleNamespace(plan=plan, network=SimpleNamespace(module=module), variables=table)
    parallel = make_parallel(backend="jit", data=1, fsdp=1, tensor=4)
    with caplog.at_level("WARNING", "kd_jax"):
        check_layout({"student": model}, parallel)
    wanted = [
        f"models.student: parallel.tensor=4 doesn't divide its vocabulary of {size} tokens, so that"
        " each device holds all of its logits; 1, 2, 3 would"
    ]
    assert [record.getMessage() for record in caplog.records] == (wanted if told else [])
