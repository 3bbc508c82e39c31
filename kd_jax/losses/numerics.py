"""What every loss checks and how precisely it computes."""

import jax
import jax.numpy as jnp


def require_equal_shapes(student: jax.Array, teacher: jax.Array, what: str) -> None:
    """Refuses a pair that would broadcast, such as `[B]` against `[B, 1]`.

    Raises:
      ValueError: naming `what` and both shapes.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student and teacher {what} must have one shape, got {student.shape} and {teacher.shape}")


def require_floating(array: jax.Array, what: str) -> None:
    """Refuses integers where real numbers are meant.

    Raises:
      ValueError: naming `what` and the dtype.
    """
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{what} must be floating point, got {array.dtype}")


def require_positive(value: float | jax.Array, what: str) -> None:
    """Refuses a Python number that is not positive; a traced value can't be checked.

    Raises:
      ValueError: naming `what` and the value.
    """
    if isinstance(value, (int, float)) and not value > 0:
        raise ValueError(f"{what} must be positive, got {value}")


def at_least_float32(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The arrays in the widest of their dtypes and float32."""
    dtype = jnp.result_type(jnp.float32, *arrays)
    return tuple(array.astype(dtype) for array in arrays)
