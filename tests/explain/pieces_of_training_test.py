import pytest
from paths import TESTS

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.plan import make_plan
from kd_jax.explain.pieces_of_training import PIECES, sources_of, terms_of

SHARED = TESTS / "configs" / "shared.py"


@pytest.fixture
def config():
    return plain(load_config(str(SHARED)))


def test_terms_are_those_of_the_objective_and_a_subset_of_them_is_a_config(config):
    players = terms_of(config, "student")
    assert (players.kind, players.names) == ("terms", ("hard", "soft"))
    found = players.config_of(frozenset({"soft"}))
    before, after = make_plan(config)["student"], make_plan(found)["student"]
    assert after.objective == {"soft": config["models"]["student"]["objective"]["soft"]}
    for key in ("model", "view", "dtype", "teachers", "cached", "training", "seed_group"):
        assert getattr(after, key) == getattr(before, key)
    assert set(config["models"]["student"]["objective"]) == {"hard", "soft"}


def test_sources_are_those_that_the_training_data_names(config):
    config["models"]["student"]["data"] = ("train", "augmented", "web")
    players = sources_of(config, "student")
    assert (players.kind, players.names) == ("sources", ("train", "augmented", "web"))
    found = players.config_of(frozenset({"web", "train"}))
    assert found["models"]["student"] == {**config["models"]["student"], "data": ("train", "web")}
    assert set(found["compare"].values()) == {"student"}
    assert found["evaluations"] == {}
    assert {name: found["models"][name] for name in ("teacher", "baseline")} == {
        name: config["models"][name] for name in ("teacher", "baseline")
    }


@pytest.mark.parametrize(
    ("data", "found"), [({}, "no source"), ({"data": ("train",)}, r"1 source\(s\)")]
)
def test_fewer_than_two_sources_have_no_values(data, found, config):
    config["models"]["student"] |= data
    with pytest.raises(
        ValueError,
        match=rf"models\.student\.data names {found}.* of training data; values need two",
    ):
        sources_of(config, "student")


def test_a_model_without_an_objective_has_no_terms(config):
    config["models"]["teacher"]["objective"] = {}
    with pytest.raises(
        ValueError, match=r"models\.teacher has no objective, and so no terms to value"
    ):
        terms_of(config, "teacher")


def test_the_flag_offers_all_kinds_of_players():
    from kd_jax.cli import FLAGS

    assert set(FLAGS["players"].parser.enum_values) == {"members", "features", *PIECES}
