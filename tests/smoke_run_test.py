"""One whole run, shrunk to seconds: teacher, student and fair baseline from a config to results."""

import json

import kd_jax as kd
from kd_jax.config.load import load_config


def test_the_default_experiment_runs_as_smoke(tmp_path):
    config = load_config("digits", smoke=True)
    config.parallel.data = 1
    results = kd.run(config, tmp_path)
    assert results == json.loads((tmp_path / "results.json").read_text())
    assert results["finished"] is True
    assert results["order"].index("teacher") < results["order"].index("student")
    entries = results["models"]
    assert results["gain"] == entries["student"]["accuracy"] - entries["baseline"]["accuracy"]
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert any(line.get("learning_rate", 0) > 0 for line in logged)
    run = kd.load(tmp_path)
    assert list(run.models) == results["order"]
    assert run.results == results
