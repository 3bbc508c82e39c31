"""The config's trusted sets: who judges is trained first, and what can't be is refused before
anything runs."""

import copy

import pytest
from paths import ROOT

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.plan import make_plan

CONFIG = plain(load_config(f"{ROOT / 'configs' / 'digits_trusted.py'}"))
MORE = dict(
    teacher="unsifted_baseline",
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
    return copy.deepcopy(CONFIG)


def test_the_judge_comes_before_those_that_learn_from_what_it_trusts(config):
    """By name alone, `early` would be the first."""
    config["models"]["early"] = config["models"]["baseline"]
    order = [model.name for model in make_plan(config).models]
    assert order[0] == "judge"
    assert make_plan(config).trusted_sets == config["trusted_sets"]


def test_a_judge_of_what_it_learns_from_itself_is_a_circle(config):
    config["trusted_sets"]["trusted"] |= {"judge": "baseline", "folds": 0}
    with pytest.raises(ValueError, match="form a circle"):
        make_plan(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"judge": "nobody"},
            "judge names 'nobody'; there are baseline, judge, student, teacher, unsifted",
        ),
        ({"mode": "repair"}, "mode must be 'drop' or 'report', got 'repair'"),
        ({"label_errors": 0.1}, "label_errors must be True or False, got 0.1"),
        (
            {"label_share": True},
            "label_share must be a number above 0 and below 1, or None, got True",
        ),
        (
            {"label_errors": False, "label_share": 0.1},
            "label_share must be None where label_errors is False, got 0.1",
        ),
        ({"folds": 1}, "folds must be 0 or a whole number from 2 on, got 1"),
        ({"folds": -2}, "folds must be 0 or a whole number from 2 on, got -2"),
        ({"folds": 2.5}, "folds must be 0 or a whole number from 2 on, got 2.5"),
        ({"folds": True}, "folds must be 0 or a whole number from 2 on, got True"),
        ({"poison": 1.0}, "poison must be a number above 0 and below 1, or None, got 1.0"),
        ({"poison": 0}, "poison must be a number above 0 and below 1, or None, got 0"),
        ({"poison": "some"}, "poison must be a number above 0 and below 1, or None, got 'some'"),
        ({"label_errors": False}, "suspects nothing: label_errors is False and poison None"),
        (
            {"judge": "unsifted"},
            "folds: the judge 'unsifted' has teachers, peers, .* may know the labels of rows held",
        ),
        ({"threshold": 0.5}, "has no option 'threshold'; its options are folds, judge"),
    ],
)
def test_options_out_of_range_are_refused_by_name(config, options, message):
    config["trusted_sets"]["trusted"] |= options
    with pytest.raises(ValueError, match=f"trusted_sets.trusted.*{message}"):
        make_plan(config)


@pytest.mark.parametrize(
    "section",
    [
        {"data": ("more",)},
        {"model": {"from_model": "baseline"}},
        {"teachers": ("unsifted_baseline",)},
        {"objective": {}, "restore": "elsewhere"},
    ],
)
def test_a_judge_that_may_know_labels_held_out_gets_no_folds(config, section):
    """But it may judge as it is."""
    config["models"]["judge"] |= section
    config["transfer_sets"] = {"more": MORE}
    config["models"]["unsifted_baseline"]["data"] = config["models"]["baseline"]["data"] = (
        "train",
    )
    with pytest.raises(ValueError, match=r"trusted_sets.trusted.folds"):
        make_plan(config)
    config["trusted_sets"]["trusted"]["folds"] = 0
    make_plan(config)


def test_a_judge_that_starts_from_a_model_of_ours_gets_no_folds(config, tmp_path):
    """It was trained on labels; published weights of another task may start it."""
    for name in ("published", "ours"):
        (tmp_path / name).mkdir()
    (tmp_path / "ours" / "finished.json").write_text("{}")
    config["models"]["judge"]["model"] = {"pretrained": str(tmp_path / "ours")}
    with pytest.raises(
        ValueError, match=r"folds: the judge 'judge' starts from .*ours, a model that was trained"
    ):
        make_plan(config)
    config["models"]["judge"]["model"] = {"pretrained": str(tmp_path / "published")}
    make_plan(config)
