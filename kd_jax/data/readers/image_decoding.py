"""Decodes pictures to uint8 arrays, and keeps them decoded if they fit in memory."""

import io
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

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


def decode(blob: bytes, channels: int | None = None) -> np.ndarray:
    """Decodes one picture.

    Args:
      blob: the file's content.
      channels: 1 or 3; None: 1 for a grey picture and 3 for any other.

    Returns:
      uint8 [H, W, C].

    Raises:
      One of `UNREADABLE`.
    """
    with warnings.catch_warnings(), Image.open(io.BytesIO(blob)) as picture:
        # Pillow only warns of a decompression bomb below twice its limit; here it is refused.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if picture.mode.startswith("I;16"):
            # Pillow would clip 16 bits to 8 instead of scaling them.
            grey = (np.asarray(picture) >> 8).astype(np.uint8)[..., None]
            return convert_channels(grey, channels or 1)
        if picture.mode == "P":
            # Pillow warns of transparency when a palette is converted to RGB directly.
            picture = picture.convert("RGBA")
        channels = channels or (1 if picture.mode in ("1", "L", "LA", "I", "F") else 3)
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
    # All are decoded even if they don't fit, to find the broken ones before training starts.
    for position, blob in enumerate(show_progress(blobs, count, "decoding images")):
        try:
            image = decode(blob, channels)
        except UNREADABLE as error:
            bad[position] = f"unreadable image: {error}".splitlines()[0]
            continue
        deepest, size = max(deepest, image.shape[-1]), size + image.nbytes
        if size <= memory:
            images.append(image)
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
