"""Every method of `configs/cifar10_resnet56.py`, as `:smoke`."""

import importlib.util
import json
import tempfile
from pathlib import Path

import pytest
from paths import ROOT

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.run import run_experiment

pytestmark = pytest.mark.slow

FILE = ROOT / "configs" / "cifar10_resnet56.py"
_spec = importlib.util.spec_from_file_location("cifar10_resnet56", FILE)
assert _spec is not None
assert _spec.loader is not None
module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(module)
METHODS = sorted(module.METHODS)


@pytest.mark.parametrize("part", range(2))
def test_every_method_trains_its_own_terms(part, tmp_path, monkeypatch):
    """A student for each method under one teacher, as the variant "comparison" has them."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(Path(tempfile.gettempdir()) / "kd_jax-tests-data"))
    methods = METHODS[part::2]
    config = plain(load_config(f"{FILE}:{methods[0]},smoke"))
    config["parallel"]["data"] = 1
    for method in methods[1:]:
        config["models"][method] = plain(load_config(f"{FILE}:{method},smoke"))["models"]["student"]
    results = run_experiment(config, tmp_path)
    assert results["finished"] is True
    prints = {name: model["fingerprint"] for name, model in results["models"].items()}
    assert len(set(prints.values())) == len(prints)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name, model in config["models"].items():
        assert any(
            model["objective"].keys() <= line.keys() for line in logged if line["model"] == name
        ), name


def test_the_variants_are_the_methods_and_the_comparison():
    for method in [*METHODS, "comparison"]:
        for size in ("", ",quick"):
            assert module.get_config(method + size).name == f"cifar10_resnet56_{method}"
    assert module.get_config() == module.get_config("kd")


@pytest.mark.parametrize("variant", ["hinton", "kd,dkd", "quick,kd", "kd,fast"])
def test_an_unknown_variant_is_refused_by_name(variant):
    with pytest.raises(
        ValueError,
        match=f"^unknown variant '{variant}'; there are comparison, activation_boundary, ",
    ):
        module.get_config(variant)


def test_a_weight_that_warms_up_takes_a_twelfth_of_the_training():
    config = module.get_config("dkd")
    weight = config.models.student.objective.decoupled_kd.weight
    assert dict(weight) == {
        "name": "linear",
        "start": 0.0,
        "stop": 1.0,
        "steps": round(47_500 * 240 / 64 / 12),
    }
