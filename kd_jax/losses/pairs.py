"""A batch's examples as rows and in pairs, for the losses between their relations."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Shaped

from kd_jax.core.checks import as_where, prepare
from kd_jax.core.types import Array

ROUNDING = 16
"""Two examples closer than so many of the dtype's epsilons, relative to the longer, are one."""


def prepare_rows(
    student: Float[Array, "b ..."],
    teacher: Float[Array, "b ..."],
    where: Shaped[Array, " b"] | None,
) -> tuple[Float[jax.Array, "b d1"], Float[jax.Array, "b d2"], Bool[jax.Array, " b"]]:
    """Flattens embeddings to `[B, D]` and `[B, E]`, zero where they don't count.

    The third result is which rows `[B]` do.

    Raises:
      ValueError: if either holds integers, or batches or `where` don't fit.
    """
    student, teacher = prepare(student, teacher, "embeddings")
    if not (student.ndim > 1 and teacher.ndim > 1 and student.shape[0] == teacher.shape[0]):
        raise ValueError(
            f"embeddings must be [B, ...] of one batch, got {student.shape} and {teacher.shape}"
        )
    rows = as_where(where, student.shape[:1], "example")
    # What doesn't count may hold anything; it is replaced before it is computed with.
    student, teacher = (
        jnp.where(rows[:, None], x.reshape(x.shape[0], -1), 0) for x in (student, teacher)
    )
    return student, teacher, rows


def pairs_of(rows: Bool[jax.Array, " b"]) -> Bool[jax.Array, "b b"]:
    """Maps `[B]` to `[B, B]`, the pairs of which both count."""
    return rows[:, None] & rows[None, :]


def differences(x: Float[jax.Array, "b d"]) -> Float[jax.Array, "b b d"]:
    """Maps `[B, D]` to `[B, B, D]`, `x[j] - x[i]`, exactly zero where two differ by rounding alone.

    Whether two copies of an example differ in their last digits depends on how a program was
    compiled, and a distance of 1e-16 counts as positive, and as a direction, like any other."""
    # From the differences themselves: |a|^2 + |b|^2 - 2 a b cancels where two examples are close.
    found = x[None, :] - x[:, None]
    squares = jnp.sum(jnp.square(x), axis=-1)
    # Relative to the longer vector, as rounding errors grow with the numbers.
    larger = jnp.maximum(squares[:, None], squares[None, :])
    alike = (
        jnp.sum(jnp.square(found), axis=-1)
        <= jnp.square(ROUNDING * jnp.finfo(x.dtype).eps) * larger
    )
    return jnp.where(alike[..., None], 0, found)
