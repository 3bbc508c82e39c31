"""Losses over large vocabularies that never hold the logits of all tokens.

They take hidden states and output projections, make the logits of a few tokens at a time and, under
differentiation, compute those tokens' gradient at once, while the logits are there; the backward
pass only scales it. That is why they return a sum and take the tokens' weights: the projection's
gradient is a sum over tokens, and can't be weighted later."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from kd_jax.core.checks import (
    at_least_float32,
    require_floating,
    require_positive,
    require_within,
)
from kd_jax.core.types import Array, Scalar
from kd_jax.losses import fused_gradients

CHUNK = 128
"""Tokens whose logits are held at a time, at most, unless told otherwise."""


class Head(NamedTuple):
    """What makes logits: `hidden @ kernel + bias`.

    Attributes:
      hidden: `[N, D]` states of the tokens.
      kernel: `[D, V]`, the output projection.
      bias: `[V]`, or None.
    """

    hidden: jax.Array
    kernel: jax.Array
    bias: jax.Array | None = None


def fused_soft_target_kl(
    student: Head,
    teacher: Head,
    *,
    temperature: Scalar = 1.0,
    weights: Shaped[Array, " n"] | None = None,
    chunk: int = CHUNK,
) -> Float[jax.Array, ""]:
    """Computes `sum(weights * soft_target_kl(...))` of the heads' logits, equal in value and
    gradient.

    Logits and loss are computed in at least float32, and the projection's gradient is summed there.
    No gradient reaches the teacher, the temperature or the weights. Reverse mode only.

    Args:
      student: hidden `[N, D]`, kernel `[D, V]`, bias `[V]` or None.
      teacher: hidden `[N, E]`, kernel `[E, V]`, bias `[V]` or None.
      temperature: `T > 0`, dimensionless. May be traced.
      weights: `[N]`, bool or real; None: all 1. A token of weight 0 may hold anything. For the mean
        over the tokens that count: `where / jnp.maximum(jnp.sum(where), 1)`.
      chunk: tokens whose logits are held at a time, at most; N is cut into equal parts.

    Returns:
      `[]` nats.

    Raises:
      ValueError: if shapes don't fit, hidden states are integers, or `temperature` or `chunk` is
        not positive.

    References:
      Hsu et al. `Liger Kernel <https://arxiv.org/abs/2410.10989>`_, 2024: the gradient in the
      forward pass, by chunks.
    """
    require_positive(temperature, "temperature")
    return _fused(fused_gradients.soft_target_kl, student, teacher, temperature, weights, chunk)


def fused_reverse_kl(
    student: Head,
    teacher: Head,
    *,
    temperature: Scalar = 1.0,
    weights: Shaped[Array, " n"] | None = None,
    chunk: int = CHUNK,
) -> Float[jax.Array, ""]:
    """Computes `sum(weights * reverse_kl(...))` of the heads' logits; else as
    `fused_soft_target_kl`.
    """
    require_positive(temperature, "temperature")
    return _fused(fused_gradients.reverse_kl, student, teacher, temperature, weights, chunk)


def fused_jensen_shannon(
    student: Head,
    teacher: Head,
    *,
    beta: Scalar = 0.5,
    weights: Shaped[Array, " n"] | None = None,
    chunk: int = CHUNK,
) -> Float[jax.Array, ""]:
    """Computes `sum(weights * jensen_shannon(...))` of the heads' logits.

    `beta` as there, all else as in `fused_soft_target_kl`.
    """
    require_within(beta, 0, 1, "beta")
    return _fused(fused_gradients.jensen_shannon, student, teacher, beta, weights, chunk)


def _fused(
    loss: Callable[..., fused_gradients.Slope],
    student: Head,
    teacher: Head,
    setting: Scalar,
    weights: Array | None,
    chunk: int,
) -> jax.Array:
    _check(student, teacher, weights, chunk)
    # Sums over thousands of tokens would lose digits in bfloat16.
    tokens, dtype = (
        student.hidden.shape[0],
        jnp.result_type(jnp.float32, student.hidden, student.kernel),
    )
    # One code path: without weights every token counts once.
    rows = jnp.ones(tokens, dtype) if weights is None else jnp.asarray(weights).astype(dtype)
    # What doesn't count may hold anything; it is replaced before it is computed with.
    student, teacher = (
        head._replace(hidden=jnp.where(rows[:, None] != 0, head.hidden, 0))
        for head in (student, teacher)
    )
    # Teacher, weights and temperature get no gradient, so none of theirs is kept.
    given = jax.lax.stop_gradient((teacher, rows, jnp.asarray(setting, dtype)))
    # Chunks of equal size, so that the last one isn't mostly padding.
    parts = max(1, -(-tokens // chunk))
    # `-(-a // b)` is a / b rounded up.
    return _total(loss, -(-tokens // parts), student, given)


def _check(student: Head, teacher: Head, weights: Array | None, chunk: int) -> None:
    for owner, head in (("student", student), ("teacher", teacher)):
        require_floating(head.hidden, f"{owner} hidden states")
        if (
            head.hidden.ndim != 2
            or head.kernel.ndim != 2
            or head.hidden.shape[1] != head.kernel.shape[0]
        ):
            raise ValueError(
                f"{owner} hidden states and projection must be [N, D] and [D, V], got"
                f" {head.hidden.shape} and"
                f" {head.kernel.shape}"
            )
        if head.bias is not None and head.bias.shape != head.kernel.shape[1:]:
            raise ValueError(f"{owner} bias must be {head.kernel.shape[1:]}, got {head.bias.shape}")
    ours, theirs = ((head.hidden.shape[0], head.kernel.shape[1]) for head in (student, teacher))
    if ours != theirs:
        raise ValueError(f"student and teacher logits must have one shape, got {ours} and {theirs}")
    if weights is not None and weights.shape != ours[:1]:
        raise ValueError(
            f"weights must have shape {ours[:1]}, one for each token, got {weights.shape}"
        )
    # In Python a bool is an int, and would pass as 0 or 1.
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"chunk must be a whole number from 1 on, got {chunk!r}")


def _logits(head: Head) -> jax.Array:
    # A softmax over a large vocabulary in bfloat16 would lose small probabilities.
    hidden, kernel = at_least_float32(head.hidden, head.kernel)
    product = jnp.matmul(hidden, kernel)
    return product if head.bias is None else product + head.bias[None].astype(product.dtype)


def _in_chunks(head: Head, chunk: int) -> jax.Array:
    """Splits the hidden states `[N, D]` into `[chunks, chunk, D]`, filled up with zeros."""
    # A scan needs chunks of one shape; rows that fill up have the weight 0.
    missing = -head.hidden.shape[0] % chunk
    return jnp.pad(head.hidden, ((0, missing), (0, 0))).reshape(-1, chunk, head.hidden.shape[1])


# Loss and chunk are static: they decide what the program is, and have no gradient.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _total(loss, chunk, student: Head, given) -> jax.Array:
    teacher, weights, setting = given

    def add(total, rows):
        ours, theirs, weight = rows
        # Without a gradient asked for, the slope is dropped and XLA never computes it.
        values, _ = loss(
            _logits(student._replace(hidden=ours)),
            _logits(teacher._replace(hidden=theirs)),
            setting,
        )
        return total + jnp.sum(weight * values), None

    # A loop, not one product, so that the logits of all tokens never exist at once.
    return jax.lax.scan(add, jnp.zeros((), weights.dtype), _rows(chunk, student, given))[0]


def _rows(chunk, student: Head, given):
    teacher, weights, _ = given
    # Padding has weight 0, so it adds nothing to the sum or to a gradient.
    padded = jnp.pad(weights, (0, -weights.shape[0] % chunk)).reshape(-1, chunk)
    return _in_chunks(student, chunk), _in_chunks(teacher, chunk), padded


def _forward(loss, chunk, student: Head, given):
    """Computes the total, and its gradient with respect to the student's head."""
    teacher, weights, setting = given
    kernel, wide = student.kernel, weights.dtype
    with_bias = student.bias is not None

    def add(carry, rows):
        total, to_kernel, to_bias = carry
        ours, theirs, weight = rows
        # The slope is taken while the chunk's logits exist, so the backward pass needs none.
        values, slope = loss(
            _logits(student._replace(hidden=ours)),
            _logits(teacher._replace(hidden=theirs)),
            setting,
        )
        slope = weight[:, None] * slope
        # By the chain rule through logits = hidden @ kernel + bias.
        to_hidden = jnp.matmul(slope, kernel.astype(wide).T)
        to_kernel = to_kernel + jnp.matmul(ours.astype(wide).T, slope)
        to_bias = to_bias + jnp.sum(slope, axis=0) if with_bias else to_bias
        return (total + jnp.sum(weight * values), to_kernel, to_bias), to_hidden

    # Sums over many chunks are kept in at least float32, whatever dtype the head has.
    start = (
        jnp.zeros((), wide),
        jnp.zeros(kernel.shape, wide),
        jnp.zeros(kernel.shape[1:] if with_bias else (), wide),
    )
    (total, to_kernel, to_bias), to_hidden = jax.lax.scan(add, start, _rows(chunk, student, given))
    # Rows that filled up the last chunk are no tokens of the caller's.
    to_hidden = to_hidden.reshape(-1, student.hidden.shape[1])[: student.hidden.shape[0]]
    gradient = Head(to_hidden, to_kernel, to_bias if with_bias else None)
    return total, jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), gradient, student)


def _backward(_loss, _chunk, gradient: Head, cotangent: jax.Array):
    # Kept in the head's own dtypes, which its cotangents must have.
    # None is a zero gradient, for all that was given as constant.
    return jax.tree.map(lambda leaf: (cotangent * leaf).astype(leaf.dtype), gradient), None


_total.defvjp(_forward, _backward)
