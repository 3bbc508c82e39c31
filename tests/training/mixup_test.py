"""Mixing: what is mixed with what, in which shares, and that everyone who reads the batch sees the
same mix."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kd_jax.core.types import Batch, ModelOutput, Teacher
from kd_jax.models import registry
from kd_jax.models.network import Network
from kd_jax.objective.objective import make_objective
from kd_jax.objective.terms import TermSpec
from kd_jax.training.mixup import Mixing, make_mixing
from kd_jax.training.state import TrainState
from kd_jax.training.step import ModelTraining, PeerGroup, mix_microbatch, train_step

pytestmark = pytest.mark.grid

ROWS, CLASSES = 64, 3
SPEC = dict(kind="mixup", probability=1.0, share=1.0, concentration=1.0, candidates=1)


def mixing(**changes):
    return make_mixing(SPEC | changes, "image", CLASSES)


def batch_of(views, *, labelled=None):
    rng = np.random.default_rng(1)
    known = np.ones(ROWS, bool) if labelled is None else labelled
    labels = np.where(known, rng.integers(0, CLASSES, ROWS), -1).astype(np.int32)
    return Batch(np.arange(ROWS, dtype=np.int32), views, labels, known, np.ones(ROWS, bool))


def pictures(*sizes):
    rng = np.random.default_rng(0)
    return {
        f"v{size}": {"images": rng.normal(size=(ROWS, size, size, 2)).astype(np.float32)}
        for size in sizes
    }


def one_hot(batch):
    return np.eye(CLASSES)[batch.labels]


# Images


def test_mixup_is_the_weighted_mean_of_two_examples_and_of_their_labels():
    batch, how, key = batch_of(pictures(6)), mixing(), jax.random.key(3)
    mix, result = how.draw(key, ROWS), how(batch, key)
    weight, images = np.asarray(mix.weight), batch.views["v6"]["images"]
    shares = weight[:, None, None, None]
    want = shares * images + (1 - shares) * images[mix.partner]
    np.testing.assert_allclose(result.views["v6"]["images"], want, atol=1e-6)
    want = weight[:, None] * one_hot(batch) + (1 - weight)[:, None] * one_hot(batch)[mix.partner]
    np.testing.assert_allclose(result.labels, want, atol=1e-6)
    assert sorted(np.asarray(mix.partner)) == list(range(ROWS))


def test_cutmix_takes_a_rectangle_of_the_partner_and_the_labels_by_its_area():
    batch, how, key = batch_of(pictures(200)), mixing(kind="cutmix"), jax.random.key(3)
    mix, result = how.draw(key, ROWS), how(batch, key)
    images = batch.views["v200"]["images"]
    mixed, theirs = np.asarray(result.views["v200"]["images"]), images[mix.partner]
    foreign = (mixed != images).any(-1)
    np.testing.assert_array_equal(mixed[foreign], theirs[foreign])
    for row in range(ROWS):
        lines, columns = np.nonzero(foreign[row])
        if lines.size:
            assert foreign[
                row, lines.min() : lines.max() + 1, columns.min() : columns.max() + 1
            ].all()
    moved = np.asarray(mix.partner) != np.arange(ROWS)
    np.testing.assert_allclose(
        foreign.mean((1, 2))[moved], 1 - np.asarray(mix.weight)[moved], atol=0.02
    )
    assert 0.1 < foreign.mean() < 0.6


def test_views_of_two_sizes_have_the_same_rectangle():
    small = pictures(16)["v16"]["images"]
    views = {"small": {"images": small}, "large": {"images": small.repeat(2, 1).repeat(2, 2)}}
    result = mixing(kind="cutmix")(batch_of(views), jax.random.key(0))
    foreign = {
        name: np.asarray(view["images"] != views[name]["images"]).any(-1)
        for name, view in result.views.items()
    }
    coarse = foreign["large"].reshape(ROWS, 16, 2, 16, 2)
    np.testing.assert_array_less(foreign["small"] & ~coarse.any((2, 4)), 1)
    assert np.mean(foreign["small"] != coarse.any((2, 4))) < 0.1


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_partial_mixing_leaves_the_other_examples_as_they_are_to_the_bit(kind):
    batch = batch_of(pictures(6))
    how = mixing(kind=kind, share=0.25)
    changed = []
    for seed in range(40):
        result = how(batch, jax.random.key(seed))
        same = np.asarray(how.draw(jax.random.key(seed), ROWS).weight) == 1
        np.testing.assert_array_equal(
            result.views["v6"]["images"][same], batch.views["v6"]["images"][same]
        )
        np.testing.assert_array_equal(result.labels[same], one_hot(batch)[same])
        changed.append(1 - same.mean())
    assert np.mean(changed) == pytest.approx(0.25, abs=0.04)


def test_a_batch_is_mixed_with_the_probability_that_is_asked_for():
    how = mixing(probability=0.3)
    mixed = [bool((how.draw(jax.random.key(seed), 8).weight < 1).any()) for seed in range(300)]
    assert np.mean(mixed) == pytest.approx(0.3, abs=0.09)


def test_the_concentration_shapes_the_weights():
    spread = {
        a: np.var(mixing(concentration=a).draw(jax.random.key(0), 4000).weight)
        for a in (0.2, 1.0, 8.0)
    }
    for alpha, variance in spread.items():
        assert variance == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_a_mix_with_an_unlabelled_example_has_no_label():
    labelled = np.arange(ROWS) % 2 == 0
    batch, how, key = batch_of(pictures(4), labelled=labelled), mixing(share=0.5), jax.random.key(1)
    mix = how.draw(key, ROWS)
    want = labelled & (labelled[mix.partner] | (np.asarray(mix.weight) == 1))
    np.testing.assert_array_equal(how(batch, key).label_valid, want)
    assert 0 < want.sum() < labelled.sum()


# Texts

BAG = dict(
    name="bag_of_embeddings",
    num_classes=CLASSES,
    vocabulary_size=30,
    width=5,
    hidden=(),
    dropout=0.0,
)


def test_texts_are_mixed_by_their_word_embeddings():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 30, (ROWS, 7)).astype(np.int32)
    mask = np.arange(7) < rng.integers(1, 8, ROWS)[:, None]
    batch = batch_of({"v": {"input_ids": ids, "attention_mask": mask}})
    network = Network(registry.build(BAG), "v", jnp.float32)
    variables = network.init(jax.random.key(0), batch)
    how, key = make_mixing(SPEC, "text", CLASSES), jax.random.key(2)
    assert how is not None
    mix, pooled = how.draw(key, ROWS), network(variables, how(batch, key)).features["pooled"]
    table = np.asarray(variables["params"]["word_embeddings"]["embedding"])
    weight, partner = np.asarray(mix.weight)[:, None, None], np.asarray(mix.partner)
    mixed = weight * table[ids] + (1 - weight) * table[ids[partner]]
    both = (mask | mask[partner])[..., None]
    np.testing.assert_allclose(pooled, (mixed * both).sum(1) / both.sum(1), atol=1e-6)


def test_the_gradient_reaches_both_texts():
    ids = np.arange(8, dtype=np.int32).reshape(2, 4)
    view = {
        "input_ids": ids,
        "attention_mask": np.ones((2, 4), bool),
        "partner_ids": ids[::-1],
        "weight": np.array([0.75, 1.0], np.float32),
    }
    batch = Batch(
        np.arange(2), {"v": view}, np.zeros(2, np.int32), np.ones(2, bool), np.ones(2, bool)
    )
    network = Network(registry.build(BAG), "v", jnp.float32)
    plain = dataclasses.replace(
        batch, views={"v": {k: view[k] for k in ("input_ids", "attention_mask")}}
    )
    variables = network.init(jax.random.key(0), plain)
    gradient = jax.grad(lambda v: network(v, batch).features["pooled"].sum())(variables)
    found = np.asarray(gradient["params"]["word_embeddings"]["embedding"]).mean(1)
    np.testing.assert_allclose(found[:4], 0.75 / 4, atol=1e-6)
    np.testing.assert_allclose(found[4:8], 1.25 / 4, atol=1e-6)


# In the step


class Mirror(nn.Module):
    """Returns the pixels that it was shown, so that student and teacher can be compared to the
    bit."""

    @nn.compact
    def __call__(self, images, *, train=False):
        shift = self.param("shift", nn.initializers.zeros, ())
        pixels = images.reshape(images.shape[0], -1) + shift
        return ModelOutput(pixels[:, :CLASSES], {"pooled": pixels})


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("candidates", [1, 3])
def test_function_matching_shows_teacher_and_student_the_same_picture_to_the_bit(kind, candidates):
    batch = batch_of(pictures(8))
    seen = {}

    def record(name):
        network = Network(Mirror(), "v8", jnp.float32)

        def apply(variables, batch):
            output = network(variables, batch)
            jax.debug.callback(
                lambda pixels: seen.setdefault(name, []).append(np.asarray(pixels)),
                output.features["pooled"],
                ordered=True,
            )
            return output

        return network, apply

    network, teacher = record("teacher")
    variables = network.init(jax.random.key(0), batch)
    shapes = jax.eval_shape(network, variables, batch)
    site = TermSpec(
        "v8", shapes, {"t": shapes}, None, {"t": "v8"}, np.asarray(batch.labels), CLASSES
    )
    matching = dict(term="hidden_mse", weight=1.0, student="pooled", teacher="pooled", mapping=None)
    learner = ModelTraining(network, make_objective(dict(match=matching), site), optax.sgd(0.0))
    group = PeerGroup({"s": learner}, 0, mixing(kind=kind, candidates=candidates))
    state = TrainState(jnp.zeros((), jnp.int32), {"s": learner.init(variables, jax.random.key(1))})
    parts = jax.tree.map(lambda leaf: leaf.reshape(1, *leaf.shape), batch)
    _, metrics = jax.jit(functools.partial(train_step, group=group))(
        state, {"t": Teacher(variables, teacher)}, parts
    )
    jax.effects_barrier()
    shown = seen["teacher"][-1]
    assert float(metrics["s"]["match"].total) == 0  # Not a rounding apart.
    assert (shown != batch.views["v8"]["images"].reshape(ROWS, -1)).any(1).mean() > 0.5


def test_of_several_candidates_the_teacher_is_least_certain_of_the_one_that_is_kept():
    batch = batch_of(pictures(8))
    network = Network(Mirror(), "v8", jnp.float32)
    variables = network.init(jax.random.key(0), batch)

    def entropy(b):
        return np.asarray(
            jax.scipy.special.entr(jax.nn.softmax(network(variables, b).logits)).sum(-1)
        )

    how, key = mixing(candidates=4), jax.random.key(5)
    kept = mix_microbatch(how, {"t": Teacher(variables, network)}, batch, key, None)
    each = np.stack([entropy(how(batch, k)) for k in jax.random.split(key, 4)])
    np.testing.assert_allclose(entropy(kept), each.max(0), atol=1e-6)
    assert (each.max(0) > each[0]).mean() > 0.5


def test_steps_draw_anew_and_the_same_step_draws_the_same():
    how = mixing()
    first, again, other = (how.draw(jax.random.key(s), ROWS).weight for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).all()


# Configs


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_section_is_no_mixing(nothing):
    assert make_mixing(nothing, "image", CLASSES) is None


@pytest.mark.parametrize(
    ("changes", "modality", "message"),
    [
        ({"kind": "cutmix"}, "text", "kind of text data is mixup, got 'cutmix'"),
        ({"kind": "blend"}, "image", "kind of image data is mixup or cutmix, got 'blend'"),
        ({"probability": 0.0}, "image", r"probability must be in \(0, 1\], got 0.0"),
        ({"share": 1.5}, "image", r"share must be in \(0, 1\], got 1.5"),
        ({"concentration": 0.0}, "image", "concentration must be positive"),
        ({"candidates": 0}, "image", "candidates must be at least 1"),
        ({"alpha": 1.0}, "image", "no option 'alpha'; its options are candidates, concentration"),
    ],
)
def test_what_can_not_be_mixed_is_refused(changes, modality, message):
    with pytest.raises(ValueError, match=message):
        make_mixing(SPEC | changes, modality, CLASSES)


def test_its_attributes_are_those_of_the_config():
    assert mixing(kind="cutmix", share=0.5) == Mixing("cutmix", 1.0, 0.5, 1.0, 1, CLASSES)
