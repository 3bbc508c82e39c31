"""One whole run, shrunk to seconds: teacher, student and fair baseline from a config to results."""

import json

import jax
import numpy as np

import kd_jax as kd
from kd_jax.config.load import load_config, resolve
from kd_jax.core.pytree import fingerprint
from kd_jax.data.run_datasets import view_name
from kd_jax.distiller import Distiller
from kd_jax.experiments.plan import make_plan
from kd_jax.export.student import open_student
from kd_jax.training import trained_model
from kd_jax.training.optimizers import make_optimizer


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
    assert any(line.get("machine/examples_per_second", 0) > 0 for line in logged)
    reached = {line["model"]: line for line in logged if "evaluation/accuracy" in line}
    assert {name: line["evaluation/accuracy"] for name, line in reached.items()} == {
        name: entry["accuracy"] for name, entry in entries.items()
    }
    run = kd.load(tmp_path)
    assert list(run.models) == results["order"]
    assert run.results == results
    # What it would go on from takes many times the place of the models, and is of no use now.
    assert not list(tmp_path.glob("*/checkpoints"))


def test_the_same_digits_by_python_and_by_config_end_with_equal_fingerprints(tmp_path, monkeypatch):
    config = load_config("digits", smoke=True)
    config.checkpoint.use = "latest"
    seen = []
    advance = Distiller.advance

    def watched(self, state, batch):
        if "student" in self.group.models:
            first = jax.device_get(state.models["student"].variables()) if not seen else None
            seen.append((first, batch))
        return advance(self, state, batch)

    monkeypatch.setattr(Distiller, "advance", watched)
    kd.run(config, tmp_path)
    monkeypatch.undo()
    by_config = trained_model.load(tmp_path / "student")
    plan = {model.name: model for model in make_plan(resolve(config)).models}["student"]

    teacher = open_student(tmp_path, "teacher")
    optimizer, _ = make_optimizer(plan.training["optimizer"], plan.training["schedule"], len(seen))
    distiller = kd.Distiller(
        student=(open_student(tmp_path, "student").module, seen[0][0]),
        teacher=(teacher.module, teacher.variables),
        losses={name: dict(term) for name, term in plan.objective.items()},
        optimizer=optimizer,
    )
    batches = [
        tuple(
            np.concatenate(parts)
            for parts in (batch.views[view_name(plan.view)]["images"], batch.labels)
        )
        for _, batch in seen
    ]
    state = distiller.init(config.seed, batches[0])
    for batch in batches:
        state, _ = distiller.step(state, batch)
    assert len(batches) > 3
    assert fingerprint(distiller.variables(state)) == by_config.description["fingerprint"]
