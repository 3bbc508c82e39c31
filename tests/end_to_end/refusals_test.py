"""Whole runs that are refused in one line."""

import pytest
from starting import launch, make_pictures, smoke

from kd_jax.experiments.run import run_experiment

pytestmark = pytest.mark.slow


def test_a_workdir_of_another_config_is_refused_by_the_keys_that_differ(tmp_path):
    run_experiment(smoke("digits.py"), tmp_path)
    with pytest.raises(
        ValueError, match=r"belongs to another config; they differ in .*training\.batch_size"
    ):
        run_experiment(smoke("digits.py", **{"training.batch_size": 16}), tmp_path)


@pytest.mark.parametrize("size", [289, 10**12])
@pytest.mark.parametrize("key", ["training", "models.student.training"])
def test_a_batch_larger_than_the_data_is_refused_at_once(key, size, tmp_path):
    # The baseline, which is like the student, is named first.
    named = key.replace("student", "baseline")
    message = rf"{named}.batch_size {size} is more than the 288 training rows"
    with pytest.raises(ValueError, match=message):
        run_experiment(smoke("digits.py", **{f"{key}.batch_size": size}), tmp_path)
    assert not list(tmp_path.glob("*/checkpoints"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.trainin.epochs=1"], "training"),
        (["--config.training.epochs=many"], "many"),
        (["--config=configs/nothing.py"], "there is no config file 'configs/nothing.py'"),
        (["--config=configs/digits.py:tiny"], "unknown variant 'tiny'"),
        (["--config.data.name=digitz"], "digits"),
        (
            ["--config.models.student.objective.soft.temperature=-1.0"],
            "temperature must be positive, got -1.0",
        ),
        (["--config.training.batch_size=30", "--simulate_devices=4"], "batch_size 30"),
    ],
)
def test_a_refusal_is_one_line_and_an_exit_status(arguments, message, tmp_path):
    process = launch("--config=configs/digits.py:smoke", f"--workdir={tmp_path}", *arguments)
    _, errors = process.communicate(timeout=200)
    assert process.returncode not in (0, 75)
    assert "Traceback" not in errors
    assert message in errors.strip().splitlines()[-1]


def test_a_restored_teacher_of_other_classes_is_refused(tmp_path):
    run_experiment(smoke("digits.py"), tmp_path / "digits")
    make_pictures(tmp_path / "pictures")
    config = smoke(
        "digits.py",
        **{"data.name": str(tmp_path / "pictures"), "view.channels": 1},
        **{
            "models.teacher.restore": str(tmp_path / "digits" / "teacher"),
            "training.batch_size": 4,
        },
    )
    message = (
        r"models.teacher: .*/digits/teacher has class_names \['0', .*'9'\], the"
        r" config \['bright', 'dark'\]"
    )
    with pytest.raises(ValueError, match=message):
        run_experiment(config, tmp_path / "run")


def test_a_term_that_remembers_examples_refuses_mixed_ones(tmp_path):
    config = smoke("cifar10_function_matching.py")
    crd = dict(term="contrastive_representation", weight=0.8, negatives=32, width=16)
    config["models"]["student"]["objective"] = {"crd": crd}
    with pytest.raises(
        ValueError,
        match=r"^models.student: crd remembers each example as it is: training.mixing must",
    ):
        run_experiment(config, tmp_path)


# What only the last model gets wrong


LAST = {
    "a misspelt term": {"models.student.objective.soft.term": "soft_target"},
    "a term without its mapping": {
        "models.student.objective.hint": dict(
            term="hidden_mse", weight=1.0, student="pooled", teacher="pooled"
        )
    },
    "a layer that isn't there": {
        "models.student.objective.hint": dict(
            term="hidden_mse", weight=1.0, student="pool", teacher="pooled", mapping="linear"
        )
    },
    "no such restore": {"models.student.restore": "nowhere"},
    "no such folder of weights": {"models.student.model": {"pretrained": "nowhere"}},
    "an option of another optimizer": {"models.student.training.optimizer.momentum": 0.9},
    "blocks that the start doesn't have": {
        "models.student.model": {"from_model": "teacher", "keep_layers": (0, 7)}
    },
    "an override of what the start fixes": {
        "models.student.model": {"from_model": "teacher", "heads": 1}
    },
}


@pytest.mark.parametrize("change", LAST)
def test_nothing_is_trained_before_the_last_model_is_right(tmp_path, change):
    config = smoke("bert_adam.py" if "start" in change else "digits.py")
    for path, value in LAST[change].items():
        *sections, key = path.split(".")
        section = config
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
    # An unfair comparison would be refused first.
    config["models"]["baseline"]["model"] = config["models"]["student"]["model"]
    with pytest.raises(ValueError, match=r"^models\.(student|baseline)\b"):
        run_experiment(config, tmp_path)
    assert not list(tmp_path.glob("*/checkpoints/*"))
    assert not list(tmp_path.glob("*/finished.json"))
