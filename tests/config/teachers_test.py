"""Whom a section names: a model's own moving average, and the peers that are trained with it."""

import pytest

from kd_jax.config.teachers import check_average, check_peers


def test_a_model_may_learn_from_its_check_average():
    assert check_average("s", {"teachers": ("big", "ema:s"), "ema": {"decay": 0.99}}) == 0.99


@pytest.mark.parametrize("section", [{}, {"teachers": ("big",)}, {"teachers": (), "ema": None}])
def test_one_that_does_not_has_none(section):
    assert check_average("s", section) is None


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"teachers": ("ema:t",), "ema": {"decay": 0.9}},
            r"^models.s.teachers names 'ema:t'; .* there is 'ema:s'$",
        ),
        (
            {"teachers": ("ema:s",)},
            r"^models.s: ema=dict\(decay=...\) and the teacher 'ema:s' go together$",
        ),
        ({"teachers": (), "ema": {"decay": 0.9}}, r"go together$"),
    ],
)
def test_what_does_not_go_together_is_refused(section, message):
    with pytest.raises(ValueError, match=message):
        check_average("s", section)


def sections(**others):
    trained = dict(objective={"soft": {}}, training=dict(batch_size=8, epochs=1.0, accumulate=1))
    return {
        "a": trained | {"teachers": ("big", "peer:b")},
        "b": trained | {"teachers": ("peer:a",)} | others,
        "big": trained,
    }


def test_peers_name_each_other():
    assert check_peers("a", sections()["a"], sections()) == ("b",)
    assert check_peers("big", sections()["big"], sections()) == ()


@pytest.mark.parametrize(
    ("others", "own", "message"),
    [
        (
            {"teachers": ("big",)},
            {},
            r"^models.a.teachers names 'peer:b'; models.b.teachers must name 'peer:a'$",
        ),
        ({}, {"teachers": ("peer:c",)}, r"^models.a.teachers names 'peer:c'; there are b, big$"),
        ({}, {"teachers": ("peer:a",)}, r"names 'peer:a'; there are b, big$"),
        (
            {"objective": {}},
            {},
            r"^models.b has a peer, 'a': it needs an objective and can't be restored$",
        ),
        ({"restore": "elsewhere"}, {}, r"can't be restored$"),
        (
            {"training": dict(batch_size=4, epochs=2.0, accumulate=1)},
            {},
            r"differ in training \(batch_size, epochs\)$",
        ),
        ({"data": ("train", "more")}, {}, r"^models.a and its peer 'b' differ in data$"),
        (
            {"cached": ("t",), "cached_as": {"top_k": 3}},
            {"cached": ("t",)},
            r"^models.a and its peer 'b' differ in cached_as$",
        ),
        (
            {},
            {"cached": ("peer:b",)},
            r"^models.a.cached names 'peer:b', whose outputs change in every step$",
        ),
    ],
)
def test_peers_that_can_t_be_trained_together_are_refused(others, own, message):
    known = sections(**others)
    known["a"] = known["a"] | own
    with pytest.raises(ValueError, match=message):
        check_peers("a", known["a"], known)
