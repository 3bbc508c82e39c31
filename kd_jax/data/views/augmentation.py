"""Crops and flips training images at random, the same way in every view.

A draw belongs to a position in the global batch, so it is the same on any number of processes; and
teacher and student see the same crop, whatever the sizes of their views.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_jax.core.options import check_keys


@dataclass(frozen=True)
class Draws:
    """The random numbers that augment some images.

    Attributes:
      shift: [b, 2] float32, downwards and to the right, as fractions of the image's height and
        width.
      flipped: [b] bool, mirrored left to right.
    """

    shift: np.ndarray
    flipped: np.ndarray

    def __getitem__(self, rows: Any) -> "Draws":
        return Draws(self.shift[rows], self.flipped[rows])


@dataclass(frozen=True)
class Augmentation:
    """How training images vary: by shifts and mirror images.

    Attributes:
      crop: pixels of the source image by which it is shifted at most, along both axes; what comes
        in is black. 4 is the "pad by 4 and crop" of the CIFAR papers.
      flip: probability of a mirror image, in [0, 1].
      size: [height, width] of the source images, to which `crop` refers.
    """

    crop: int
    flip: float
    size: tuple[int, int]

    def draw(self, rng: np.random.Generator, count: int) -> Draws:
        """Draws for the `count` images of a global batch.

        The whole batch is drawn for, whichever part of it is then read.
        """
        # Fractions instead of pixels: a view of another size moves its images by as much of their
        # height and width.
        shift = rng.integers(-self.crop, self.crop + 1, (count, 2)) / np.array(self.size)
        return Draws(shift.astype(np.float32), rng.random(count) < self.flip)


def make_augmentation(spec: Mapping[str, Any], size: tuple[int, int] | None) -> Augmentation | None:
    """Builds the augmentation of a config's section `data.augmentation`.

    Args:
      spec: `crop` (pixels) and `flip` (probability); both 0: no augmentation.
      size: of the source images; None for text or images of several sizes.

    Raises:
      ValueError: for another option, a value out of range, or data that can't be augmented.
    """
    check_keys(spec, {"crop": True, "flip": True}, "data.augmentation")
    crop, flip = spec["crop"], spec["flip"]
    if crop == 0 and flip == 0:
        return None
    # `crop` counts pixels of the source, which mean nothing if its images differ in size.
    if size is None:
        raise ValueError(
            f"data.augmentation needs images of one size; here crop and flip must be 0, got {crop},"
            f" {flip}"
        )
    if isinstance(crop, bool) or not isinstance(crop, int) or not 0 <= crop < min(size):
        raise ValueError(
            f"data.augmentation.crop is a number of pixels from 0 to {min(size) - 1}, got {crop!r}"
        )
    if not 0 <= flip <= 1:
        raise ValueError(f"data.augmentation.flip is a probability between 0 and 1, got {flip!r}")
    return Augmentation(crop, flip, size)


def augment(images: np.ndarray, draws: Draws) -> np.ndarray:
    """Shifts and mirrors images.

    Args:
      images: [b, H, W, C] uint8, of any size; shifts are rounded to its pixels.
      draws: for the b images.

    Returns:
      The same shape and dtype, black where the shift leaves nothing.
    """
    count, height, width, _ = images.shape
    down, right = np.rint(draws.shift * np.array((height, width), np.float32)).astype(np.int64).T
    # Where each row and column of the result comes from. One gather for all images then replaces a
    # loop over them.
    rows = np.arange(height) - down[:, None]
    columns = np.arange(width) - right[:, None]
    columns = np.where(draws.flipped[:, None], columns[:, ::-1], columns)
    # Positions outside are clipped to be valid for the gather and blackened after it.
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    moved = images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return np.where(inside[..., None], moved, images.dtype.type(0))
