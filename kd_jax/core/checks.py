"""What losses and analyses check of arrays, and how precisely they compute."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.core.types import Array, Scalar

# Checks


def require_equal_shapes(student: Array, teacher: Array, what: str) -> None:
    """Refuses a pair that would broadcast, such as `[B]` against `[B, 1]`.

    Raises:
      ValueError: naming `what` and both shapes.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher {what} must have one shape, got {student.shape} and"
            f" {teacher.shape}"
        )


def require_rank(array: Array, rank: int, what: str, axes: str) -> None:
    """Refuses an array with another number of axes.

    Raises:
      ValueError: naming `what`, the axes that are meant and the shape.
    """
    if array.ndim != rank:
        raise ValueError(f"{what} must be {axes}, got {array.shape}")


def require_floating(array: Array, what: str) -> None:
    """Refuses integers where real numbers are meant.

    Raises:
      ValueError: naming `what` and the dtype.
    """
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{what} must be floating point, got {array.dtype}")


def require_positive(value: Scalar, what: str) -> None:
    """Refuses a Python number that is not positive; a traced value can't be checked.

    Raises:
      ValueError: naming `what` and the value.
    """
    _require_number(value, what)
    if isinstance(value, (int, float)) and not 0 < value < math.inf:
        raise ValueError(f"{what} must be positive, got {value}")


def _require_number(value: Any, what: str) -> None:
    """Refuses what is neither a number nor an array of one; True would pass as 1."""
    scalar = isinstance(value, (int, float, np.generic, np.ndarray, jax.Array))
    if not scalar or isinstance(value, (bool, np.bool_)) or jnp.ndim(value):
        raise ValueError(f"{what} must be a number, got {value!r}")


def require_within(value: Scalar, low: Scalar, high: Scalar, what: str) -> None:
    """Refuses a Python number outside `[low, high]`; a traced value can't be checked.

    Raises:
      ValueError: naming `what`, the range and the value.
    """
    _require_number(value, what)
    if isinstance(value, (int, float)) and not low <= value <= high:
        raise ValueError(f"{what} must lie between {low} and {high}, got {value}")


# Precision


def at_least_float32(*arrays: Array) -> tuple[jax.Array, ...]:
    """Casts arrays to the widest of their dtypes and float32."""
    dtype = jnp.result_type(jnp.float32, *arrays)
    return tuple(jnp.asarray(array).astype(dtype) for array in arrays)


def prepare(student: Array, teacher: Array, what: str) -> tuple[jax.Array, jax.Array]:
    """Casts a pair to at least float32, and stops the gradient at the teacher's side.

    Raises:
      ValueError: if either holds integers.
    """
    require_floating(student, f"student {what}")
    require_floating(teacher, f"teacher {what}")
    student, teacher = at_least_float32(student, jax.lax.stop_gradient(teacher))
    return student, teacher


def einsum(subscripts: str, *operands: Array) -> jax.Array:
    """Computes `jnp.einsum` in the operands' full precision.

    Accelerators would round float32 to bfloat16 or TF32 otherwise.
    """
    return jnp.einsum(subscripts, *operands, precision=jax.lax.Precision.HIGHEST)


# Norms


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Computes the square root of `x >= 0`, with gradient 0 instead of infinity at 0."""
    zero = x == 0  # Not `x > 0`, which would make 0 of a NaN.
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def safe_norm(x: jax.Array, axis: int | Sequence[int] = -1, *, keepdims: bool = False) -> jax.Array:
    """Computes the L2 norm along `axis`, with gradient 0 instead of NaN at a zero vector."""
    return safe_sqrt(jnp.sum(jnp.square(x), axis=axis, keepdims=keepdims))


def normalize(x: jax.Array, axis: int | Sequence[int] = -1) -> jax.Array:
    """Divides `x` by its L2 norm along `axis`; a zero vector stays zero, with gradient 0."""
    norm = safe_norm(x, axis, keepdims=True)
    return x / jnp.where(norm == 0, 1, norm)


# Means over what counts


def as_where(where: Array | None, shape: Sequence[int], what: str) -> jax.Array:
    """Returns `where` as bool of the given shape; all true for None.

    Raises:
      ValueError: if it has another shape.
    """
    if where is None:
        return jnp.ones(tuple(shape), bool)
    if where.shape != tuple(shape):
        raise ValueError(
            f"where must have shape {tuple(shape)}, one value for each {what}, got {where.shape}"
        )
    return jnp.asarray(where).astype(bool)


def masked_sum(x: Array, where: Array, axis: int | Sequence[int] | None = None) -> jax.Array:
    """Sums `x` where `where`, of the same shape, is true."""
    return jnp.sum(jnp.where(where, x, 0), axis=axis)


def masked_mean(x: Array, where: Array, axis: int | Sequence[int] | None = None) -> jax.Array:
    """Averages `x` where `where`, of the same shape, is true; 0 where nothing counts."""
    count = jnp.sum(where, axis=axis, dtype=x.dtype)
    return masked_sum(x, where, axis) / jnp.maximum(count, 1)


def huber(difference: Array) -> jax.Array:
    """Computes Huber's function with threshold 1: half the square up to 1, linear beyond."""
    size = jnp.abs(difference)
    return jnp.where(size < 1, 0.5 * jnp.square(difference), size - 0.5)
