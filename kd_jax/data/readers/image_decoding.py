"""Decodes pictures to uint8 arrays, and keeps them decoded if they fit in memory."""

import io
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from kd_jax.core import limits

log = logging.getLogger("kd_jax")

MEMORY = 2 * 1024**3
"""Bytes of decoded pictures up to which a source keeps them decoded."""

UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow raises for a broken or hostile file."""


def decode(
    blob: bytes, channels: int | None = None, changes: Counter[str] | None = None
) -> np.ndarray:
    """Decodes one picture: upright, as its EXIF says; what is transparent on white; a GIF's first
    frame.

    Args:
      blob: the file's content, of one of `limits.PICTURE_FORMATS`.
      channels: 1 or 3; None: 1 for a grey picture and 3 for any other.
      changes: counts, by name, what had to be done to it.

    Returns:
      uint8 [H, W, C]; 16 bits are scaled to 8.

    Raises:
      One of `UNREADABLE`.
    """
    changes = Counter() if changes is None else changes
    if len(blob) > limits.PICTURE:
        raise ValueError(f"larger than {limits.in_words(limits.PICTURE)}")
    try:
        with (
            warnings.catch_warnings(),
            Image.open(io.BytesIO(blob), formats=limits.PICTURE_FORMATS) as picture,
        ):
            # Pillow only warns of a decompression bomb below twice its limit; here it is refused.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _as_array(picture, channels, changes)
    except UNREADABLE:
        raise
    # A decoder may raise anything at a malformed file, and one file must not end a whole dataset.
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _as_array(picture: Image.Image, channels: int | None, changes: Counter[str]) -> np.ndarray:
    # Tag 274 is the orientation; 1 is upright.
    if picture.getexif().get(274, 1) != 1:
        changes["turned as EXIF says"] += 1
        picture = ImageOps.exif_transpose(picture)
    # Pillow calls 16 bits I;16 or I, and would clip them to 8 instead of scaling them.
    if picture.mode.startswith("I"):
        changes["scaled from 16 bits to 8"] += 1
        grey = (np.clip(np.asarray(picture), 0, 2**16 - 1) >> 8).astype(np.uint8)[..., None]
        return convert_channels(grey, channels or 1)
    grey = picture.mode in ("1", "L", "LA", "La", "F")
    # A palette is looked at as RGBA: only there Pillow knows which of its colours are transparent.
    if picture.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode == "RGBA":
        # Without its alpha a transparent pixel has any colour, black mostly.
        if np.asarray(picture.getchannel("A")).min() < 255:
            changes["transparent, put on white"] += 1
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture)
        picture = picture.convert("RGB")
    channels = channels or (1 if grey else 3)
    array = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    return array[..., None] if channels == 1 else array


def convert_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Converts images between 1 and 3 channels.

    Args:
      image: uint8 [..., H, W, C] with C of 1 or 3.
      channels: 1 or 3.

    Returns:
      uint8 [..., H, W, channels]; colour becomes grey as ITU-R 601-2 luma.

    Raises:
      ValueError: for another number of channels.
    """
    found = image.shape[-1]
    if found == channels:
        return image
    if {found, channels} != {1, 3}:
        raise ValueError(
            f"can't turn images of {found} channels into {channels}; only 1 and 3 convert"
        )
    if channels == 3:
        return np.repeat(image, 3, axis=-1)
    # The integers that Pillow uses, so that a picture comes out the same whichever of the two
    # converts it.
    luma = (image.astype(np.int32) @ np.array([19595, 38470, 7471], np.int32) + 0x8000) >> 16
    return luma.astype(np.uint8)[..., None]


class LazyImages(Sequence):
    """Pictures that are decoded on access: uint8 [H, W, C] each."""

    def __init__(self, read: Callable[[int], bytes], positions: Sequence[int], channels: int):
        self._read, self._positions, self._channels = read, positions, channels

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return LazyImages(self._read, self._positions[index], self._channels)
        return decode(self._read(self._positions[index]), self._channels)


def load_images(
    blobs: Iterable[bytes],
    count: int,
    read: Callable[[int], bytes],
    channels: int | None = None,
    memory: int | None = None,
) -> tuple[np.ndarray | Sequence, dict[int, str]]:
    """Decodes all pictures once, and keeps them decoded if they fit in memory.

    Args:
      blobs: [N] encoded pictures.
      count: N.
      read: position -> encoded picture, for those that don't fit in memory.
      channels: as in `decode`; None: 3 if any picture has colour, else 1.
      memory: bytes to keep decoded at most; None: `MEMORY`.

    Returns:
      The readable pictures, and position -> reason for the others. Pictures of one size are one
      array [N, H, W, C].
    """
    images: list[np.ndarray] = []
    bad: dict[int, str] = {}
    memory, size, deepest = MEMORY if memory is None else memory, 0, 1
    changes: Counter[str] = Counter()
    # All are decoded even if they don't fit, to find the broken ones before training starts.
    for position, blob in enumerate(show_progress(blobs, count, "decoding images")):
        try:
            image = decode(blob, channels, changes)
        except UNREADABLE as error:
            bad[position] = f"unreadable image: {error}".splitlines()[0]
            continue
        deepest, size = max(deepest, image.shape[-1]), size + image.nbytes
        if size <= memory:
            images.append(image)
    if changes:
        told = ", ".join(f"{number} {change}" for change, number in sorted(changes.items()))
        log.info("of %d pictures: %s", count, told)
    if size > memory:
        good = [position for position in range(count) if position not in bad]
        return LazyImages(read, good, channels or deepest), bad
    # One picture in colour makes all of them colour: a model has one number of channels.
    images = [convert_channels(image, deepest) for image in images]
    return (np.stack(images) if len({image.shape for image in images}) == 1 else images), bad


def show_progress(items: Iterable, total: int, what: str) -> Iterable:
    """Yields the items, with a progress bar on stderr if they are many and it is a terminal."""
    if total < 5_000 or not sys.stderr.isatty():
        return items
    return track(items, what, total=total, console=Console(stderr=True), transient=True)
