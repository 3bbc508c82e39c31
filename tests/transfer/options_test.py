"""The config's transfer sets: in the order of training, and refused before anything runs."""

import copy
from pathlib import Path

import pytest

from kd_jax.command import load_config, plain
from kd_jax.plan import make_plan

CONFIG = plain(load_config(f"{Path(__file__).parents[2] / 'configs' / 'sst2_transfer.py'}"))


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
        ("teacher", "nobody", "teacher names 'nobody'; there are baseline, noisy, student, teacher, without"),
        ("labels", "firm", "labels is 'soft' or 'hard', got 'firm'"),
        ("temperature", 0.0, "temperature must be positive"),
        ("confidence", 1.1, "confidence lies between 0 and 1, got 1.1"),
        ("near_duplicate", -0.1, "near_duplicate lies between 0 and 1"),
        ("max_overlap", 2, "max_overlap lies between 0 and 1"),
        ("per_class", 0, "per_class must be None or a whole number"),
        ("per_class", 2.5, "per_class must be None or a whole number"),
        ("shuffle", True, "has no option 'shuffle'; its options are confidence, "),
    ],
)
def test_options_out_of_range_are_refused_by_name(config, key, value, message):
    config["transfer_sets"]["of_teacher"][key] = value
    with pytest.raises(ValueError, match=f"transfer_sets.of_teacher.*{message}"):
        make_plan(config)


@pytest.mark.parametrize("name", ["train", "Of_teacher", "of teacher"])
def test_names_that_a_dataset_can_t_have_are_refused(config, name):
    config["transfer_sets"][name] = config["transfer_sets"]["of_teacher"]
    with pytest.raises(ValueError, match="made of small letters, digits and _, and isn't 'train'"):
        make_plan(config)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (("train", "more"), "data names 'more'; there are train, of_baseline, of_teacher"),
        (("train", "train"), "data names one or more different sets"),
        ((), "data names one or more different sets"),
    ],
)
def test_data_that_there_isn_t_is_refused(config, data, message):
    config["models"]["student"]["data"] = data
    with pytest.raises(ValueError, match=f"models.student.{message}"):
        make_plan(config)
