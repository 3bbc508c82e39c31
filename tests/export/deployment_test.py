"""From training to deployment: a student that a run has trained, exported, predicts as the run
measured it."""

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT
from PIL import Image
from safetensors.numpy import load_file

from kd_jax.config.load import load_config, plain
from kd_jax.data.run_datasets import Datasets
from kd_jax.experiments.run import run_experiment
from kd_jax.export import export, predict

pytestmark = pytest.mark.slow

ROOT = ROOT
SGD = {
    "name": "sgd",
    "learning_rate": 1e-30,
    "weight_decay": 0.0,
    "momentum": 0.0,
    "clip_norm": 1.0,
}


@pytest.fixture(autouse=True)
def prepared_data(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(Path(tempfile.gettempdir()) / "kd_jax-tests-data"))


def smoke(name):
    config = load_config(f"{ROOT / 'configs' / name}:smoke")
    config.update_from_flattened_dict({"parallel.data": 1})
    return plain(config)


def accuracy(workdir, path, source):
    output = io.StringIO()
    predict.predict(workdir, path, output)
    labels = [json.loads(line)["label"] for line in output.getvalue().splitlines()]
    return np.mean(
        [source.class_names[i] == label for i, label in zip(source.labels, labels, strict=True)]
    )


def test_an_exported_text_student_is_as_accurate_as_its_run_says(tmp_path):
    config = smoke("bert_adam.py")
    results = run_experiment(config, tmp_path / "run")
    source = Datasets(config["data"], {}).splits["evaluation"]
    with (tmp_path / "texts.jsonl").open("w") as file:
        for text in source.inputs:
            file.write(json.dumps({"text": text}) + "\n")
    export(tmp_path / "run", formats=["kd_jax", "stablehlo"])
    found = accuracy(tmp_path / "run", tmp_path / "texts.jsonl", source)
    assert found == pytest.approx(results["models"]["student"]["accuracy"], abs=1e-9)


def test_an_exported_image_student_is_as_accurate_as_its_run_says(tmp_path):
    config = smoke("digits.py")
    results = run_experiment(config, tmp_path / "run")
    source = Datasets(config["data"], {}).splits["evaluation"]
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(source.inputs):
        Image.fromarray(image[..., 0]).save(tmp_path / "pictures" / f"{i:04}.png")
    export(tmp_path / "run", formats=["kd_jax"])
    found = accuracy(tmp_path / "run", tmp_path / "pictures", source)
    assert found == pytest.approx(results["models"]["student"]["accuracy"], abs=1e-9)


def test_a_student_can_start_from_blocks_of_its_teacher(tmp_path):
    config = smoke("bert_adam.py")
    teacher = config["models"]["teacher"]["model"]
    config["models"]["teacher"]["model"] = teacher | {"layers": 3}
    for name in ("student", "baseline"):
        config["models"][name]["model"] = {"from_model": "teacher", "keep_layers": (0, 2)}
        config["models"][name]["training"]["epochs"] = 1e-9  # One step of the smallest rate.
        config["models"][name]["training"]["optimizer"] = SGD
    results = run_experiment(config, tmp_path)
    assert results["order"][0] == "teacher"
    theirs, ours = (
        load_file(tmp_path / name / "model.safetensors") for name in ("teacher", "baseline")
    )
    for block, source in (("block_0", "block_0"), ("block_1", "block_2")):
        name = "qkv/kernel"
        np.testing.assert_array_equal(
            ours[f"params/{block}/{name}"], theirs[f"params/{source}/{name}"]
        )
    assert not any(name.startswith("params/block_2") for name in ours)


def launch(*arguments):
    command = [sys.executable, str(ROOT / "launch.py"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )


def test_the_stages_refuse_in_one_line(tmp_path):
    for arguments, message in (
        (
            ("--stage=export",),
            "error: --stage=export needs --workdir, the folder of a finished run",
        ),
        (
            ("--stage=export", f"--workdir={tmp_path}"),
            f"error: {tmp_path} is no run's folder: it has no config.json",
        ),
        (
            ("--stage=predict", f"--workdir={tmp_path}"),
            "error: --stage=predict needs --input, a file or a folder",
        ),
        (
            ("--stage=predict", f"--workdir={tmp_path}", "--input=x.txt"),
            f"error: {tmp_path} has no export; make one with: launch.py --stage=export"
            f" --workdir={tmp_path}",
        ),
    ):
        ended = launch(*arguments)
        assert ended.returncode == 1
        assert ended.stderr.splitlines()[-1].startswith(message)
        assert "Traceback" not in ended.stderr
