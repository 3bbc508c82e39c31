import numpy as np
import pytest
from PIL import Image

from kd_jax.data.readers import image_decoding


def test_colour_to_grey_is_pillows():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        image_decoding.convert_channels(image, 1)[..., 0],
        np.asarray(Image.fromarray(image).convert("L")),
    )


def test_grey_to_colour_repeats():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    np.testing.assert_array_equal(
        image_decoding.convert_channels(image, 3), np.repeat(image, 3, -1)
    )


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="2 channels into 3"):
        image_decoding.convert_channels(np.zeros((2, 2, 2), np.uint8), 3)
