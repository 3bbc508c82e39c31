"""Whether an experiment fits: what a step takes of a device, told before anything runs."""

import json

import jax
import numpy as np
import pytest

from kd_jax.config.load import load_config, plain
from kd_jax.config.overrides import override
from kd_jax.distiller import Distiller
from kd_jax.experiments import fit, out_of_memory, step_cost
from kd_jax.experiments.run import run_experiment


def smoke(name="digits", **overrides):
    config = load_config(name, smoke=True)
    for path, value in overrides.items():
        override(config, path.replace("__", "."), value)
    return plain(config)


def step_of(found, model):
    return next(step for step in found["steps"] if model in step["models"])


def test_parameters_and_optimizer_are_those_of_the_trained_models(tmp_path):
    found = fit.fit(smoke())
    results = run_experiment(smoke(), tmp_path / "run", show=False)
    assert [step["models"] for step in found["steps"]] == [
        ("baseline",),
        ("teacher",),
        ("student",),
    ]
    for step in found["steps"]:
        sizes = 4 * results["models"][step["models"][0]]["parameters"]
        # Running means and variances come on top, and two moments of each parameter.
        assert sizes <= step["parameters"] < 1.2 * sizes
        assert 2 * sizes <= step["optimizer"] < 2 * sizes + 100
    student, teacher = step_of(found, "student"), step_of(found, "teacher")
    assert student["teachers"] == teacher["parameters"]
    assert student["total"] == sum(student[part] for part in step_cost.PARTS)
    assert found["fits"]


@pytest.mark.parametrize("backend", ["jit", "pmap"])
def test_eight_devices_share_the_rows(backend):
    one, eight = (
        fit.fit(smoke(parallel__backend=backend, parallel__data=count)) for count in ("1", "8")
    )
    whole, part = step_of(one, "student"), step_of(eight, "student")
    assert (whole["rows"], part["rows"]) == (32, 4)
    assert part["parameters"] == whole["parameters"]
    assert part["activations"] < whole["activations"] / 2
    assert part["collectives"]["all-reduce"]["bytes"] >= part["parameters"]
    # Under pmap one device reduces too, over itself.
    assert backend == "pmap" or not whole["collectives"]


def test_tensor_parallelism_takes_less_of_each_device():
    names = dict(parallel__fsdp="2", parallel__tensor="2", parallel__data="1")
    whole = step_of(fit.fit(smoke("sst2_minilm", parallel__data="1")), "teacher")
    part = step_of(fit.fit(smoke("sst2_minilm", **names)), "teacher")
    assert part["parameters"] < whole["parameters"] / 3
    assert part["optimizer"] < whole["optimizer"] / 3


def test_a_cached_teacher_takes_its_outputs_and_no_parameters():
    config = smoke("sst2_minilm")
    assert config["models"]["student"]["cached"]
    cached = step_of(fit.fit(config), "student")
    live = step_of(fit.fit(smoke("sst2_minilm", models__student__cached="()")), "student")
    assert cached["teachers"] == 0
    assert live["teachers"] > 0


def test_a_teacher_that_judges_the_selection_split_is_there_whether_cached_or_not():
    config = smoke("stsb_embedding")
    found = {}
    for name, cached in (("cached", ["teacher"]), ("live", [])):
        config["models"]["student"]["cached"] = cached
        found[name] = step_of(fit.fit(config), "student")["teachers"]
    assert found["cached"] == found["live"] > 0


def test_what_does_not_fit_is_told_with_its_largest_part(capsys):
    found = fit.fit(smoke(parallel__data="1"), memory=1000)
    assert not found["fits"]
    fit.show(found)
    told = " ".join(capsys.readouterr().out.split())
    assert "it doesn't fit" in told
    assert "are activations: training.accumulate cuts a batch into microbatches" in told
    json.dumps(found)


def test_collectives_are_counted_with_the_bytes_of_tuples():
    text = """
    %a = (f32[8,3]{1,0}, /*index=1*/bf16[2]{0}) all-reduce(%x, %y), channel_id=1
    %b = pred[] all-reduce(%z)
    %c = (f64[1,2]{1,0}, f64[2,2]{1,0}) all-gather-start(%w)
    %d = (bf16[4,8]{1,0}, bf16[4,8]{1,0}, u32[], u32[]) collective-permute-start(%v)
    """
    assert step_cost._collectives(text) == {
        "all-gather": {"count": 1, "bytes": 32},
        "all-reduce": {"count": 2, "bytes": 8 * 3 * 4 + 4 + 1},
        "collective-permute": {"count": 1, "bytes": 64},
    }


# Where memory is short while training


def test_a_step_without_room_says_what_it_took_and_what_helps(tmp_path, monkeypatch):
    def advance(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes")

    monkeypatch.setattr(Distiller, "advance", advance)
    with pytest.raises(ValueError, match="doesn't fit into a device's memory: parameters") as found:
        run_experiment(smoke(), tmp_path / "run")
    assert "\n" not in str(found.value)
    assert "allocating 7 bytes" in str(found.value)


def test_other_errors_are_not_explained():
    assert out_of_memory.explain(RuntimeError("INTERNAL"), None, {}) is None


def test_bytes_are_those_of_one_device():
    tree = {"a": np.zeros((2, 3), np.float32), "b": jax.ShapeDtypeStruct((4,), np.int8)}
    assert out_of_memory.bytes_on_one(tree) == 28
