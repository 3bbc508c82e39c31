"""Banzhaf values of a prediction: against the exact values of the same game, linear networks,
chunks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.analysis.banzhaf import attribute_by_coins, draw_coins
from kd_jax.analysis.masking import mask_batch, replace_patches
from kd_jax.analysis.shapley import banzhaf_values

RNG = np.random.default_rng(0)
IMAGES = {"images": RNG.normal(size=(3, 4, 6, 2)).astype(np.float32)}
CLASSES = np.array([2, 0, 1])
PATCHES = replace_patches(grid=(2, 3), baseline=0.3)
EVERY = np.array(list(itertools.product([False, True], repeat=6)))
FIRST, SECOND = (
    jax.random.normal(jax.random.key(0), (48, 8)),
    jax.random.normal(jax.random.key(1), (8, 3)),
)


def network(view):
    """Logits `[N, 3]`, not linear in the images."""
    return jnp.tanh(view["images"].reshape(-1, 48) @ FIRST / 4) @ SECOND


def test_over_all_coins_they_are_the_exact_banzhaf_values():
    found = attribute_by_coins(network, PATCHES, IMAGES, CLASSES, EVERY, rows=512)
    assert found.shape == (3, 6)
    for example, label in enumerate(CLASSES):
        alone = {"images": IMAGES["images"][example : example + 1]}

        def value(subset, alone=alone, label=label):
            return network(PATCHES(alone, np.array([[player in subset for player in range(6)]])))[
                0, label
            ]

        want, _ = banzhaf_values(value, range(6))
        np.testing.assert_allclose(found[example], list(want.values()), atol=1e-5)


def test_a_linear_networks_patches_are_worth_what_they_hold_whatever_the_coins():
    weights = RNG.normal(size=(4, 6, 2, 3)).astype(np.float32)

    def linear(view):
        return jnp.einsum("nhwc,hwck->nk", view["images"], weights)

    found = attribute_by_coins(
        linear, PATCHES, IMAGES, CLASSES, draw_coins(jax.random.key(3), 6, 1), rows=16
    )
    held = (
        ((IMAGES["images"] - 0.3)[..., None] * weights[None])
        .reshape(3, 2, 2, 3, 2, 2, 3)
        .sum(axis=(2, 4, 5))
    )
    np.testing.assert_allclose(found, held.reshape(3, 6, 3)[np.arange(3), :, CLASSES], atol=1e-5)


@pytest.mark.parametrize("rows", [1, 10, 1000])
def test_the_size_of_a_forward_pass_changes_nothing(rows):
    coins = draw_coins(jax.random.key(0), 6, 2)
    want = attribute_by_coins(network, PATCHES, IMAGES, CLASSES, coins, rows=42)
    found = jax.jit(
        lambda view: attribute_by_coins(network, PATCHES, view, CLASSES, coins, rows=rows)
    )(IMAGES)
    np.testing.assert_allclose(found, want, atol=1e-6)


def test_a_batch_of_two_views_is_hidden_in_both(make_batch):
    """A network that adds what two views show is worth their sum."""
    larger = {"images": RNG.normal(size=(3, 8, 12, 1)).astype(np.float32)}
    batch = make_batch({"small": IMAGES, "large": larger, "unread": IMAGES}, rows=3)

    def of_large(view):
        return jnp.repeat(jnp.sin(view["images"]).sum((1, 2)), 3, axis=1)

    def both(shown):
        return network(shown.views["small"]) + of_large(shown.views["large"])

    coins = draw_coins(jax.random.key(0), 6, 3)
    found = attribute_by_coins(
        both, mask_batch({"small": PATCHES, "large": PATCHES}), batch, CLASSES, coins, rows=64
    )
    parts = [
        attribute_by_coins(model, PATCHES, view, CLASSES, coins, rows=64)
        for model, view in ((network, IMAGES), (of_large, larger))
    ]
    assert np.abs(parts[1]).min() > 1e-3
    np.testing.assert_allclose(found, parts[0] + parts[1], atol=1e-5)
    only = attribute_by_coins(both, mask_batch({"small": PATCHES}), batch, CLASSES, coins, rows=64)
    np.testing.assert_allclose(only, parts[0], atol=1e-5)


def test_a_coin_is_fair_and_follows_its_key():
    coins = draw_coins(jax.random.key(0), 50, 200)
    assert coins.shape == (200, 50)
    assert abs(float(jnp.mean(coins)) - 0.5) < 0.02
    assert not np.array_equal(coins, draw_coins(jax.random.key(1), 50, 200))


@pytest.mark.parametrize("shape", [(6,), (0, 6), (2, 0)])
def test_coins_of_another_shape_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"coins must be \[R, M\], at least one round and player, got \("
    ):
        attribute_by_coins(network, PATCHES, IMAGES, CLASSES, np.zeros(shape, bool), rows=4)


def test_classes_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"classes must be one int or \[B\], \(3,\), got \(2,\)"):
        attribute_by_coins(network, PATCHES, IMAGES, CLASSES[:2], EVERY, rows=4)
