"""The config's transfer sets: in the order of training, and refused before anything runs."""

import copy

import pytest
from paths import ROOT

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.plan import make_plan

CONFIG = plain(load_config(f"{ROOT / 'configs' / 'sst2_transfer.py'}"))


@pytest.fixture
def config():
    return copy.deepcopy(CONFIG)


def test_who_labels_a_set_comes_before_those_that_learn_from_it(config):
    """The baseline labels what `noisy`, without any teacher, learns from."""
    config["models"]["a"] = config["models"].pop("noisy")
    order = [model.name for model in make_plan(config).models]
    assert order.index("baseline") < order.index("a")
    assert make_plan(config)["a"].data == ("train", "of_baseline")
    assert make_plan(config)["baseline"].data == ("train",)


def test_a_model_that_labels_what_it_learns_from_is_a_circle(config):
    config["transfer_sets"]["of_baseline"]["teacher"] = "noisy"
    with pytest.raises(ValueError, match="form a circle"):
        make_plan(config)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "teacher",
            "nobody",
            "teacher names 'nobody'; there are baseline, noisy, student, teacher, without",
        ),
        ("labels", "firm", "labels must be one of 'soft', 'hard', 'none', got 'firm'"),
        ("temperature", 0.0, "temperature must be a positive number, got 0.0"),
        ("confidence", 1.1, "confidence must be a number between 0 and 1, got 1.1"),
        ("near_duplicate", -0.1, "near_duplicate must be a number between 0 and 1, got -0.1"),
        ("max_overlap", 2, "max_overlap must be a number between 0 and 1, got 2"),
        ("per_class", 0, "per_class must be a whole number from 1 on, or None"),
        ("temperature", None, "temperature must be a positive number, got None"),
        ("confidence", None, "confidence must be a number between 0 and 1, got None"),
        ("per_class", "all", "per_class must be a whole number from 1 on, or None, got 'all'"),
        ("base", "augmented", "base names 'augmented'; there are train"),
        (
            "source",
            {"name": "copies"},
            "unknown source .*; there are augmented, masked_words, mixes, unlabelled",
        ),
        ("source", {"name": "mixes", "rounds": 1}, "source 'mixes' needs option 'kind'"),
        ("per_class", 2.5, "per_class must be a whole number from 1 on, or None"),
        ("shuffle", True, "has no option 'shuffle'; its options are base, "),
    ],
)
def test_options_out_of_range_are_refused_by_name(config, key, value, message):
    config["transfer_sets"]["of_teacher"][key] = value
    with pytest.raises(ValueError, match=f"transfer_sets.of_teacher.*{message}"):
        make_plan(config)


@pytest.mark.parametrize(
    "options",
    [
        dict(labels="none"),
        dict(labels="hard"),
        dict(labels="soft", per_class=3),
    ],
)
def test_sets_of_classes_of_earlier_versions_keep_a_temperature_that_changes_nothing(
    options, config
):
    config["transfer_sets"]["of_teacher"].update(options | {"temperature": 4.0})
    assert make_plan(config).transfer_sets["of_teacher"]["temperature"] == 4
