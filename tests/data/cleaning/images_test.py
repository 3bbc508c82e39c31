import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kd_jax.data.cleaning.images import MAX_ASPECT, check, pixel_hash

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (20, 30, 3), np.uint8)
FORMATS = ["PNG", "JPEG", "BMP", "WEBP", "GIF"]


def encode(pixels, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def bomb(width, height):
    """A PNG of a few bytes whose header promises that many pixels."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_sound_files_pass(kind):
    assert check(encode(NOISE, kind)) == []


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_was_cut_is_truncated(kind, share):
    blob = encode(NOISE, kind)
    assert check(blob[: int(share * len(blob))]) == ["truncated"]


@pytest.mark.parametrize(
    "blob", [b"", b"no picture at all", b"\0" * 1000, encode(NOISE).replace(b"IDAT", b"IDXT")]
)
def test_what_is_no_picture_or_a_broken_one_is_undecodable(blob):
    assert check(blob) == ["undecodable"]


def test_a_bomb_is_judged_by_its_header_without_decoding(monkeypatch):
    monkeypatch.setattr(
        "kd_jax.data.readers.image_decoding.decode", lambda *_: pytest.fail("was decoded")
    )
    assert check(bomb(5_000, 5_000), max_pixels=24_999_999) == ["decompression_bomb"]
    assert check(bomb(60_000, 60_000)) == ["decompression_bomb"]
    assert check(bomb(60_000, 60_000), max_pixels=10**10) == ["decompression_bomb"]


@pytest.mark.parametrize(
    ("shape", "max_pixels", "absurd"),
    [
        ((1, 20, 3), None, True),
        ((0, 5), None, True),
        ((2, 2 * MAX_ASPECT), None, False),
        ((2 * MAX_ASPECT + 1, 2), None, True),
        ((10, 10, 1), 100, False),
        ((10, 11, 1), 109, True),
    ],
)
def test_sizes(shape, max_pixels, absurd):
    pixels = RNG.integers(0, 256, shape, np.uint8)
    assert check(pixels, max_pixels=max_pixels) == (["absurd_size"] if absurd else [])


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 0, 9)])
def test_one_colour_everywhere_is_constant_encoded_or_not(colour):
    pixels = np.tile(np.array(colour, np.uint8), (8, 8, 1))
    assert check(pixels) == check(encode(pixels)) == ["constant"]
    pixels[3, 3, 1] += 1
    assert check(pixels) == check(encode(pixels)) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_must_be_finite(value):
    pixels = RNG.random((8, 8, 3)).astype(np.float32)
    assert check(pixels) == []
    pixels[0, 0, 0] = value
    assert check(pixels) == ["not_finite"]


def test_pixels_of_another_rank_are_refused():
    with pytest.raises(ValueError, match=r"\[H, W\] or \[H, W, C\], got \(8,\)"):
        check(np.zeros(8))


def test_the_hash_is_of_the_pixels_their_shape_and_type():
    assert pixel_hash(encode(NOISE)) == pixel_hash(encode(NOISE, "BMP")) == pixel_hash(NOISE)
    others = [NOISE.reshape(30, 20, 3), NOISE.view(np.int8), NOISE[::-1], encode(NOISE, "JPEG")]
    assert len({pixel_hash(other) for other in (NOISE, *others)}) == 5
