"""Feature maps of different sizes brought to one: average pooling to a given size, over what
counts."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Shaped

from kd_jax.core.checks import as_where, einsum, prepare, require_rank
from kd_jax.core.types import Array


def _bins(size: int, target: int) -> np.ndarray:
    """Returns `[target, size]` of 0 and 1: which positions each pooled one covers, as in PyTorch.

    As its adaptive pooling has them.
    """
    # Bins may overlap where sizes don't divide, as in PyTorch's adaptive pooling.
    covered = np.zeros((target, size))
    for bin_ in range(target):
        covered[bin_, bin_ * size // target : -(-(bin_ + 1) * size // target)] = 1
    return covered


def average_pool(
    x: Float[jax.Array, "b h w c"], where: Bool[jax.Array, "b h w"], height: int, width: int
) -> tuple[Float[jax.Array, "b {height} {width} c"], Bool[jax.Array, "b {height} {width}"]]:
    """Averages `x` `[B, H, W, C]` over bins, and over the positions in them that count.

    Args:
      x: the map, zero where it doesn't count.
      where: `[B, H, W]` bool.
      height: of the result, at most `H`.
      width: of the result, at most `W`.

    Returns:
      `[B, height, width, C]`, and `[B, height, width]` bool: which bins have a position that
      counts.
    """
    if x.shape[1:3] == (height, width):
        return x, where
    # Matrix products, since bins that overlap fit no window of a pooling layer.
    rows, columns = (
        jnp.asarray(_bins(*sizes), x.dtype) for sizes in ((x.shape[1], height), (x.shape[2], width))
    )
    # Two small products of matrices; a loop over bins would be unrolled by XLA.
    counts = einsum("ih,bhw,jw->bij", rows, where.astype(x.dtype), columns)
    sums = einsum("ih,bhwc,jw->bijc", rows, x, columns)
    # A bin in which no position counts gives 0 and doesn't count itself.
    return sums / jnp.maximum(counts, 1)[..., None], counts > 0


def to_common_size(
    student_map: Float[jax.Array, "b _ _ c1"], teacher_map: Float[jax.Array, "b _ _ c2"]
) -> tuple[Float[jax.Array, "b h w c1"], Float[jax.Array, "b h w c2"]]:
    """Maps `[B, H, W, C]` and `[B, H', W', C']`, the larger average-pooled to the other's size
    along each axis."""
    height, width = (
        min(sizes) for sizes in zip(student_map.shape[1:3], teacher_map.shape[1:3], strict=True)
    )

    def pooled(x: jax.Array) -> jax.Array:
        return average_pool(x, jnp.ones(x.shape[:3], bool), height, width)[0]

    return pooled(student_map), pooled(teacher_map)


def prepare_maps(
    student_map: Float[Array, "b _ _ c1"],
    teacher_map: Float[Array, "b _ _ c2"],
    where: Shaped[Array, "b _ _"] | None,
    *,
    equal_channels: bool,
) -> tuple[Float[jax.Array, "b h w c1"], Float[jax.Array, "b h w c2"], Bool[jax.Array, "b h w"]]:
    """Checks a pair of maps and pools the larger one to the smaller's size, along each axis.

    Args:
      student_map: `[B, H, W, C]`.
      teacher_map: `[B, H', W', C']`.
      where: `[B, h, w]` bool, the positions that count; of the size of the larger map (or of either
        where they are of one size). None: all.
      equal_channels: whether `C` must be `C'`.

    Returns:
      The maps in at least float32, zero where they don't count, the teacher's without gradient; and
      `where` at their common size.

    Raises:
      ValueError: if a map has another rank or holds integers, or batches, channels or `where` don't
        fit.
    """
    student, teacher = prepare(student_map, teacher_map, "map")
    for array, owner in ((student, "student"), (teacher, "teacher")):
        require_rank(array, 4, f"{owner} map", "[B, H, W, C]")
    # Axes 0 and 3 are batch and channels; heights and widths are pooled to the smaller.
    same = slice(0, 4, 3) if equal_channels else slice(0, 1)
    if student.shape[same] != teacher.shape[same]:
        what = "batch and channels" if equal_channels else "batch"
        raise ValueError(
            f"student and teacher map must agree in {what}, got {student.shape} and {teacher.shape}"
        )
    height, width = (
        min(sizes) for sizes in zip(student.shape[1:3], teacher.shape[1:3], strict=True)
    )
    pooled = []
    for x in (student, teacher):
        mask = _at_size(where, x.shape[:3], (height, width))
        # Positions that don't count may hold NaN, and 0 times NaN is NaN.
        pooled.append(average_pool(jnp.where(mask[..., None], x, 0), mask, height, width))
    return pooled[0][0], pooled[1][0], pooled[0][1] & pooled[1][1]


def _at_size(where: Array | None, shape: tuple[int, ...], common: tuple[int, int]) -> jax.Array:
    """Fits `where` to a map of this shape: as given, or the larger map's bins that count."""
    # The larger map is masked before it is pooled, and the smaller one by what is left of that.
    if where is not None and where.shape != shape and shape[1:] == common and where.ndim == 3:
        mask = jnp.asarray(where).astype(jnp.float32)[..., None]
        pooled, _ = average_pool(mask, jnp.ones(where.shape, bool), *common)
        return pooled[..., 0] > 0
    return as_where(where, shape, "position of the larger map")
