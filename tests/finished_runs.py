"""Small finished runs to be explained, made once each."""

import functools
import os
import shutil
import tempfile
from pathlib import Path

from paths import ROOT

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.run import run_experiment

CONFIGS = ROOT / "configs"


def _smoke(name, **overrides):
    os.environ["TFDS_DATA_DIR"] = str(Path(tempfile.gettempdir()) / "kd_jax-tests-data")
    config = load_config(str(CONFIGS / f"{name}:smoke"))
    config.update_from_flattened_dict({"parallel.data": 1} | overrides)
    return plain(config)


@functools.cache
def images():
    """An ensemble of three image sizes and architectures; a student of labels and ensemble; the
    run's folder."""
    config = _smoke("digits_three_teachers.py", **{"training.epochs": 1.0})
    student = config["models"]["student"]
    student["objective"] = {"hard": dict(term="cross_entropy", weight=1.0)} | student["objective"]
    for member in ("vgg", "resnet", "vit"):
        del config["models"][f"of_{member}"]
    return _run(config)


@functools.cache
def texts():
    """An ensemble of two tokenizers, cached; the student shares one of them."""
    return _run(_smoke("sst2_two_teachers.py"))


def _run(config):
    folder = Path(tempfile.mkdtemp(prefix="kd_jax-finished-"))
    run_experiment(config, folder)
    return folder


def copy(run, folder):
    """A copy of a run without what explains it."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("explain", ".lock"))
    return folder
