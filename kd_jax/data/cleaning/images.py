"""Checks pictures, encoded or decoded, for what makes them unfit to learn from."""

import hashlib
import io
import warnings

import numpy as np
from PIL import Image

from kd_jax.core import limits
from kd_jax.data.readers import image_decoding

REASONS = (
    "undecodable",
    "truncated",
    "decompression_bomb",
    "absurd_size",
    "not_finite",
    "constant",
)
"""All reasons that `check` gives."""

MIN_SIDE, MAX_ASPECT = 2, 32
"""Pixels that the shorter side must have, and how many times longer the other may be."""

_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def check(image: bytes | np.ndarray, *, max_pixels: int | None = None) -> list[str]:
    """Returns the reasons for which a picture shouldn't be learned from.

    Args:
      image: a picture file's content; or its pixels, [H, W] or [H, W, C] of integers or floats.
      max_pixels: height times width at most; None: Pillow's own limit on files, none on pixels.

    Returns:
      Those that hold of "undecodable" (not a picture, or a broken one), "truncated" (the file's
      end is missing), "decompression_bomb" (a file whose header promises more than `max_pixels`;
      nothing of it is decoded), "absurd_size" (too many pixels, a side under `MIN_SIDE`, or one
      over `MAX_ASPECT` times the other), "not_finite" (NaN or infinite values) and "constant" (one
      colour everywhere).

    Raises:
      ValueError: for pixels of another number of dimensions.
    """
    if isinstance(image, np.ndarray):
        return _check_pixels(image, max_pixels)
    try:
        # The header is read before any pixel: a file of a few kilobytes may decode to gigabytes.
        if _is_bomb(image, max_pixels):
            return ["decompression_bomb"]
        pixels = image_decoding.decode(image)
    except _BOMBS:
        return ["decompression_bomb"]
    except (*image_decoding.UNREADABLE, EOFError):
        return ["truncated" if _is_cut(image) else "undecodable"]
    # The header's size was compared with the limit already.
    return _check_pixels(pixels, None)


def pixel_hash(image: bytes | np.ndarray) -> bytes:
    """Returns sixteen bytes that are equal for pictures with equal pixels, however encoded.

    Raises:
      One of `image_decoding.UNREADABLE` for a file that `check` finds undecodable.
    """
    pixels = image if isinstance(image, np.ndarray) else image_decoding.decode(image)
    # Shape and dtype count too: 4 x 9 and 6 x 6 pixels may have the same bytes.
    digest = hashlib.blake2b(f"{pixels.dtype.str} {pixels.shape}".encode(), digest_size=16)
    digest.update(pixels.tobytes())
    return digest.digest()


def _check_pixels(pixels: np.ndarray, max_pixels: int | None) -> list[str]:
    if pixels.ndim not in (2, 3):
        raise ValueError(f"a picture has shape [H, W] or [H, W, C], got {pixels.shape}")
    height, width = pixels.shape[:2]
    reasons = []
    if (max_pixels is not None and height * width > max_pixels) or _is_absurd(height, width):
        reasons.append("absurd_size")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        reasons.append("not_finite")
    elif pixels.size and (pixels == pixels[:1, :1]).all():
        reasons.append("constant")
    return reasons


def _is_absurd(height: int, width: int) -> bool:
    short, long = sorted((height, width))
    return short < MIN_SIDE or long > MAX_ASPECT * short


def _is_bomb(blob: bytes, max_pixels: int | None) -> bool:
    file = io.BytesIO(blob)
    with warnings.catch_warnings(), Image.open(file, formats=limits.PICTURE_FORMATS) as picture:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return max_pixels is not None and picture.width * picture.height > max_pixels


def _is_cut(blob: bytes) -> bool:
    """Tells whether a file lacks its end, by its end mark or the length that it declares."""
    if blob.startswith(b"\x89PNG"):
        return b"IEND" not in blob
    if blob.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in blob[-64:]
    if blob.startswith(b"RIFF"):
        return len(blob) < 8 + int.from_bytes(blob[4:8], "little")
    if blob.startswith(b"BM"):
        return len(blob) < int.from_bytes(blob[2:6], "little")
    return blob.startswith(b"GIF8") and not blob.rstrip(b"\0").endswith(b";")
