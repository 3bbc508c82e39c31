"""Every config, shrunk to seconds, from the file to results.json."""

import json
import re

import jax
import numpy as np
import pytest
from paths import ROOT
from safetensors.numpy import load_file
from starting import fingerprints, make_pictures, smoke

from kd_jax.experiments.run import run_experiment
from kd_jax.models import registry
from kd_jax.models.weights.formats import torch_files, weight_format

pytestmark = pytest.mark.slow


CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.py"))
IN_CI = (
    "cifar10_resnet56.py",
    "digits_conditioned.py",
    "digits_peers.py",
    "docstrings_hostile.py",
    "sst2_minilm.py",
    "sst2_transfer.py",
)
"""One of each kind; the others take minutes, and `check_shapes` has tests for all of them."""


ENTRY = {
    "teachers",
    "parameters",
    "accuracy",
    "loss",
    "ece",
    "fingerprint",
    "train_seconds",
    "step",
}


ENVIRONMENT = {"jax", "backend", "device_count", "process_count", "commit", "data_fingerprint"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in IN_CI else pytest.mark.soak) for name in CONFIGS],
)
def test_every_config_runs_as_smoke_and_reports_every_promised_key(name, tmp_path):
    config = smoke(name)
    results = run_experiment(config, tmp_path)
    assert results == json.loads((tmp_path / "results.json").read_text())
    assert results["finished"] is True
    teacher = results["compare"]["teacher"]
    assert results["order"].index(teacher) < results["order"].index("student")
    for model in results["models"].values():
        assert model.keys() >= ENTRY
        assert 0 <= model["accuracy"] <= 1
        assert re.fullmatch("sha256:[0-9a-f]{64}", model["fingerprint"])
    assert results["models"]["student"].keys() >= {"agreement", "teacher_kl"}
    registry = results["models"]
    assert results["gain"] == registry["student"]["accuracy"] - registry["baseline"]["accuracy"]
    assert (
        results["compression"]
        == registry[teacher]["parameters"] / registry["student"]["parameters"]
    )
    assert set(results["robustness"]) == (set(registry) if config["evaluations"] else set())
    assert set(results["speedup"]) == {"batch_1", "batch_256"}
    assert results["environment"].keys() >= ENVIRONMENT
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    terms = set(config["models"]["student"]["objective"])
    assert any(terms <= line.keys() for line in logged if line["model"] == "student")


def test_a_finished_run_is_not_run_again(tmp_path):
    first = run_experiment(smoke("digits.py"), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert run_experiment(smoke("digits.py"), tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before


def test_a_float64_run_and_a_float32_run_may_follow_each_other(tmp_path):
    for dtype in ("float64", "float32"):
        run_experiment(smoke("digits.py", dtype=dtype), tmp_path / dtype)
        found = {
            str(leaf.dtype)
            for leaf in load_file(tmp_path / dtype / "student" / "model.safetensors").values()
        }
        assert found == {dtype}


def test_a_finished_run_is_evaluated_on_further_datasets_without_being_trained_again(tmp_path):
    make_pictures(tmp_path / "pictures")
    first = run_experiment(smoke("digits.py"), tmp_path / "run")
    assert (first["evaluations"], first["robustness"]) == ({}, {})
    config = smoke("digits.py")
    pictures = {"name": str(tmp_path / "pictures"), "label_map": {"dark": "0", "bright": None}}
    corruption = {"kind": ("blur", "gaussian_noise"), "severity": (5,)}
    config["evaluations"] = {"same": {}, "pictures": pictures, "digits": {"corruption": corruption}}
    found = run_experiment(config, tmp_path / "run")
    assert fingerprints(found) == fingerprints(first)
    assert set(found["evaluations"]) == {
        "same",
        "pictures",
        "digits_blur_5",
        "digits_gaussian_noise_5",
    }
    for name, model in found["models"].items():
        same = found["evaluations"]["same"][name]
        # What any batch may hold in other rows may differ in the last digits.
        wanted = {
            key: value if value is None else pytest.approx(value, abs=1e-6)
            for key, value in model["metrics"].items()
            if "/" not in key and key in same
        }
        assert {"accuracy", "loss", "ece", "macro_f1"} <= wanted.keys()
        assert same == {"rows": 359, "left_out": 0} | wanted
        assert found["robustness"][name]["in_domain"] == model["accuracy"]
        dark = found["evaluations"]["pictures"][name]
        assert (dark["rows"], dark["left_out"]) == (10, 10)
        assert found["evaluations"]["digits_blur_5"][name]["loss"] != same["loss"]
    pictures["label_map"]["bright"] = "1"
    again = run_experiment(config, tmp_path / "run")
    assert again["evaluations"]["pictures"]["student"]["rows"] == 20


def save_resnet8(path):
    """A CIFAR ResNet with random weights, as a published file; returns its number of parameters."""
    small = dict(
        name="cifar_resnet", num_classes=10, depth=8, stem=4, widths=(4, 8, 8), shortcut="pad"
    )
    variables = registry.build(small).init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    np.savez(path, **weight_format.write(torch_files.AKAMASTER, variables))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_a_published_network_teaches_as_it_is(tmp_path):
    parameters = save_resnet8(tmp_path / "resnet8.npz")
    config = smoke("cifar10_resnet56.py:kd")
    config["models"]["teacher"]["model"] = {"pretrained": str(tmp_path / "resnet8.npz")}
    del config["models"]["teacher"]["objective"]
    # Random weights, which nobody would use but for a test.
    config["models"]["teacher"]["allow_weak"] = True
    results = run_experiment(config, tmp_path / "run")
    assert results["finished"] is True
    assert results["models"]["teacher"]["parameters"] == parameters


def test_a_published_image_network_refuses_texts(tmp_path):
    (tmp_path / "resnet8.npz").write_bytes(b"")
    config = smoke("docstrings.py")
    config["models"]["teacher"]["model"] = {"pretrained": str(tmp_path / "resnet8.npz")}
    with pytest.raises(
        ValueError, match=r"^models\.teacher: .*resnet8\.npz is no npz file of arrays"
    ):
        run_experiment(config, tmp_path / "damaged")
    save_resnet8(tmp_path / "resnet8.npz")
    with pytest.raises(
        ValueError, match=r"^models\.teacher: it reads images and its view gives tokens$"
    ):
        run_experiment(config, tmp_path / "texts")
