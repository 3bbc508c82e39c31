"""Divergences and, with them, their gradient by the student's logits, in one pass over a large vocabulary.

Differentiating `kd_jax.losses.logits` gives the same numbers but takes every exponential twice, which is most of the
time where the vocabulary is large. Shorthand: `q` is the student's prediction, `p` the teacher's.
"""

import jax
import jax.numpy as jnp

from kd_jax.losses.logits import log_mixture

Slope = tuple[jax.Array, jax.Array]
"""Values `[...]` and their gradient by the student's logits `[..., V]`."""


def soft_target_kl(student: jax.Array, teacher: jax.Array, temperature: jax.Array) -> Slope:
    """`T^2 KL(p || q)`, with gradient `T (q - p)`, of logits `[..., V]`."""
    (log_q, q), (log_p, p) = (_log_and_prediction(logits, temperature) for logits in (student, teacher))
    return temperature**2 * jnp.sum(p * (log_p - log_q), axis=-1), temperature * (q - p)


def reverse_kl(student: jax.Array, teacher: jax.Array, temperature: jax.Array) -> Slope:
    """`T^2 KL(q || p)`, with gradient `T q (log q/p - KL(q || p))`, of logits `[..., V]`."""
    (log_q, q), (log_p, _) = (_log_and_prediction(logits, temperature) for logits in (student, teacher))
    values, slope = _reverse(log_q, q, log_p)
    return temperature**2 * values, temperature * slope


def jensen_shannon(student: jax.Array, teacher: jax.Array, beta: jax.Array) -> Slope:
    """`b KL(p || m) + (1 - b) KL(q || m)`, with gradient `(1 - b) q (log q/m - KL(q || m))`, of logits `[..., V]`.

    At `b = 0` and `b = 1` the two divergences themselves, as in `kd_jax.losses.jensen_shannon`.
    """
    (log_q, q), (log_p, p) = (_log_and_prediction(logits, 1.0) for logits in (student, teacher))
    inside = jnp.where((beta > 0) & (beta < 1), beta, 0.5)
    log_m = log_mixture(log_p, log_q, inside)
    mixed, slope = _reverse(log_q, q, jnp.where(beta >= 1, log_p, log_m))
    forward = jnp.sum(p * (log_p - jnp.where(beta <= 0, log_q, log_m)), axis=-1)
    ours, theirs = jnp.where(beta >= 1, 1, 1 - beta), jnp.where(beta <= 0, 1, beta)
    ours, theirs = jnp.where(beta <= 0, 0, ours), jnp.where(beta >= 1, 0, theirs)
    return ours * mixed + theirs * forward, jnp.where(beta <= 0, q - p, ours * slope)


def _log_and_prediction(logits: jax.Array, temperature: jax.Array | float) -> tuple[jax.Array, jax.Array]:
    """`log softmax(z / T)` and `softmax(z / T)`, with one exponential for both."""
    scaled = logits / temperature
    scaled = scaled - jnp.max(scaled, axis=-1, keepdims=True)
    powers = jnp.exp(scaled)
    total = jnp.sum(powers, axis=-1, keepdims=True)
    return scaled - jnp.log(total), powers / total


def _reverse(log_q: jax.Array, q: jax.Array, log_p: jax.Array) -> Slope:
    ratio = log_q - log_p
    values = jnp.sum(q * ratio, axis=-1)
    return values, q * (ratio - values[..., None])
