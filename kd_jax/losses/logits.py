"""Losses between class scores: logits on both sides, divergences in nats, one value an example."""

import jax
import jax.numpy as jnp

from kd_jax.losses.numerics import at_least_float32, require_equal_shapes, require_floating, require_positive


def cross_entropy(student_logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy of the student's prediction with the labels.

    Computed in at least float32. No gradient reaches soft labels.

    Args:
      student_logits: `[..., K]` unnormalized log-probabilities.
      labels: `[...]` integer classes, or `[..., K]` probabilities. An integer outside `0..K-1` picks no class and
        costs 0: mask such rows.

    Returns:
      `[...]` nats, unreduced; zero where the student is certain and right.

    Raises:
      ValueError: if the logits are not floating point, or the shapes don't fit.
    """
    require_floating(student_logits, "student logits")
    (student_logits,) = at_least_float32(student_logits)
    log_q = jax.nn.log_softmax(student_logits)
    if jnp.issubdtype(labels.dtype, jnp.integer):
        if labels.shape != student_logits.shape[:-1]:
            raise ValueError(
                f"integer labels must have the logits' leading shape {student_logits.shape[:-1]}, got {labels.shape}"
            )
        targets = jax.nn.one_hot(labels, student_logits.shape[-1], dtype=log_q.dtype)
    else:
        if labels.shape != student_logits.shape:
            raise ValueError(f"soft labels must have the logits' shape {student_logits.shape}, got {labels.shape}")
        targets = jax.lax.stop_gradient(labels).astype(log_q.dtype)
    # A class of probability 0 adds 0 even where the student's log-probability is -inf.
    return -jnp.sum(jnp.where(targets > 0, targets * log_q, 0.0), axis=-1)


def soft_target_kl(
    student_logits: jax.Array, teacher_logits: jax.Array, *, temperature: float | jax.Array = 1.0
) -> jax.Array:
    r"""Forward KL divergence from the teacher's soft targets to the student.

    With :math:`p^T = \mathrm{softmax}(z / T)`, returns
    :math:`T^2 \, \mathrm{KL}(p^T_\text{teacher} \,\|\, p^T_\text{student})`. The factor :math:`T^2` keeps the size of
    the gradient when the temperature changes, so that the term's weight can be tuned once (Section 2 of the paper).

    Computed in at least float32. No gradient reaches the teacher.

    Args:
      student_logits: `[..., K]` unnormalized log-probabilities.
      teacher_logits: `[..., K]`, the same shape.
      temperature: `T > 0`, dimensionless; larger is softer. May be traced.

    Returns:
      `[...]` divergences in nats, unreduced; zero where the two agree.

    Raises:
      ValueError: if the shapes differ, the logits are integers, or `temperature` is a Python number <= 0.

    References:
      Hinton, Vinyals, Dean. `Distilling the Knowledge in a Neural Network <https://arxiv.org/abs/1503.02531>`_, 2015.
    """
    require_floating(student_logits, "student logits")
    require_floating(teacher_logits, "teacher logits")
    require_equal_shapes(student_logits, teacher_logits, "logits")
    require_positive(temperature, "temperature")
    student_logits, teacher_logits = at_least_float32(student_logits, jax.lax.stop_gradient(teacher_logits))
    log_p = jax.nn.log_softmax(teacher_logits / temperature)
    log_q = jax.nn.log_softmax(student_logits / temperature)
    return temperature**2 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
