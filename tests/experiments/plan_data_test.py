"""What models may name as the data they learn from."""

import copy

import pytest
from paths import ROOT

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.plan import make_plan

CONFIG = plain(load_config(f"{ROOT / 'configs' / 'digits_trusted.py'}"))
MORE = dict(
    teacher="judge",
    source=dict(name="mixes", rounds=1, kind="mixup", concentration=1.0),
    labels="soft",
    temperature=1.0,
    confidence=0.0,
    per_class=None,
    near_duplicate=0.0,
    max_overlap=0.0,
)


@pytest.fixture
def config():
    return copy.deepcopy(CONFIG) | {"transfer_sets": {"more": MORE}}


def test_a_trusted_set_takes_the_training_split_s_place_beside_transfer_sets(config):
    config["models"]["student"]["data"] = ("trusted", "more")
    plan = make_plan(config)
    assert plan["student"].data == ("trusted", "more")
    assert (set(plan.trusted_sets), set(plan.transfer_sets)) == ({"trusted"}, {"more"})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            ("train", "other"),
            "data names 'other'; there are train, labelled, more, stricter, trusted",
        ),
        (("more", "more"), "data names one or more different sets"),
        ((), "data must be a tuple of one or more names, got"),
        (
            ("train", "trusted"),
            "data names train and trusted, which share training rows; name one of them",
        ),
        (("train", "labelled"), "data names train and labelled, which share training rows"),
        (
            ("trusted", "more", "stricter"),
            "data names trusted and stricter, which share training rows",
        ),
    ],
)
def test_data_that_there_isn_t_or_that_is_there_twice_is_refused(config, data, message):
    config["trusted_sets"]["stricter"] = config["trusted_sets"]["trusted"]
    config["models"]["student"]["data"] = data
    with pytest.raises(ValueError, match=f"models.student.{message}"):
        make_plan(config)


def test_two_kinds_of_sets_of_one_name_are_refused(config):
    config["transfer_sets"]["trusted"] = MORE
    with pytest.raises(
        ValueError, match="transfer_sets and trusted_sets both have a set 'trusted'"
    ):
        make_plan(config)


@pytest.mark.parametrize("kind", ["transfer_sets", "trusted_sets"])
@pytest.mark.parametrize("name", ["train", "Trusted", "rows I trust"])
def test_names_other_than_plain_words_are_refused(config, kind, name):
    config[kind][name] = next(iter(config[kind].values()))
    with pytest.raises(
        ValueError, match=f"{kind}.{name}: .*small letters, digits and _, and isn't 'train'"
    ):
        make_plan(config)


@pytest.mark.parametrize("kind", ["transfer_sets", "trusted_sets"])
def test_none_is_no_set_and_a_set_without_a_section_is_refused(config, kind):
    for model in config["models"].values():
        model["data"] = ("train",)
    assert not getattr(make_plan(config | {kind: None}), kind)
    with pytest.raises(ValueError, match=f"{kind}.other must be a section of options, got None"):
        make_plan(config | {kind: {"other": None}})


def test_a_transfer_set_made_from_trusted_rows_waits_for_their_judge(config):
    """Whoever else labels it."""
    config["transfer_sets"]["more"] = MORE | {"teacher": "a", "base": "trusted"}
    config["models"]["a"] = config["models"]["unsifted_baseline"]
    config["models"]["b"] = config["models"]["unsifted_baseline"] | {"data": ("more",)}
    order = [model.name for model in make_plan(config).models]
    assert order.index("judge") < order.index("b")
    assert order.index("a") < order.index("judge")
