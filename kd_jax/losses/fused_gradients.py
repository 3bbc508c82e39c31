"""Divergences and, with them, their gradient by the student's logits, in one pass over a large
vocabulary.

Differentiating `kd_jax.losses.logits` gives the same numbers but takes every exponential twice,
which is most of the time where the vocabulary is large. Shorthand: `q` is the student's prediction,
`p` the teacher's."""

import jax
import jax.numpy as jnp

from kd_jax.core.types import Scalar
from kd_jax.losses.logits import log_mixture, log_ratio

Slope = tuple[jax.Array, jax.Array]
"""Values `[...]` and their gradient by the student's logits `[..., V]`."""


def soft_target_kl(student: jax.Array, teacher: jax.Array, temperature: jax.Array) -> Slope:
    """Computes `T^2 KL(p || q)`, with gradient `T (q - p)`, of logits `[..., V]`."""
    z, y = _centered(student, temperature), _centered(teacher, temperature)
    to_p = jnp.exp(y)
    other, inner = _sum(to_p), _sum(to_p * log_ratio(y, z))
    # In this order the student's powers take the place of its logits, and the slope theirs.
    inner, z = jax.lax.optimization_barrier((inner, z))
    to_q = jnp.exp(z)
    total = _sum(to_q)
    values = inner / other + jnp.log(total) - jnp.log(other)
    return temperature**2 * values[..., 0], to_q * (temperature / total) - to_p * (
        temperature / other
    )


def reverse_kl(student: jax.Array, teacher: jax.Array, temperature: jax.Array) -> Slope:
    """Computes `T^2 KL(q || p)`, with gradient `T q (log q/p - KL(q || p))`, of logits `[...,
    V]`.
    """
    z, y = _centered(student, temperature), _centered(teacher, temperature)
    other = _sum(jnp.exp(y))
    to_q = jnp.exp(z)
    ratio = log_ratio(z, y)
    total, inner = _sum(to_q), _sum(to_q * ratio)
    mean = inner / total  # Of z - y; the logarithms of the sums cancel in the slope.
    values = mean + jnp.log(other) - jnp.log(total)
    return temperature**2 * values[..., 0], to_q * (ratio - mean) * (temperature / total)


def jensen_shannon(student: jax.Array, teacher: jax.Array, beta: jax.Array) -> Slope:
    """Computes `b KL(p || m) + (1 - b) KL(q || m)` of logits `[..., V]`.

    Its gradient is `(1 - b) q (log q/m - KL(q || m))`.

    At `b = 0` and `b = 1` the two divergences themselves, as in `kd_jax.losses.jensen_shannon`.
    """
    log_q, log_p = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
    q, p = jnp.exp(log_q), jnp.exp(log_p)
    # The ends are defined apart and read no mixture, so any share inside will do there.
    inside = jnp.where((beta > 0) & (beta < 1), beta, 0.5)
    log_m = log_mixture(log_p, log_q, inside)
    ratio = log_ratio(log_q, jnp.where(beta >= 1, log_p, log_m))
    mixed = _sum(q * ratio)
    forward = _sum(p * log_ratio(log_p, jnp.where(beta <= 0, log_q, log_m)))
    # At an end one divergence stands alone with weight 1; the formula's limit there is 0.
    ours = jnp.where(beta <= 0, 0, jnp.where(beta >= 1, 1, 1 - beta))
    theirs = jnp.where(beta <= 0, 1, jnp.where(beta >= 1, 0, beta))
    slope = jnp.where(beta <= 0, q - p, ours * q * (ratio - mixed))
    return (ours * mixed + theirs * forward)[..., 0], slope


def _centered(logits: jax.Array, temperature: Scalar) -> jax.Array:
    """Computes `(logits - max) / T`, whose powers can't overflow."""
    return (logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature


def _sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=-1, keepdims=True)
