"""New images from pairs of old ones: weighted means, or a rectangle of one in the other."""

from collections.abc import Sequence

import numpy as np

KINDS = ("mixup", "cutmix")


def mix_images(
    images: Sequence | np.ndarray, *, kind: str, concentration: float, rng: np.random.Generator
) -> np.ndarray:
    """Mixes each image with another that is drawn.

    Args:
      images: [N] uint8 `[H, W, C]` of one size.
      kind: "mixup", weighted means of two; "cutmix", a rectangle of the second in the first.
      concentration: of the Beta distribution that the share of the first is drawn from, above 0; 1:
        any is as likely.
      rng: of all draws.

    Returns:
      uint8 `[N, H, W, C]`.

    Raises:
      ValueError: for another kind, or images that differ in size.

    References:
      Zhang et al. `mixup <https://arxiv.org/abs/1710.09412>`_, 2018. Yun et al. `CutMix
      <https://arxiv.org/abs/1905.04899>`_, 2019.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r} of mixes; there are {', '.join(KINDS)}")
    # Images of several sizes come as a list, and two of them can't be laid over each other.
    if not isinstance(images, np.ndarray):
        raise ValueError("only images of one size, which fit in memory, are mixed")
    partners = images[rng.permutation(len(images))]
    shares = rng.beta(concentration, concentration, len(images))
    if kind == "mixup":
        weights = shares[:, None, None, None]
        # Rounded first, since the cast to uint8 only cuts digits off and would darken the image.
        return np.round(weights * images + (1 - weights) * partners).astype(np.uint8)
    inside = _rectangles(images.shape[1:3], 1 - shares, rng)
    return np.where(inside[..., None], partners, images)


def _rectangles(size: tuple[int, int], areas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws bool `[N, H, W]`, rectangles of these shares of the area, cut off at the border.

    They are centred anywhere.
    """
    spans = []
    for length in size:
        # The square root turns a share of the area into a share of each side.
        centres, halves = rng.integers(0, length, len(areas)), np.sqrt(areas) * length / 2
        distances = np.abs(np.arange(length) - centres[:, None])
        spans.append(distances < halves[:, None])
    return spans[0][:, :, None] & spans[1][:, None, :]
