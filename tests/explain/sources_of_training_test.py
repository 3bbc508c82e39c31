"""What the sources of training data are worth: a run that learned from a transfer set beside its
training split."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from paths import ROOT

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.run import run_experiment
from kd_jax.explain import explain_training

pytestmark = pytest.mark.slow

CONFIGS = ROOT / "configs"


def test_each_subset_of_sources_trains_from_the_sets_of_the_run(tmp_path):
    os.environ["TFDS_DATA_DIR"] = str(Path(tempfile.gettempdir()) / "kd_jax-tests-data")
    config = load_config(f"{CONFIGS / 'sst2_transfer.py'}:smoke")
    config.parallel.data = 1
    resolved = plain(config)
    del resolved["models"]["noisy"]
    results = run_experiment(resolved, tmp_path)
    explain_training(tmp_path, None, "sources", None)
    found = json.loads((tmp_path / "explain" / "explain.json").read_text())["sources"]
    assert set(found["subsets"]) == {"", "train", "of_teacher", "train+of_teacher"}
    assert found["all"] == results["models"]["student"]["accuracy"]
    assert found["subsets"]["train"] == results["models"]["without"]["accuracy"]
    assert sum(found["values"].values()) == pytest.approx(found["all"] - found["empty"])
    trained = json.loads(
        (tmp_path / "explain" / "sources" / "train" / "student" / "finished.json").read_text()
    )
    assert trained["fingerprint"] == results["models"]["without"]["fingerprint"]
