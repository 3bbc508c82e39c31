"""Losses for large or foreign vocabularies: a teacher kept by its k largest classes, or with other
classes."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from kd_jax.core.checks import at_least_float32, prepare, require_floating, require_positive
from kd_jax.core.types import Array, Scalar


def _log_complement(log_probability: jax.Array) -> jax.Array:
    """Computes `log(1 - exp(x))` of `x <= 0` without cancellation; -inf at 0."""
    # Each of the two formulas loses its digits in the other's half.
    near_one = log_probability > -jnp.log(2.0)
    return jnp.where(
        near_one, jnp.log(-jnp.expm1(log_probability)), jnp.log1p(-jnp.exp(log_probability))
    )


def topk_kl(
    student_logits: Float[Array, "*b v"],
    teacher_log_probs: Float[Array, "*b k"],
    teacher_indices: Int[Array, "*b k"],
    *,
    temperature: Scalar = 1.0,
) -> Float[jax.Array, "*b"]:
    """Computes `T^2 KL` over the k classes kept of a teacher, and one bucket for all the others.

    The bucket keeps the gradient of the tail, which renormalising the k classes would lose.
    Computed in at least float32. No gradient reaches the teacher.

    Args:
      student_logits: `[..., V]` unnormalized log-probabilities over the whole vocabulary.
      teacher_log_probs: `[..., k]` log-probabilities, normalised over the whole vocabulary, already
        at temperature `T`.
      teacher_indices: `[..., k]` integer, distinct classes in `0..V-1` that they belong to.
      temperature: `T > 0`; only the student is divided by it. May be traced.

    Returns:
      `[...]` nats, unreduced; zero where the two agree on each class and on the tail.

    Raises:
      ValueError: if shapes or dtypes don't fit, `k > V`, or `temperature` is a Python number <= 0.

    References:
      Symmetric uniform divergence of `DistillKit <https://github.com/arcee-ai/DistillKit>`_, 2024.
    """
    require_floating(student_logits, "student logits")
    require_floating(teacher_log_probs, "teacher log-probabilities")
    require_positive(temperature, "temperature")
    if (
        not jnp.issubdtype(teacher_indices.dtype, jnp.integer)
        or teacher_indices.shape != teacher_log_probs.shape
    ):
        raise ValueError(
            f"teacher indices must be integers of the log-probabilities' shape"
            f" {teacher_log_probs.shape}, got"
            f" {teacher_indices.dtype} {teacher_indices.shape}"
        )
    classes, kept = student_logits.shape[-1], teacher_log_probs.shape[-1]
    if student_logits.shape[:-1] != teacher_log_probs.shape[:-1] or kept > classes:
        raise ValueError(
            f"{teacher_log_probs.shape} teacher log-probabilities don't fit student logits"
            f" {student_logits.shape}"
        )
    student, log_p = at_least_float32(student_logits, jax.lax.stop_gradient(teacher_log_probs))
    # Over the whole vocabulary, so that the student's share of the tail is known.
    log_q = jax.nn.log_softmax(student / temperature)
    p, log_q_kept = jnp.exp(log_p), jnp.take_along_axis(log_q, teacher_indices, axis=-1)
    # 0 log 0 is 0 in a divergence, and NaN in floating point.
    loss = jnp.sum(jnp.where(p > 0, p * (log_p - log_q_kept), 0), axis=-1)
    # What the teacher did not store is one more outcome, the tail, so nothing is renormalized.
    if kept < classes:
        others = jnp.put_along_axis(log_q, teacher_indices, -jnp.inf, axis=-1, inplace=False)
        log_q_tail = jax.nn.logsumexp(others, axis=-1)
        # Rounding may lift the sum of stored probabilities above 1.
        log_p_tail = _log_complement(jnp.minimum(jax.nn.logsumexp(log_p, axis=-1), 0))
        tail = jnp.exp(log_p_tail)
        loss += jnp.where(tail > 0, tail * (log_p_tail - log_q_tail), 0)
    # Gradients shrink with the square of the temperature; this keeps the term's share.
    return loss * temperature**2


def universal_logit_distance(
    student_logits: Float[Array, "*b v"], teacher_logits: Float[Array, "*b w"]
) -> Float[jax.Array, "*b"]:
    """Computes ULD: the L1 distance of the two predictions, each sorted; vocabularies may differ.

    Temperature 1; the shorter prediction is filled up with zeros. Computed in at least float32. No
    gradient reaches the teacher.

    Args:
      student_logits: `[..., V]` unnormalized log-probabilities.
      teacher_logits: `[..., W]`, the same leading axes.

    Returns:
      `[...]` distances in [0, 2], unreduced; zero where the sorted predictions agree.

    Raises:
      ValueError: if the leading axes differ or the logits are integers.

    References:
      Boizard et al. `Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss
      for LLMs <https://arxiv.org/abs/2402.12030>`_, 2024.
    """
    student, teacher = prepare(student_logits, teacher_logits, "logits")
    if student.shape[:-1] != teacher.shape[:-1]:
        raise ValueError(
            f"student and teacher logits must agree in all axes but the last, got {student.shape}"
            f" and"
            f" {teacher.shape}"
        )
    # Two vocabularies have no common order, so ranks are compared, and zeros fill up.
    size = max(student.shape[-1], teacher.shape[-1])
    q, p = (_sorted_probabilities(logits, size) for logits in (student, teacher))
    return jnp.sum(jnp.abs(q - p), axis=-1)


def _sorted_probabilities(logits: Float[Array, "*b v"], size: int) -> Float[jax.Array, "*b {size}"]:
    probabilities = jnp.sort(jax.nn.softmax(logits), axis=-1, descending=True)
    return jnp.pad(probabilities, [(0, 0)] * (logits.ndim - 1) + [(0, size - logits.shape[-1])])
