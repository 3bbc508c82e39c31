"""Every config, shrunk to seconds, from the file to results.json; resumed, found finished, or
refused."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from paths import ROOT
from safetensors.numpy import load_file

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.run import run_experiment
from kd_jax.models import registry
from kd_jax.models.weights.formats import torch_files, weight_format
from kd_jax.training.interruption import Interrupted, StopSignal

pytestmark = pytest.mark.slow

ROOT = ROOT
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.py"))
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


@pytest.fixture(autouse=True)
def prepared_data(monkeypatch):
    """One folder for all tests and all starts: preparing the docstrings takes half a minute."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(Path(tempfile.gettempdir()) / "kd_jax-tests-data"))


def smoke(name, **overrides):
    file, _, variant = name.partition(":")
    config = load_config(f"{ROOT / 'configs' / file}:{variant and variant + ','}smoke")
    config.update_from_flattened_dict({"parallel.data": 1} | overrides)
    return plain(config)


def fingerprints(results):
    return {name: model["fingerprint"] for name, model in results["models"].items()}


def scores_with_teacher(results):
    return {name: model.get("with_teacher") for name, model in results["models"].items()}


def launch(*arguments, environment=None, after="true"):
    """Starts launch.py in a process of its own, after a shell command."""
    cache = f"--compilation_cache={Path(tempfile.gettempdir()) / 'kd_jax-tests-compiled'}"
    command = [
        "bash",
        "-c",
        f'{after}; exec "$@"',
        "_",
        sys.executable,
        str(ROOT / "launch.py"),
        cache,
        *arguments,
    ]
    variables = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"} | (
        environment or {}
    )
    return subprocess.Popen(
        command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def launched(*arguments):
    """The results of a run that nobody disturbs, started like those that are: the launcher chooses
    XLA's libraries."""
    process = launch(*arguments, environment={"JAX_NUM_CPU_DEVICES": "8"})
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    workdir = next(
        argument for argument in arguments if argument.startswith("--workdir=")
    ).partition("=")[2]
    return json.loads((Path(workdir) / "results.json").read_text())


@pytest.mark.parametrize("name", CONFIGS)
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


def test_a_workdir_of_another_config_is_refused_by_the_keys_that_differ(tmp_path):
    run_experiment(smoke("digits.py"), tmp_path)
    with pytest.raises(
        ValueError, match=r"belongs to another config; they differ in .*training\.batch_size"
    ):
        run_experiment(smoke("digits.py", **{"training.batch_size": 16}), tmp_path)


TWICE = [False] * 3 + [True] + [False] * 5 + [True]
IN_THE_STUDENT = [False] * 10 + [True]


@pytest.mark.parametrize(
    ("name", "stop_requests"),
    [
        ("digits.py", TWICE),
        ("docstrings.py", TWICE),
        ("digits_conditioned.py", IN_THE_STUDENT),  # The map of the condition.
        ("digits_peers.py", TWICE),
        ("cifar10_resnet56.py:crd", IN_THE_STUDENT),  # Banks and embeddings of the loss.
        ("cifar10_resnet56.py:factor_transfer", IN_THE_STUDENT),  # Networks of the loss.
    ],
)
def test_a_run_stopped_by_sigterm_ends_as_if_it_had_not_been(
    name, stop_requests, tmp_path, monkeypatch
):
    config = smoke(name, **{"checkpoint.every_steps": 2})
    alone = run_experiment(config, tmp_path / "alone")
    asked = iter(stop_requests)
    monkeypatch.setattr(StopSignal, "asked", lambda _self, **_: next(asked, False))
    stops = 0
    while True:
        try:
            resumed = run_experiment(config, tmp_path / "stopped")
            break
        except Interrupted:
            stops += 1
    assert stops == sum(stop_requests)
    assert fingerprints(resumed) == fingerprints(alone)
    assert scores_with_teacher(resumed) == scores_with_teacher(alone)
    lines = [
        json.loads(line)
        for line in (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()
    ]
    keys = [(line["model"], line["step"], tuple(sorted(line))) for line in lines]
    assert len(keys) == len(set(keys))


def test_a_killed_process_resumes_to_the_same_fingerprints(tmp_path):
    overrides = {
        "training.epochs": 4.0,
        "models.teacher.training.epochs": 4.0,
        "checkpoint.every_steps": 10,
    }
    shared = [f"--config.{key}={value}" for key, value in overrides.items()]
    shared += ["--config=configs/digits.py:smoke", "--config.parallel.data=1"]
    alone = launched(*shared, f"--workdir={tmp_path / 'alone'}")
    arguments = [*shared, f"--workdir={tmp_path / 'killed'}"]
    killed = launch(*arguments, environment={"JAX_NUM_CPU_DEVICES": "8"})
    checkpoints = tmp_path / "killed" / "teacher" / "checkpoints"
    while killed.poll() is None and not (checkpoints / "20").exists():
        pass
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / "results.json").exists()
    resumed = launch(*arguments, environment={"JAX_NUM_CPU_DEVICES": "8"})
    _, errors = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, errors
    assert "resumed at step" in errors
    assert fingerprints(
        json.loads((tmp_path / "killed" / "results.json").read_text())
    ) == fingerprints(alone)


def free_port():
    import socket

    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


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


@pytest.mark.parametrize("backend", ["jit", "pmap"])
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


def test_a_float64_run_and_a_float32_run_may_follow_each_other(tmp_path):
    for dtype in ("float64", "float32"):
        run_experiment(smoke("digits.py", dtype=dtype), tmp_path / dtype)
        found = {
            str(leaf.dtype)
            for leaf in load_file(tmp_path / dtype / "student" / "model.safetensors").values()
        }
        assert found == {dtype}


def test_a_full_disk_ends_a_run_in_one_line_and_loses_nothing(tmp_path):
    """Files may not grow beyond what the baseline's checkpoints need; the teacher's are larger."""
    arguments = [
        "--config=configs/digits.py:smoke",
        f"--workdir={tmp_path / 'run'}",
        "--config.parallel.data=1",
        "--config.models.teacher.model.width=0.25",
    ]
    environment = {"JAX_NUM_CPU_DEVICES": "8"}
    full = launch(
        *arguments, environment=environment, after="ulimit -f 488"
    )  # Blocks of 1,024 bytes.
    _, errors = full.communicate(timeout=200)
    assert full.returncode not in (0, 75)
    assert "Traceback" not in errors
    assert re.search(
        r"error: a checkpoint could not be written to .*/teacher/checkpoints: .*File too large.*;"
        r" last good: none$",
        errors.strip().splitlines()[-1],
    )
    again = launch(*arguments, environment=environment)
    _, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    alone = launched(arguments[0], f"--workdir={tmp_path / 'alone'}", *arguments[2:])
    assert fingerprints(
        json.loads((tmp_path / "run" / "results.json").read_text())
    ) == fingerprints(alone)


def test_a_restored_teacher_of_other_classes_is_refused(tmp_path):
    run_experiment(smoke("digits.py"), tmp_path / "digits")
    make_pictures(tmp_path / "pictures")
    config = smoke(
        "digits.py",
        **{"data.name": str(tmp_path / "pictures"), "view.channels": 1, "training.batch_size": 16},
        **{"models.teacher.restore": str(tmp_path / "digits" / "teacher")},
    )
    message = (
        r"models.teacher: .*/digits/teacher has class_names \['0', .*'9'\], the"
        r" config \['bright', 'dark'\]"
    )
    with pytest.raises(ValueError, match=message):
        run_experiment(config, tmp_path / "run")


def test_a_table_of_the_users_own_runs_and_its_bad_rows_are_listed(tmp_path):
    rows = [
        f'"{word} {number} times",{label}\n'
        for number in range(40)
        for word, label in (("good", "up"), ("bad", "down"), ("so so", "level"))
    ]
    table = tmp_path / "reviews.csv"
    table.write_bytes(b"text,label\n" + "".join(rows).encode() + b'"\xff\xfe",up\n')
    data = {
        "data.name": str(table),
        "data.train": "train[:80%]",
        "data.selection": "train[80%:90%]",
        "data.evaluation": "train[90%:]",
    }
    with pytest.raises(ValueError, match="max_rejected"):
        run_experiment(smoke("docstrings.py", **data), tmp_path / "refused")
    results = run_experiment(
        smoke("docstrings.py", **data, **{"data.max_rejected": 1}), tmp_path / "run"
    )
    assert results["rejected"] == 1
    assert "UTF-8" in json.loads((tmp_path / "run" / "rejected.jsonl").read_text())["reason"]


def test_hostile_rows_of_the_users_own_are_repaired_or_quarantined_and_counted(tmp_path):
    rows = [
        f"{word} {number} times,{label}\n"
        for number in range(40)
        for word, label in (("good", "up"), ("bad", "down"))
    ]
    hostile = [
        "<b>fine</b>,up\n",
        "b\u0430d b\u0430d,down\n",
        "GOOD 0 times,up\n",
        "Good 1 Times,down\n",
        f"{'x' * 30_000},up\n",
    ]
    held_out = "text,label\nsomething else,up\nentirely,down\n"
    (tmp_path / "reviews").mkdir()
    for split, content in (
        ("train", rows + hostile),
        ("selection", [held_out]),
        ("evaluation", [held_out]),
    ):
        (tmp_path / "reviews" / f"{split}.csv").write_text(
            "".join(["text,label\n"] * (split == "train") + content)
        )
    data = {
        "data.name": str(tmp_path / "reviews"),
        "data.train": "train",
        "data.selection": "selection",
        "data.evaluation": "evaluation",
    }
    results = run_experiment(smoke("docstrings.py", **data), tmp_path / "run")
    assert results["cleaning"] == {
        "mode": "repair",
        "rows": 85,
        "kept": 81,
        "repaired": {"markup": 1, "mixed_scripts": 1},
        "quarantined": {"conflicting_labels": 2, "duplicate": 1, "too_long": 1},
    }
    entries = [
        json.loads(line)
        for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    ]
    assert {entry["row"] for entry in entries} - {2, 84} == {
        4,
        85,
        86,
    }  # Of 2 and 84, equal rows, one is kept.
    assert all(entry.keys() >= {"dataset", "row", "reasons", "value"} for entry in entries)


def make_pictures(folder):
    """Dark and bright pictures of 12 x 10, in train/ and test/."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 10)):
        for shade, label in ((40, "dark"), (200, "bright")):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(rng.normal(shade, 20, size=(12, 10, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{number}.png")


def test_a_folder_of_the_users_own_pictures_runs(tmp_path):
    make_pictures(tmp_path / "pictures")
    config = smoke(
        "digits.py",
        **{"data.name": str(tmp_path / "pictures"), "view.channels": 3, "training.batch_size": 16},
    )
    assert run_experiment(config, tmp_path / "run")["models"]["student"]["accuracy"] >= 0


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
        assert same == {"rows": 359, "left_out": 0} | {
            key: pytest.approx(model[key], abs=1e-6) for key in ("accuracy", "loss", "ece")
        }
        assert found["robustness"][name]["in_domain"] == model["accuracy"]
        dark = found["evaluations"]["pictures"][name]
        assert (dark["rows"], dark["left_out"]) == (10, 10)
        assert found["evaluations"]["digits_blur_5"][name]["loss"] != same["loss"]
    pictures["label_map"]["bright"] = "1"
    again = run_experiment(config, tmp_path / "run")
    assert again["evaluations"]["pictures"]["student"]["rows"] == 20


def test_a_term_that_remembers_examples_refuses_mixed_ones(tmp_path):
    config = smoke("cifar10_function_matching.py")
    crd = dict(term="contrastive_representation", weight=0.8, negatives=32, width=16)
    config["models"]["student"]["objective"] = {"crd": crd}
    with pytest.raises(
        ValueError,
        match=r"^models.student: crd remembers each example as it is: training.mixing must",
    ):
        run_experiment(config, tmp_path)
