"""What makes two configs the same experiment."""

import copy
import json

import pytest
from paths import TESTS

from kd_jax.config.hashing import config_hash, flatten, identity
from kd_jax.config.load import load_config, plain

DIGITS = plain(load_config(str(TESTS / "configs" / "shared.py")))


@pytest.fixture
def config():
    return copy.deepcopy(DIGITS)


def put(config, path, value):
    *sections, key = path.split(".")
    for section in sections:
        config = config[section]
    config[key] = value


def test_flatten_gives_leaves_by_dotted_path_and_lists_as_in_json():
    nested = {"a": {"b": 1, "c": {"d": (1, 2)}}, "empty": {}, "none": None}
    assert flatten(nested) == {"a.b": 1, "a.c.d": [1, 2], "empty": {}, "none": None}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("parallel.backend", "pmap"),
        ("logging.every_steps", 7),
        ("logging.writers", ("wandb",)),
        ("checkpoint.every_steps", 7),
        ("evaluations", {"extra": {"evaluation": "test"}}),
    ],
)
def test_what_may_change_between_two_starts_is_not_part_of_a_runs_identity(config, path, value):
    before, hashed = identity(config), config_hash(config)
    put(config, path, value)
    assert (identity(config), config_hash(config)) == (before, hashed)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1),
        ("checkpoint.use", "latest"),
        ("checkpoint.keep_best", 2),
        ("data.train", "train"),
        ("models.student.objective.soft.temperature", 2.0),
        ("models.student.model.widths", (4, 9)),
    ],
)
def test_everything_else_is(config, path, value):
    before, hashed = identity(config), config_hash(config)
    put(config, path, value)
    after = identity(config)
    assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == {
        path
    }
    assert config_hash(config) != hashed


def test_the_identity_survives_json_and_the_order_of_the_keys(config):
    stored = json.loads(json.dumps(config))
    assert identity(stored) == identity(config)
    assert config_hash(dict(reversed(config.items()))) == config_hash(stored) == config_hash(config)


def test_a_key_that_is_absent_counts_as_its_default(config):
    older = copy.deepcopy(config)
    del older["seed"], older["dtype"], older["data"]["max_rejected"], older["checkpoint"]["use"]
    for model in older["models"].values():
        del model["restore"], model["training"]["accumulate"]
    older["transfer_sets"], older["models"]["teacher"]["teachers"] = {}, ()
    assert identity(older) == identity(config)
    assert config_hash(older) == config_hash(config)


def test_settings_of_a_sweep_are_hashed_as_they_are():
    assert config_hash({"data.dir": "a"}) != config_hash({"data.dir": "b"})
