"""Corrupts images in five severities, after Hendrycks and Dietterich.

See "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(https://arxiv.org/abs/1903.12261). What the strength of each kind is, from severity 1 to 5:

- gaussian_noise, 20.4 to 96.9: standard deviation of what is added to each value in [0, 255].
- blur, 0.4 to 1.0: standard deviation of a Gaussian kernel, in pixels.
- contrast, 0.4 to 0.05: what remains of a value's distance from its channel's mean.

Noise and contrast are as strong as in the paper's ImageNet-C. Blur is as strong as in CIFAR-10-C,
for images of about 32 pixels: that of ImageNet-C leaves nothing of small ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_jax.core.options import check_keys, choose

SEED = 1903
SEVERITIES = range(1, 6)


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption at one severity, applied by calling it."""

    kind: str
    severity: int

    def __call__(self, image: np.ndarray, row: int) -> np.ndarray:
        """Corrupts one image.

        Args:
          image: uint8 [H, W, C].
          row: its position in its split. It alone decides the noise, so every severity adds the
            same noise, scaled.

        Returns:
          uint8 [H, W, C].
        """
        change, strengths = KINDS[self.kind]
        # Seeded by the row and not by a shared generator: the copy is the same in whatever order,
        # and however often, its images are read.
        rng = np.random.default_rng([SEED, row])
        changed = change(image.astype(np.float64), strengths[self.severity - 1], rng)
        return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def make_corruption(spec: Mapping[str, Any], owner: str) -> Corruption:
    """Builds a corruption from its config section.

    Args:
      spec: `kind`, of KINDS, and `severity`, 1 to 5.
      owner: whose section it is, for messages.

    Raises:
      ValueError: for another key, kind or severity.
    """
    check_keys(spec, {"kind": True, "severity": True}, owner)
    choose(KINDS, spec, f"{owner}.kind", key="kind")
    severity = spec["severity"]
    if isinstance(severity, bool) or severity not in SEVERITIES:
        raise ValueError(
            f"{owner}.severity is a whole number from 1 to {SEVERITIES[-1]}, got {severity!r}"
        )
    return Corruption(spec["kind"], int(severity))


def _gaussian_noise(image: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    return image + std * rng.standard_normal(image.shape)


def _blur(image: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    del rng
    # What lies further out than 4 standard deviations weighs less than 1 in 2,000.
    radius = int(np.ceil(4 * std))
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * std**2))
    # A Gaussian blur is two blurs of one axis each. Borders repeat the edge: zeros would darken it.
    for axis in (0, 1):
        widths = [(radius, radius) if each == axis else (0, 0) for each in range(3)]
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(image, widths, "edge"), len(kernel), axis
        )
        image = windows @ (kernel / kernel.sum())
    return image


def _contrast(image: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    del rng
    mean = image.mean(axis=(0, 1))
    return mean + factor * (image - mean)


KINDS: dict[
    str, tuple[Callable[[np.ndarray, float, np.random.Generator], np.ndarray], tuple[float, ...]]
] = {
    "gaussian_noise": (_gaussian_noise, (20.4, 30.6, 45.9, 66.3, 96.9)),
    "blur": (_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
}
"""Kind -> function of image [H, W, C] float64, strength and generator; strengths by severity."""
