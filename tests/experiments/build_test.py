"""Weights that do not fit the data's view are refused before anything is trained."""

import tempfile
from pathlib import Path

import pytest
from export.finished_run import CNN, ENCODER, make_run
from paths import ROOT

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.run import run_experiment

pytestmark = pytest.mark.slow

ROOT = ROOT


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ENCODER, r"^models\.teacher: its view has 500 tokens and its embedding 19 rows$"),
        (CNN, r"^models\.teacher: it reads images and its view gives tokens$"),
    ],
    ids=["tokenizer", "images"],
)
def test_weights_that_do_not_fit_the_view_are_refused(spec, message, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(Path(tempfile.gettempdir()) / "kd_jax-tests-data"))
    config = plain(load_config(f"{ROOT / 'configs' / 'bert_adam.py'}:smoke"))
    folder = make_run(tmp_path / "other", spec) / "student"
    config["models"]["teacher"]["model"] = {"pretrained": str(folder)}
    with pytest.raises(ValueError, match=message):
        run_experiment(config, tmp_path / "run")
