"""Knowledge points of a network: the units of an input that its feature rests on much more than on
  the background.

Cheng et al. `Explaining Knowledge Distillation by Quantifying the Knowledge
<https://arxiv.org/abs/2003.03622>`_, 2020. The entropies come from `kd_jax.analysis.noise`; `U`
stands for the units of an example, such as `H W` or `T`."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from kd_jax.core.types import Array, PyTree


class KnowledgeCounts(NamedTuple):
    """How many knowledge points an example has, and where.

    Attributes:
      foreground: `[N]` int.
      background: `[N]` int.
      ratio: `[N]`, the foreground's share of the points, in [0, 1]; NaN for an example without
        points. The paper's lambda is its mean.
    """

    foreground: np.ndarray
    background: np.ndarray
    ratio: np.ndarray


class LearningSpeed(NamedTuple):
    """How far the weights travel until an example's foreground is known best, over examples.

    Attributes:
      mean: the paper's D_mean; small: learned fast.
      variance: the paper's D_var, dividing by the number of examples; small: all learned at the
        same time.
    """

    mean: float
    variance: float


def knowledge_points(entropy: Array, foreground: Array, *, threshold: float) -> np.ndarray:
    """Finds the units whose entropy is below the example's mean background entropy by over
    `threshold`.

    Args:
      entropy: `[N, U]` nats, from `noise.entropy`.
      foreground: bool `[N, U]`, which units show what the example is about; the others are its
        background.
      threshold: the paper's `b`, in nats.

    Returns:
      Bool `[N, U]`.

    Raises:
      ValueError: if shapes don't fit, an entropy isn't finite, or an example has no background.
    """
    entropy, mask = np.asarray(entropy, np.float64), _as_mask(foreground, "foreground")
    if entropy.shape != mask.shape or entropy.ndim < 2:
        raise ValueError(
            f"entropy and foreground must both be [N, U], got {entropy.shape} and {mask.shape}"
        )
    # A NaN compares false, and would pass as a unit without knowledge.
    if not np.isfinite(entropy).all():
        raise ValueError(
            f"entropy of example {np.argwhere(~np.isfinite(entropy))[0, 0]} isn't finite"
        )
    # Points are counted against the background, so each example must have some.
    background = _count(~mask)
    if not background.all():
        raise ValueError(f"example {np.argmin(background)} has no background to compare with")
    units = tuple(range(1, entropy.ndim))
    # A sum over the background divided by its size, since each example has another size.
    mean = np.where(mask, 0, entropy).sum(axis=units, keepdims=True) / background.reshape(
        -1, *[1] * len(units)
    )
    # Low entropy: the network must know this unit well to compute its feature.
    return mean - entropy > threshold


def count_points(points: Array, foreground: Array) -> KnowledgeCounts:
    """Counts knowledge points in the foreground and in the background of each example.

    Args:
      points: bool `[N, U]`.
      foreground: bool `[N, U]`.

    Raises:
      ValueError: if shapes don't fit or either isn't bool.
    """
    found, mask = _as_mask(points, "points"), _as_mask(foreground, "foreground")
    if found.shape != mask.shape or found.ndim < 2:
        raise ValueError(
            f"points and foreground must both be [N, U], got {found.shape} and {mask.shape}"
        )
    inside, outside = _count(found & mask), _count(found & ~mask)
    return KnowledgeCounts(inside, outside, _share(inside, inside + outside))


def weight_distances(weights: Sequence[PyTree]) -> np.ndarray:
    """Measures how far the weights have travelled by each checkpoint, in lengths of the initial
    ones.

    Args:
      weights: `M + 1` trees of parameters: the initial ones, then each checkpoint's, in order of
        training.

    Returns:
      `[M]`, `sum_(k <= m) ||w_k - w_(k - 1)|| / ||w_0||`, in float64.

    Raises:
      ValueError: if there is no checkpoint, the trees differ in structure or shapes, or the initial
        weights are zero.
    """
    if len(weights) < 2:
        raise ValueError(
            f"a distance needs the initial weights and a checkpoint, got {len(weights)}"
        )
    # A distance between trees of different shapes would broadcast into a wrong number.
    structures = [
        (jax.tree.structure(each), [np.shape(leaf) for leaf in jax.tree.leaves(each)])
        for each in weights
    ]
    for number, structure in enumerate(structures):
        if structure != structures[0]:
            raise ValueError(f"checkpoint {number} has other parameters than the initial weights")
    start = _norm(weights[0])
    # Distances are counted in this length.
    if not start > 0:
        raise ValueError(f"the initial weights must have a length, got {start}")
    pairs = zip(weights[1:], weights[:-1], strict=True)
    steps = [
        # In float64 before the difference: two checkpoints may be almost the same.
        _norm(jax.tree.map(lambda a, b: np.float64(a) - np.float64(b), new, old))
        for new, old in pairs
    ]
    # The length of the way, and not the distance from where it began.
    return np.cumsum(steps) / start


def learning_speed(foreground: Array, distances: Array) -> LearningSpeed:
    """Computes, over examples, the weight distance at which an example's foreground has most
    points.

    Args:
      foreground: `[M, N]`, each checkpoint's `KnowledgeCounts.foreground`.
      distances: `[M]`, from `weight_distances`.

    Returns:
      Mean and variance; of checkpoints with equally many points the first counts.

    Raises:
      ValueError: if shapes don't fit or there are no examples.
    """
    counts, travelled = np.asarray(foreground), np.asarray(distances, np.float64)
    if counts.ndim != 2 or not counts.size or travelled.shape != counts.shape[:1]:
        raise ValueError(
            f"foreground must be [M, N] and distances [M], got {counts.shape} and {travelled.shape}"
        )
    # `argmax` takes the first of equal ones, which is when the points were reached.
    best = travelled[np.argmax(counts, axis=0)]
    return LearningSpeed(float(best.mean()), float(best.var()))


def stability(points: Array) -> np.ndarray:
    """Computes the share of all points found at any checkpoint that the last one still has.

    It is their intersection over their union.

    Points that were learned and given up again lower it.

    Args:
      points: bool `[M, N, U]`, each checkpoint's knowledge points, in order of training.

    Returns:
      `[N]` in [0, 1]; NaN for an example that never had a point. The paper's rho is its mean.

    Raises:
      ValueError: if `points` isn't bool or has another shape.
    """
    found = _as_mask(points, "points")
    if found.ndim < 3 or not found.shape[0]:
        raise ValueError(f"points must be [M, N, U], at least one checkpoint, got {found.shape}")
    # The last one's points are part of the union, so they are the intersection themselves.
    return _share(_count(found[-1]), _count(np.logical_or.reduce(found)))


def _as_mask(array: Array, what: str) -> np.ndarray:
    mask = np.asarray(array)
    # Numbers would pass as masks, and `~` of an integer is not its negation.
    if mask.dtype != bool:
        raise ValueError(f"{what} must be bool, got {mask.dtype}")
    return mask


def _count(mask: np.ndarray) -> np.ndarray:
    """Counts each example's true units, `[N]`."""
    return mask.reshape(mask.shape[0], -1).sum(axis=1)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    # The maximum avoids a warning where NaN is taken anyway.
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _norm(tree: PyTree) -> float:
    return float(
        np.sqrt(sum(np.sum(np.square(np.float64(leaf))) for leaf in jax.tree.leaves(tree)))
    )
