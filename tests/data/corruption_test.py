"""Corruptions against hand cases and scipy's Gaussian; the same everywhere, stronger with each
severity."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from kd_jax.data.corruption import KINDS, Corruption, make_corruption

PHOTO = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
PHOTO[:, :4] = 128  # Where nothing is clipped.


def distance(kind, severity):
    changed = Corruption(kind, severity)(PHOTO, 3)
    return np.sqrt(np.mean((changed.astype(float) - PHOTO) ** 2))


@pytest.mark.parametrize("kind", KINDS)
def test_each_severity_is_further_from_the_image_than_the_one_before(kind):
    distances = [distance(kind, severity) for severity in range(1, 6)]
    assert distances[0] > 1
    assert np.all(np.diff(distances) > 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_and_dtype_stay_and_the_input_is_left_alone(kind, channels):
    image = PHOTO[..., :channels].copy()
    changed = Corruption(kind, 5)(image, 0)
    assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
    np.testing.assert_array_equal(image, PHOTO[..., :channels])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_row_is_corrupted_in_the_same_way(kind):
    np.testing.assert_array_equal(Corruption(kind, 2)(PHOTO, 7), Corruption(kind, 2)(PHOTO, 7))


def test_noise_differs_by_row_and_is_known_on_any_machine():
    grey = np.full((2, 2, 1), 100, np.uint8)
    first, second = (
        Corruption("gaussian_noise", 1)(grey, 0),
        Corruption("gaussian_noise", 1)(grey, 1),
    )
    assert not np.array_equal(first, second)
    noise = 20.4 * np.random.default_rng([1903, 0]).standard_normal((2, 2, 1))
    np.testing.assert_array_equal(first, np.rint(100 + noise))


@pytest.mark.parametrize(("severity", "std"), [(1, 20.4), (3, 45.9)])
def test_noise_has_the_standard_deviation_of_the_table(severity, std):
    grey = np.full((200, 200, 1), 128, np.uint8)
    changed = Corruption("gaussian_noise", severity)(grey, 0).astype(float)
    assert changed.std() == pytest.approx(std, rel=0.02)
    assert changed.mean() == pytest.approx(128, abs=1)


def test_contrast_draws_each_channel_to_its_own_mean():
    image = np.stack([np.full((2, 2), 10), [[0, 100], [100, 200]]], axis=-1).astype(np.uint8)
    changed = Corruption("contrast", 1)(image, 0)
    np.testing.assert_array_equal(changed[..., 0], 10)
    np.testing.assert_array_equal(changed[..., 1], [[60, 100], [100, 140]])


@pytest.mark.parametrize(("severity", "std"), [(1, 0.4), (3, 0.7), (5, 1.0)])
def test_blur_is_a_gaussian_that_repeats_the_edge(severity, std):
    want = gaussian_filter(
        PHOTO.astype(float), (std, std, 0), mode="nearest", radius=int(np.ceil(4 * std))
    )
    np.testing.assert_array_equal(Corruption("blur", severity)(PHOTO, 0), np.rint(want))


def test_blur_takes_images_smaller_than_its_kernel():
    np.testing.assert_array_equal(
        Corruption("blur", 5)(np.full((1, 2, 1), 77, np.uint8), 0), np.full((1, 2, 1), 77)
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"kind": "fog", "severity": 1},
            r"^unknown x\.kind 'fog'; there are blur, contrast, gaussian_noise$",
        ),
        ({"kind": "blur", "severity": 0}, r"^x\.severity is a whole number from 1 to 5, got 0$"),
        ({"kind": "blur", "severity": 6}, r"^x\.severity is a whole number from 1 to 5, got 6$"),
        (
            {"kind": "blur", "severity": 2.5},
            r"^x\.severity is a whole number from 1 to 5, got 2\.5$",
        ),
        (
            {"kind": "blur", "severity": True},
            r"^x\.severity is a whole number from 1 to 5, got True$",
        ),
        ({"kind": "blur"}, "^x needs option 'severity'"),
        ({"kind": "blur", "severity": 1, "seed": 0}, "^x has no option 'seed'"),
    ],
)
def test_what_is_no_corruption_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        make_corruption(spec, "x")
