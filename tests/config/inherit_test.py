import sys

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags
from paths import TESTS

from kd_jax.config.inherit import inherit, seed_group_of
from kd_jax.config.load import load_config, plain

SHARED = ("batch_size", "epochs", "accumulate", "optimizer", "schedule")


@pytest.fixture
def config():
    """As a user has it in hand before the flags are read."""
    return load_config(str(TESTS / "configs" / "shared.py"))


def make(**models):
    training = {
        "epochs": 4.0,
        "optimizer": {"name": "adamw", "learning_rate": 0.1, "weight_decay": 0.01},
        "schedule": {"name": "cosine", "warmup_steps": 5},
    }
    return ConfigDict(
        {"view": {"size": 8}, "dtype": "float32", "training": training, "models": models}
    )


def epochs(config):
    return {
        name: section["training"]["epochs"] for name, section in plain(config)["models"].items()
    }


# From the experiment


def test_every_model_takes_over_view_dtype_and_training(config):
    resolved = plain(config)
    for section in resolved["models"].values():
        assert section["view"] == resolved["view"]
        assert section["dtype"] == resolved["dtype"]
        assert section["training"] == resolved["training"]
        assert set(section["training"]) == set(SHARED) | {"patience", "augmented_epochs"}


def test_a_later_override_reaches_all_that_inherit(config):
    config.training.epochs = 7.0
    config.training.optimizer.learning_rate = 0.5
    assert epochs(config) == {"baseline": 7.0, "student": 7.0, "teacher": 7.0}
    rates = {
        name: m["training"]["optimizer"]["learning_rate"]
        for name, m in plain(config)["models"].items()
    }
    assert rates == {"baseline": 0.5, "student": 0.5, "teacher": 0.5}


def test_a_model_that_says_otherwise_keeps_its_own():
    config = inherit(make(a={"training": {"epochs": 1.0}}, b={"dtype": "bfloat16"}))
    config.training.epochs = 7.0
    assert epochs(config) == {"a": 1.0, "b": 7.0}
    assert plain(config)["models"]["b"]["dtype"] == "bfloat16"
    assert plain(config)["models"]["a"]["training"]["schedule"] == {
        "name": "cosine",
        "warmup_steps": 5,
    }


def test_an_inherited_key_can_be_set_for_one_model_alone(config):
    config.models.teacher.training.epochs = 1.0
    assert epochs(config) == {"baseline": 30.0, "student": 30.0, "teacher": 1.0}
    assert config.training.epochs == 30.0


def test_a_view_of_its_own_is_not_mixed_with_the_experiments():
    config = inherit(make(a={"view": {"tokenizer": "minilm"}}, b={}))
    assert plain(config)["models"]["a"]["view"] == {"tokenizer": "minilm"}
    assert plain(config)["models"]["b"]["view"] == {"size": 8}


def test_a_none_is_inherited_and_can_be_overridden_for_one_model_or_for_all():
    config = make(a={}, b={"like": "a"}, c={})
    config.training.optimizer.clip_norm = None
    config = inherit(config)

    def norms():
        return [m["training"]["optimizer"]["clip_norm"] for m in plain(config)["models"].values()]

    assert norms() == [None, None, None]
    config.training.optimizer.clip_norm = 1.0
    assert norms() == [1.0, 1.0, 1.0]
    config.models.a.training.optimizer.clip_norm = 2.0
    assert norms() == [2.0, 2.0, 1.0]


def test_flags_can_set_what_is_none_in_the_file(config, monkeypatch):
    # ml_collections looks for overrides in sys.argv.
    given = [
        "launch.py",
        "--config.data.dir=/data",
        "--config.view.size=16",
        "--config.models.student.view.size=8",
    ]
    monkeypatch.setattr(sys, "argv", given)
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values)
    values(given)
    resolved = plain(values.config)
    assert resolved["data"]["dir"] == "/data"
    assert {name: m["view"]["size"] for name, m in resolved["models"].items()} == {
        "teacher": 16,
        "student": 8,
        "baseline": 8,
    }


# Named algorithms


@pytest.mark.parametrize(
    ("section", "own"),
    [
        ("optimizer", {"name": "sgd", "momentum": 0.9}),
        ("schedule", {"name": "step", "factor": 0.1}),
    ],
)
def test_another_name_replaces_the_whole_section(section, own):
    config = inherit(make(a={"training": {section: own}}))
    training = plain(config)["models"]["a"]["training"]
    assert training[section] == own
    other = "schedule" if section == "optimizer" else "optimizer"
    assert training[other] == plain(config)["training"][other]


@pytest.mark.parametrize("own", [{"learning_rate": 0.5}, {"name": "adamw", "learning_rate": 0.5}])
def test_the_same_name_or_none_merges_into_the_section(own):
    config = inherit(make(a={"training": {"optimizer": own}}))
    config.training.optimizer.weight_decay = 0.2
    optimizer = plain(config)["models"]["a"]["training"]["optimizer"]
    assert optimizer == {"name": "adamw", "learning_rate": 0.5, "weight_decay": 0.2}


# Likeness


def test_a_later_override_of_the_student_reaches_the_baseline_that_is_like_it(config):
    config.models.student.model.widths = (2, 2)
    config.models.student.training.epochs = 3.0
    config.models.student.training.optimizer.learning_rate = 0.5
    models = plain(config)["models"]
    assert models["baseline"]["model"] == models["student"]["model"]
    assert models["baseline"]["model"]["widths"] == (2, 2)
    assert models["baseline"]["training"] == models["student"]["training"]
    assert models["teacher"]["training"]["epochs"] == 30.0


def test_likeness_keeps_what_the_baseline_says_itself(config):
    models = plain(config)["models"]
    assert models["baseline"]["teachers"] == ()
    assert set(models["baseline"]["objective"]) == {"hard"}
    assert models["student"]["teachers"] == ("teacher",)
    assert set(models["student"]["objective"]) == {"hard", "soft"}


def test_an_override_of_the_baseline_leaves_the_student_alone(config):
    config.models.baseline.training.epochs = 3.0
    assert epochs(config) == {"baseline": 3.0, "student": 30.0, "teacher": 30.0}


def test_a_chain_of_likeness_is_followed_to_its_root():
    config = inherit(make(a={"like": "b"}, b={"like": "c"}, c={"model": {"width": 1}}))
    config.models.c.model.width = 2
    models = plain(config)["models"]
    assert models["a"]["model"] == {"width": 2}
    assert [seed_group_of(models, name) for name in "abc"] == ["c", "c", "c"]


@pytest.mark.parametrize(
    "models", [{"a": {"like": "a"}}, {"a": {"like": "b"}, "b": {"like": "c"}, "c": {"like": "b"}}]
)
def test_likeness_in_a_circle_is_refused_and_shown(models):
    with pytest.raises(ValueError, match=r"like goes in a circle: .*(a -> a|b -> c -> b)$"):
        inherit(make(**models))


def test_likeness_with_an_unknown_model_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"^models.a.like names 'z'; there are a, b$"):
        inherit(make(a={"like": "z"}, b={}))


def test_a_flag_can_give_any_model_a_folder_to_restore_and_likeness_does_not_pass_it_on(config):
    assert config.models.teacher.restore is None
    config.models.student.restore = "runs/x/student"
    assert plain(config)["models"]["student"]["restore"] == "runs/x/student"
    assert plain(config)["models"]["baseline"]["restore"] is None
