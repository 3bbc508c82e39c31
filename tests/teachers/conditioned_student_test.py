"""Conditioned students as a run has them: trained, found again, evaluated alone and with the
teacher's output."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from paths import ROOT
from safetensors.numpy import load_file

from kd_jax import export
from kd_jax.config.inherit import inherit
from kd_jax.config.load import load_config, plain
from kd_jax.experiments.plan import make_plan
from kd_jax.experiments.run import run_experiment
from kd_jax.models.weights import load
from kd_jax.tasks import CLASSIFICATION
from kd_jax.training import trained_model

pytestmark = pytest.mark.slow

ROOT = ROOT
ON_POOLED = dict(on="teacher", output="pooled", map="mlp", drop=0.25)


@pytest.fixture(autouse=True)
def prepared_data(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(Path(tempfile.gettempdir()) / "kd_jax-tests-data"))


def smoke(name="digits_conditioned.py", **overrides):
    config = load_config(f"{ROOT / 'configs' / name}:smoke")
    config.update_from_flattened_dict({"parallel.data": 1} | overrides)
    return plain(config)


def scores(entry):
    return [entry[key] for key in ("accuracy", "loss", "ece")]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return run_experiment(smoke(), folder), folder


# Results


def test_results_have_both_and_the_parameters_apart(digits):
    results, _ = digits
    student, plain_one = results["models"]["student"], results["models"]["unconditioned"]
    with_teacher = student["with_teacher"]
    assert set(with_teacher) == {
        "teacher",
        "output",
        "map_parameters",
        "loss",
        *CLASSIFICATION.metrics,
    }
    assert (with_teacher["teacher"], with_teacher["output"]) == ("teacher", "logits")
    assert with_teacher["map_parameters"] == 10 * 64 + 64
    assert student["parameters"] == plain_one["parameters"]
    assert scores(with_teacher) != scores(student)
    assert [name for name in results["models"] if "with_teacher" in results["models"][name]] == [
        "student"
    ]


def test_the_table_is_followed_by_a_line_on_the_student_with_its_teacher(digits, capsys):
    results, folder = digits
    run_experiment(smoke(), folder)
    found = results["models"]["student"]["with_teacher"]
    wanted = (
        f"student with teacher's logits: accuracy {100 * found['accuracy']:.2f} %, loss"
        f" {found['loss']:.4f}, ECE"
    )
    assert wanted in capsys.readouterr().out


def test_the_scores_with_the_teacher_are_found_again_from_what_is_kept(digits, tmp_path):
    """Results deleted, models kept: the map is read from its file."""
    results, folder = digits
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    assert run_experiment(smoke(), tmp_path / "run")["models"] == results["models"]


def test_a_damaged_map_is_made_again_from_the_checkpoint(digits, tmp_path):
    results, folder = digits
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    path = tmp_path / "run" / "student" / "condition.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert trained_model.load(tmp_path / "run" / "student") is None
    again = run_experiment(smoke(), tmp_path / "run")
    assert (
        again["models"]["student"]["with_teacher"] == results["models"]["student"]["with_teacher"]
    )


def test_the_finished_student_is_the_plain_one_and_is_exported_as_such(digits):
    _, folder = digits
    student, plain_one = (
        load_file(folder / name / "model.safetensors") for name in ("student", "unconditioned")
    )
    assert {path: leaf.shape for path, leaf in student.items()} == {
        p: leaf.shape for p, leaf in plain_one.items()
    }
    assert any(not np.array_equal(student[path], plain_one[path]) for path in student)
    exported = export.export(folder, "student", ["kd_jax"])
    _, variables = load.load(exported)
    np.testing.assert_array_equal(
        variables["params"]["classifier"]["kernel"], student["params/classifier/kernel"]
    )


@pytest.mark.parametrize("cached", [(), ("teacher",)], ids=["live", "cached"])
def test_texts_with_a_feature_of_the_teacher(cached, tmp_path):
    config = smoke("docstrings.py")
    config["models"]["student"] |= {"condition": ON_POOLED, "cached": cached}
    results = run_experiment(config, tmp_path)
    student = results["models"]["student"]
    assert scores(student["with_teacher"]) != scores(student)
    assert student["with_teacher"]["map_parameters"] == (16 * 128 + 128) + (128 * 128 + 128)
    assert "condition" in json.loads((tmp_path / "student" / "finished.json").read_text())


# Models of another run


def test_a_restored_student_brings_its_map(digits, tmp_path):
    results, folder = digits
    restored = {f"models.{name}.restore": str(folder / name) for name in ("teacher", "student")}
    again = run_experiment(smoke(**restored), tmp_path)
    assert (
        again["models"]["student"]["with_teacher"] == results["models"]["student"]["with_teacher"]
    )


def test_a_restored_student_of_another_condition_is_refused(digits, tmp_path):
    _, folder = digits
    teacher = {"models.teacher.restore": str(folder / "teacher")}
    config = smoke(**teacher, **{"models.student.restore": str(folder / "student")})
    config["models"]["student"]["condition"]["output"] = "probabilities"
    with pytest.raises(
        ValueError,
        match=r"^models.student: .* condition.output 'logits', here it is 'probabilities'$",
    ):
        run_experiment(config, tmp_path / "output")
    config = smoke(**teacher, **{"models.student.restore": str(folder / "unconditioned")})
    with pytest.raises(
        ValueError, match=r"^models.student: .* condition.output None, here it is 'logits'$"
    ):
        run_experiment(config, tmp_path / "none")
    config = smoke(
        **{"models.student.restore": str(folder / "student")},
        **{"models.teacher.training.epochs": 0.1},
    )
    with pytest.raises(
        ValueError, match=r"^models.student: .* condition.teacher 'sha256:\w+', here it is 'sha256:"
    ):
        run_experiment(config, tmp_path / "teacher")


def test_a_teacher_that_chooses_by_the_label_is_refused(tmp_path):
    config = smoke()
    config["models"]["both"] = {
        "model": dict(
            name="ensemble",
            members=("teacher", "baseline"),
            combine="least_loss",
            weights=None,
            temperatures=None,
        ),
        **{key: config["models"]["teacher"][key] for key in ("view", "dtype")},
    }
    config["models"]["student"]["teachers"] = ("teacher", "both")
    config["models"]["student"]["objective"]["soft"]["source"] = "teacher"
    config["models"]["student"]["condition"]["on"] = "both"
    with pytest.raises(
        ValueError, match=r"^models.student: condition.on names 'both', which chooses by the label"
    ):
        run_experiment(config, tmp_path)


# The section


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "student",
            dict(on="baseline"),
            r"student.condition.on names 'baseline'; its frozen teachers are teacher$",
        ),
        (
            "baseline",
            {},
            r"baseline.condition.on names 'teacher'; its frozen teachers are none \(condition=None"
            r" takes",
        ),
        (
            "student",
            dict(drop=1.0),
            r"student.condition.drop must be a number from 0 to below 1, got 1.0$",
        ),
        ("student", dict(drop=-0.1), r"student.*drop .* got -0.1$"),
        ("student", dict(drop=True), r"student.*drop .* got True$"),
        ("student", dict(drop="half"), r"student.*drop .* got 'half'$"),
        (
            "student",
            dict(temperature=2.0),
            r"student.condition has no option 'temperature'; its options are drop, map",
        ),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(name, options, message):
    config = smoke()
    config["models"][name]["condition"] = (
        dict(on="teacher", output="logits", map="linear", drop=0.5) | options
    )
    with pytest.raises(ValueError, match=rf"^models\.{message}"):
        make_plan(config)


def test_its_own_average_is_no_frozen_teacher():
    config = smoke()
    config["models"]["student"] |= {"teachers": ("teacher", "ema:student"), "ema": {"decay": 0.9}}
    config["models"]["student"]["condition"]["on"] = "ema:student"
    with pytest.raises(
        ValueError, match=r"condition.on names 'ema:student'; its frozen teachers are teacher$"
    ):
        make_plan(config)


def test_a_model_that_is_not_trained_can_not_be_conditioned():
    config = smoke()
    config["models"]["student"] |= {"model": {"pretrained": "there"}, "objective": {}}
    with pytest.raises(
        ValueError,
        match=r"^models.student.condition is learned in training, and the model has no obj",
    ):
        make_plan(config)


def test_like_takes_the_condition_over_and_none_does_not():
    models = {
        "student": {"condition": dict(on="teacher", drop=0.5)},
        "same": {"like": "student"},
        "other": {"like": "student", "condition": None},
    }
    config = inherit(ConfigDict({"models": models}))
    config.models.student.condition.drop = 0.25
    found = {name: section["condition"] for name, section in plain(config)["models"].items()}
    assert found == {
        "student": dict(on="teacher", drop=0.25),
        "same": dict(on="teacher", drop=0.25),
        "other": None,
    }
