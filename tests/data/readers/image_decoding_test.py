import io
import logging
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from kd_jax.core import limits
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


def saved(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def test_a_turned_photograph_is_put_upright():
    image = np.zeros((4, 6, 3), np.uint8)
    image[:2] = 255
    exif = Image.Exif()
    exif[274] = 6  # Turned by a quarter.
    changes = Counter()
    blob = saved(Image.fromarray(image), exif=exif)
    found = image_decoding.decode(blob, changes=changes)
    np.testing.assert_array_equal(found, np.rot90(image, -1))
    assert changes == {"turned as EXIF says": 1}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_put_on_white(mode):
    changes = Counter()
    if mode == "P":
        picture = Image.fromarray(np.zeros((2, 2), np.uint8), "P")
        picture.putpalette([9, 9, 9, 7, 7, 7])
        blob = saved(picture, transparency=0)
    else:
        pixels = np.zeros((2, 2, len(mode)), np.uint8)
        blob = saved(Image.fromarray(pixels, mode))
    found = image_decoding.decode(blob, changes=changes)
    assert (found == 255).all()
    assert found.shape[-1] == (1 if mode == "LA" else 3)
    assert changes == {"transparent, put on white": 1}


def test_half_transparent_is_mixed_with_white():
    pixels = np.full((1, 1, 4), (200, 100, 0, 128), np.uint8)
    found = image_decoding.decode(saved(Image.fromarray(pixels)))
    np.testing.assert_allclose(found[0, 0], [227, 177, 127], atol=1)


def test_16_bits_are_scaled_and_counted(caplog):
    grey = np.array([[0, 256, 65_535]], np.uint16)
    blob = saved(Image.fromarray(grey))
    with caplog.at_level(logging.INFO, "kd_jax"):
        images, bad = image_decoding.load_images([blob], 1, lambda _: blob)
    np.testing.assert_array_equal(images[0][..., 0], [[0, 1, 255]])
    assert not bad
    assert "of 1 pictures: 1 scaled from 16 bits to 8" in caplog.text


def test_of_a_moving_gif_the_first_frame_counts():
    frames = [Image.fromarray(np.full((3, 3), value, np.uint8)) for value in (10, 200)]
    found = image_decoding.decode(
        saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), 1
    )
    assert (found == 10).all()


HOSTILE = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
    "dds": b"DDS " + b"\x7c\0\0\0" + b"\xff" * 200,
    "tiff": saved(Image.fromarray(np.zeros((2, 2), np.uint8)), "TIFF"),
    "nothing": b"",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_other_kinds_are_unreadable_whatever_they_are_called(kind):
    with pytest.raises(image_decoding.UNREADABLE):
        image_decoding.decode(HOSTILE[kind])


def test_whatever_a_decoder_raises_is_one_bad_row(monkeypatch):
    def fail(*_arguments):
        raise IndexError("list index out of range")

    monkeypatch.setattr(image_decoding, "_as_array", fail)
    blob = saved(Image.fromarray(np.zeros((2, 2), np.uint8)))
    images, bad = image_decoding.load_images([blob], 1, lambda _: blob)
    assert len(images) == 0
    assert bad == {0: "unreadable image: IndexError: list index out of range"}


def test_a_file_larger_than_any_picture_is_refused(monkeypatch):
    monkeypatch.setattr(limits, "PICTURE", 10)
    with pytest.raises(ValueError, match="larger than"):
        image_decoding.decode(b"x" * 11)
