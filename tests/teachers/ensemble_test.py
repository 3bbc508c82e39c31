"""An ensemble: its members' logits combined by hand, and what it may not know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from kd_jax.core.types import Batch, ModelOutput
from kd_jax.teachers.ensemble import Ensemble, without_labels

B, K = 6, 4
RNG = np.random.default_rng(0)
LOGITS = {name: RNG.normal(scale=2, size=(B, K)).astype(np.float32) for name in "abc"}
STACKED = np.stack(list(LOGITS.values()))
BATCH = Batch(
    np.arange(B),
    {},
    np.array([0, 1, 2, 3, -1, 1]),
    np.array([1, 1, 1, 1, 0, 1], bool),
    np.ones(B, bool),
)
WEIGHTS, TEMPERATURES = (0.5, 0.3, 0.2), (1.0, 2.0, 4.0)


class Fixed:
    """A member whose logits are known; its features differ in width and dtype from the others'."""

    def __init__(self, width, dtype=jnp.float32):
        self.width, self.dtype = width, dtype

    def __call__(self, variables, _batch):
        return ModelOutput(
            jnp.asarray(variables), {"pooled": jnp.full((B, self.width), self.width, self.dtype)}
        )

    def frozen(self, variables):
        return variables


def combined(combine, weights=WEIGHTS, temperatures=TEMPERATURES, batch=BATCH):
    members = {"a": Fixed(1), "b": Fixed(2, jnp.bfloat16), "c": Fixed(3)}
    return Ensemble(members, combine, weights, temperatures, "v")(LOGITS, batch)


# How members are combined


def test_the_mean_of_probabilities_is_of_the_softened_ones():
    softened = [
        w * special.softmax(z / t, -1)
        for w, z, t in zip(WEIGHTS, STACKED, TEMPERATURES, strict=True)
    ]
    found = combined("mean_probabilities").logits
    np.testing.assert_allclose(jnp.exp(found), sum(softened), rtol=1e-5)


def test_of_sets_each_class_has_a_mean_probability_of_its_own():
    members = {"a": Fixed(1), "b": Fixed(2, jnp.bfloat16), "c": Fixed(3)}
    ensemble = Ensemble(members, "mean_probabilities", WEIGHTS, TEMPERATURES, "v", "sets")
    chances = [
        w * special.expit(z / t) for w, z, t in zip(WEIGHTS, STACKED, TEMPERATURES, strict=True)
    ]
    found = special.expit(np.asarray(ensemble(LOGITS, BATCH).logits, np.float64))
    np.testing.assert_allclose(found, sum(chances), rtol=1e-5)


@pytest.mark.parametrize("combine", ["mean_probabilities", "mean_logits"])
def test_of_several_predictions_an_example_each_is_combined_by_itself(combine):
    members = {"a": Fixed(1), "b": Fixed(2), "c": Fixed(3)}
    ensemble = Ensemble(members, combine, WEIGHTS, TEMPERATURES, "v")
    several = {name: jnp.stack([z, 2 * z], axis=1) for name, z in LOGITS.items()}
    found = ensemble(several, BATCH).logits
    doubled = {name: 2 * z for name, z in LOGITS.items()}
    np.testing.assert_allclose(found[:, 0], ensemble(LOGITS, BATCH).logits, rtol=1e-5)
    np.testing.assert_allclose(found[:, 1], ensemble(doubled, BATCH).logits, rtol=1e-5)


def test_members_of_other_widths_are_refused():
    ensemble = Ensemble({"a": Fixed(1), "b": Fixed(1)}, "mean_logits", (0.5, 0.5), (1.0, 1.0), "v")
    with pytest.raises(ValueError, match=r"outputs of one width, got \{'a': 3, 'b': 2\}"):
        ensemble({"a": jnp.zeros((B, 3)), "b": jnp.zeros((B, 2))}, BATCH)


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


def test_without_any_label_the_least_loss_is_confidence_in_every_row():
    unlabelled = Batch(BATCH.index, {}, np.full(B, -1), np.zeros(B, bool), BATCH.valid)
    found = combined("least_loss", temperatures=(1.0,) * 3, batch=unlabelled).logits
    np.testing.assert_array_equal(found, combined("most_confident", temperatures=(1.0,) * 3).logits)


def test_the_least_loss_of_soft_labels_is_their_cross_entropy():
    soft = special.softmax(RNG.normal(size=(B, K)), -1).astype(np.float32)
    batch = Batch(BATCH.index, {}, soft, np.ones(B, bool), BATCH.valid)
    chosen = (special.log_softmax(STACKED, -1) * soft).sum(-1).argmax(0)
    found = np.asarray(combined("least_loss", temperatures=(1.0,) * 3, batch=batch).logits)
    np.testing.assert_array_equal(found, STACKED[chosen, np.arange(B)])


def test_where_it_is_evaluated_it_can_not_read_the_label():
    ensemble = Ensemble(
        {"a": Fixed(1), "b": Fixed(2), "c": Fixed(3)}, "least_loss", WEIGHTS, (1.0,) * 3, "v"
    )
    blind = without_labels(ensemble)(LOGITS, BATCH).logits
    np.testing.assert_array_equal(blind, combined("most_confident", temperatures=(1.0,) * 3).logits)
    assert (np.asarray(blind) != np.asarray(ensemble(LOGITS, BATCH).logits)).any()
    assert without_labels("anything else") == "anything else"


@pytest.mark.parametrize("combine", ["mean_probabilities", "mean_logits", "most_confident"])
def test_an_ensemble_that_needs_no_label_is_the_same_without_them(combine):
    inner = Ensemble({"a": Fixed(1)}, combine, (1.0,), (1.0,), "v")
    outer = Ensemble({"inner": inner}, "mean_logits", (1.0,), (1.0,), "v")
    assert without_labels(outer) is outer


def test_nor_can_an_ensemble_that_is_a_member_of_another():
    members = {"a": Fixed(1), "b": Fixed(2), "c": Fixed(3)}
    inner = Ensemble(members, "least_loss", WEIGHTS, (1.0,) * 3, "v")
    outer = Ensemble({"all": inner, "a": Fixed(1)}, "mean_logits", (0.5, 0.5), (1.0, 1.0), "v")
    variables = {"all": LOGITS, "a": LOGITS["a"]}
    confident = np.asarray(combined("most_confident", temperatures=(1.0,) * 3).logits)
    np.testing.assert_allclose(
        without_labels(outer)(variables, BATCH).logits, (confident + LOGITS["a"]) / 2, rtol=1e-5
    )
    assert (np.asarray(outer(variables, BATCH).logits) != (confident + LOGITS["a"]) / 2).any()


def test_a_member_without_weight_in_float_still_gives_finite_logits():
    assert np.isfinite(combined("mean_probabilities", weights=(1.0, 1e-30, 1e-30)).logits).all()


def test_features_are_each_members_own_and_all_pooled_side_by_side():
    features = combined("mean_logits").features
    assert set(features) == {"a/pooled", "b/pooled", "c/pooled", "pooled"}
    np.testing.assert_array_equal(features["pooled"][0], [1, 2, 2, 3, 3, 3])


def test_jit_takes_an_ensemble():
    members = {"a": Fixed(1), "b": Fixed(2), "c": Fixed(3)}
    ensemble = Ensemble(members, "mean_probabilities", WEIGHTS, TEMPERATURES, "v")
    np.testing.assert_allclose(
        jax.jit(ensemble)(LOGITS, BATCH).logits, combined("mean_probabilities").logits, rtol=1e-5
    )
