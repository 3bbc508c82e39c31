"""New images from pairs: the means are of two, a rectangle is one, and the shares are the Beta
distribution's."""

import numpy as np
import pytest

from kd_jax.experiments.transfer_sets.image_mixes import mix_images

LEVELS = np.repeat(np.arange(0, 250, 10, np.uint8), 40)
FLAT = np.broadcast_to(LEVELS[:, None, None, None], (1000, 8, 6, 1)).copy()


def mix(images=FLAT, kind="mixup", concentration=1.0, seed=0):
    return mix_images(
        images, kind=kind, concentration=concentration, rng=np.random.default_rng(seed)
    )


def test_mixup_is_a_weighted_mean_of_two_images():
    mixed = mix()
    assert mixed.dtype == np.uint8
    assert (mixed == mixed[:, :1, :1]).all()
    assert mixed.min() >= FLAT.min()
    assert mixed.max() <= FLAT.max()
    pure = np.stack([np.zeros((8, 6, 1), np.uint8), np.full((8, 6, 1), 200, np.uint8)])
    shares = np.array([mix(pure, seed=seed)[1, 0, 0, 0] for seed in range(400)]) / 200
    shares = shares[shares < 1]  # The rest met themselves.
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)
    assert np.std(shares) == pytest.approx(np.sqrt(1 / 12), abs=0.05)
    assert (
        max(mix(pure, seed=seed)[0, 0, 0, 0] for seed in range(20)) > 100
    )  # The dark one, mixed with the bright one.


def test_cutmix_puts_one_rectangle_of_a_second_image_into_the_first():
    for old, new in zip(FLAT, mix(kind="cutmix"), strict=True):
        inside = (new != old)[..., 0]
        rows, columns = inside.any(axis=1), inside.any(axis=0)
        assert (inside == rows[:, None] & columns).all()
        assert len(np.unique(new[inside])) <= 1
        for line in (rows, columns):
            assert (np.diff(np.flatnonzero(line)) == 1).all()


def test_cutmix_s_rectangles_have_the_drawn_area_but_for_the_border():
    """Uniform shares: half of the area where nothing is cut off, and less where it is."""
    pure = np.concatenate(
        [np.zeros((500, 16, 16, 1), np.uint8), np.full((500, 16, 16, 1), 200, np.uint8)]
    )
    share = np.mean(mix(pure, kind="cutmix") != pure)
    assert 0.12 < share < 0.25  # Half of them meet their like, in which nothing shows.


def test_a_large_concentration_halves():
    pure = np.stack([np.zeros((8, 6, 1), np.uint8), np.full((8, 6, 1), 200, np.uint8)])
    found = np.concatenate([mix(pure, concentration=1e6, seed=seed) for seed in range(10)])
    assert set(np.unique(found)) <= {0, 100, 200}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(kind="blend"), "there are mixup, cutmix"),
        (dict(images=[FLAT[0], FLAT[1]]), "one size"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        mix(**options)
