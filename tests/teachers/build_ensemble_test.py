"""The members of an ensemble: their place in a config, their weights given or learned, what is
refused."""

import numpy as np
import pytest
from paths import ROOT
from scipy import special

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.plan import make_plan
from kd_jax.teachers.build_ensemble import _numbers, mixture_weights

pytestmark = pytest.mark.slow

K = 4
RNG = np.random.default_rng(0)

# Weights


@pytest.mark.parametrize("given", ["learnt", 0.5, (0.5,), (0.5, 0.0), (0.5, "half")])
def test_numbers_that_are_not_one_a_member_are_refused(given):
    with pytest.raises(
        ValueError, match="weights must be None or 2 positive numbers, one a member, got"
    ):
        _numbers(given, 2, "weights", (1.0, 1.0))


def test_learned_weights_are_the_best_on_a_grid():
    """Against every mixture of two on a grid of a thousandth."""
    labels = RNG.integers(0, K, 200)
    informed = special.softmax(np.eye(K)[labels] * 1.0 + RNG.normal(size=(200, K)), -1)
    other = special.softmax(np.eye(K)[labels] * 0.7 + RNG.normal(size=(200, K)), -1)
    weights = mixture_weights(np.stack([informed, other]), labels)
    rows = np.arange(200)
    loss = [
        -np.log(w * informed[rows, labels] + (1 - w) * other[rows, labels]).mean()
        for w in np.linspace(0, 1, 1001)
    ]
    assert 0.1 < weights[0] < 0.99
    assert weights[0] == pytest.approx(np.argmin(loss) / 1000, abs=2e-3)
    assert weights.sum() == pytest.approx(1)


def test_a_useless_member_gets_no_weight():
    labels = np.zeros(50, int)
    good, bad = np.full((50, K), 0.01), np.full((50, K), 0.3)
    good[:, 0], bad[:, 0] = 0.97, 0.1
    np.testing.assert_allclose(mixture_weights(np.stack([good, bad]), labels), [1, 0], atol=1e-6)


# In a config


def plan_of(**changes):
    config = load_config(f"{ROOT / 'configs' / 'digits_three_teachers.py'}:smoke")
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return make_plan(plain(config))


def test_members_come_before_their_ensemble_and_it_before_its_students():
    order = [model.name for model in plan_of().models]
    members = plan_of()["ensemble"].members
    assert len(members) == 3
    assert (
        max(order.index(name) for name in members)
        < order.index("ensemble")
        < order.index("student")
    )


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (("vgg",), "must name two or more different models"),
        (("vgg", "vgg"), "must name two or more different models"),
        (("vgg", "nobody"), "names 'nobody'; there are"),
        (("vgg", "ensemble"), "names 'ensemble'; there are"),
        (("vgg", "student"), "form a circle"),
    ],
)
def test_members_that_can_not_be_are_refused(members, message):
    with pytest.raises(ValueError, match=message):
        plan_of(**{"models.ensemble.model.members": members})
