"""Every shipped config, resolved: to what it was when each key was still written out in its
file."""

import hashlib
import json

import pytest
from paths import ROOT, TESTS

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.plan import make_plan

HASHES = json.loads((TESTS / "golden" / "config_hashes.json").read_text())
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("argument", sorted(HASHES))
def test_a_config_resolves_to_what_it_has_always_meant(argument):
    found = json.loads(json.dumps(plain(load_config(argument))))
    # A key that is newer than the hashes, at what its absence meant.
    assert found["checkpoint"].pop("keep_finished") is False
    assert found["logging"].pop("writers") == ["tensorboard"]
    assert (found.pop("task"), found.pop("primary")) == ("classification", None)
    assert {found["data"].pop(key) for key in ("header", "class_names", "id")} == {None}
    assert found["data"].pop("labelled") == 1
    assert found["parallel"].pop("replicated") == []
    assert found["checkpoint"].pop("outputs_dir") is None
    for section in (found, *found["models"].values()):
        assert section["training"].pop("patience") is None
        assert section["training"].pop("augmented_epochs") is None
    resolved = json.dumps(found, sort_keys=True)
    assert hashlib.sha256(resolved.encode()).hexdigest()[:16] == HASHES[argument]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("smoke", [False, True], ids=["full", "smoke"])
def test_every_config_makes_a_plan(name, smoke):
    plan = make_plan(plain(load_config(name, smoke=smoke)))
    assert {"student", "baseline"} <= {model.name for model in plan.models}


def test_smoke_is_a_variant_and_a_flag_of_one_meaning():
    assert plain(load_config("digits:smoke")) == plain(load_config("digits", smoke=True))
