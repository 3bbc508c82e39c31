"""An ensemble: its members' logits combined by hand, its place in a config, its learned weights, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from kd_jax.plan import make_plan
from kd_jax.teachers.ensemble import Ensemble, mixture_weights, without_labels
from kd_jax.types import Batch, ModelOutput

B, K = 6, 4
RNG = np.random.default_rng(0)
LOGITS = {name: RNG.normal(scale=2, size=(B, K)).astype(np.float32) for name in "abc"}
STACKED = np.stack(list(LOGITS.values()))
BATCH = Batch(np.arange(B), {}, np.array([0, 1, 2, 3, -1, 1]), np.array([1, 1, 1, 1, 0, 1], bool), np.ones(B, bool))
WEIGHTS, TEMPERATURES = (0.5, 0.3, 0.2), (1.0, 2.0, 4.0)


class Fixed:
    """A member whose logits are known; its features differ in width and dtype from the others'."""

    def __init__(self, width, dtype=jnp.float32):
        self.width, self.dtype = width, dtype

    def __call__(self, variables, _batch):
        return ModelOutput(jnp.asarray(variables), {"pooled": jnp.full((B, self.width), self.width, self.dtype)})

    def frozen(self, variables):
        return variables


def combined(combine, weights=WEIGHTS, temperatures=TEMPERATURES, batch=BATCH):
    members = {"a": Fixed(1), "b": Fixed(2, jnp.bfloat16), "c": Fixed(3)}
    return Ensemble(members, combine, weights, temperatures, "v")(LOGITS, batch)


# How members are combined


def test_the_mean_of_probabilities_is_of_the_softened_ones():
    softened = [w * special.softmax(z / t, -1) for w, z, t in zip(WEIGHTS, STACKED, TEMPERATURES, strict=True)]
    found = combined("mean_probabilities").logits
    np.testing.assert_allclose(jnp.exp(found), sum(softened), rtol=1e-5)


def test_the_mean_of_logits_is_of_the_scaled_ones():
    scaled = [w * z / t for w, z, t in zip(WEIGHTS, STACKED, TEMPERATURES, strict=True)]
    np.testing.assert_allclose(combined("mean_logits").logits, sum(scaled), rtol=1e-5)


def test_the_most_confident_member_speaks_for_each_example():
    found = np.asarray(combined("most_confident", temperatures=(1.0,) * 3).logits)
    chosen = special.softmax(STACKED, -1).max(-1).argmax(0)
    assert len(set(chosen)) > 1
    np.testing.assert_array_equal(found, STACKED[chosen, np.arange(B)])


def test_the_least_loss_is_that_on_the_label_and_confidence_where_there_is_none():
    found = np.asarray(combined("least_loss", temperatures=(1.0,) * 3).logits)
    log_p = special.log_softmax(STACKED, -1)
    chosen = log_p[:, np.arange(B), BATCH.labels].argmax(0)
    chosen[4] = log_p.max(-1).argmax(0)[4]
    np.testing.assert_array_equal(found, STACKED[chosen, np.arange(B)])


def test_the_least_loss_of_soft_labels_is_their_cross_entropy():
    soft = special.softmax(RNG.normal(size=(B, K)), -1).astype(np.float32)
    batch = Batch(BATCH.index, {}, soft, np.ones(B, bool), BATCH.valid)
    chosen = (special.log_softmax(STACKED, -1) * soft).sum(-1).argmax(0)
    found = np.asarray(combined("least_loss", temperatures=(1.0,) * 3, batch=batch).logits)
    np.testing.assert_array_equal(found, STACKED[chosen, np.arange(B)])


def test_where_it_is_evaluated_it_can_not_read_the_label():
    ensemble = Ensemble({"a": Fixed(1), "b": Fixed(2), "c": Fixed(3)}, "least_loss", WEIGHTS, (1.0,) * 3, "v")
    blind = without_labels(ensemble)(LOGITS, BATCH).logits
    np.testing.assert_array_equal(blind, combined("most_confident", temperatures=(1.0,) * 3).logits)
    assert (np.asarray(blind) != np.asarray(ensemble(LOGITS, BATCH).logits)).any()
    assert without_labels("anything else") == "anything else"


def test_a_member_without_weight_in_float_still_gives_finite_logits():
    assert np.isfinite(combined("mean_probabilities", weights=(1.0, 1e-30, 1e-30)).logits).all()


def test_features_are_each_members_own_and_all_pooled_side_by_side():
    features = combined("mean_logits").features
    assert set(features) == {"a/pooled", "b/pooled", "c/pooled", "pooled"}
    np.testing.assert_array_equal(features["pooled"][0], [1, 2, 2, 3, 3, 3])


# Learned weights


def test_learned_weights_are_the_best_on_a_grid():
    """Against every mixture of two on a grid of a thousandth."""
    labels = RNG.integers(0, K, 200)
    informed = special.softmax(np.eye(K)[labels] * 1.0 + RNG.normal(size=(200, K)), -1)
    other = special.softmax(np.eye(K)[labels] * 0.7 + RNG.normal(size=(200, K)), -1)
    weights = mixture_weights(np.stack([informed, other]), labels)
    rows = np.arange(200)
    loss = [-np.log(w * informed[rows, labels] + (1 - w) * other[rows, labels]).mean() for w in np.linspace(0, 1, 1001)]
    assert 0.1 < weights[0] < 0.99
    assert weights[0] == pytest.approx(np.argmin(loss) / 1000, abs=2e-3)
    assert weights.sum() == pytest.approx(1)


def test_a_useless_member_gets_no_weight():
    labels = np.zeros(50, int)
    good, bad = np.full((50, K), 0.01), np.full((50, K), 0.3)
    good[:, 0], bad[:, 0] = 0.97, 0.1
    np.testing.assert_allclose(mixture_weights(np.stack([good, bad]), labels), [1, 0], atol=1e-6)


def test_jit_takes_an_ensemble():
    members = {"a": Fixed(1), "b": Fixed(2), "c": Fixed(3)}
    ensemble = Ensemble(members, "mean_probabilities", WEIGHTS, TEMPERATURES, "v")
    np.testing.assert_allclose(
        jax.jit(ensemble)(LOGITS, BATCH).logits, combined("mean_probabilities").logits, rtol=1e-5
    )


# In a config


def plan_of(**changes):
    from pathlib import Path

    from kd_jax.command import load_config, plain

    config = load_config(f"{Path(__file__).parents[2] / 'configs' / 'digits_three_teachers.py'}:smoke")
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return make_plan(plain(config))


def test_members_come_before_their_ensemble_and_it_before_its_students():
    order = [model.name for model in plan_of().models]
    members = plan_of()["ensemble"].members
    assert len(members) == 3
    assert max(order.index(name) for name in members) < order.index("ensemble") < order.index("student")


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
