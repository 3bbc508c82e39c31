"""Losses on the structure of class scores: target against other classes, correlations, standardised
  logits.

`p` is the teacher's prediction `softmax(z_teacher / T)`, `q` the student's.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Shaped

from kd_jax.core.checks import (
    as_where,
    einsum,
    masked_mean,
    prepare,
    require_equal_shapes,
    require_positive,
    safe_norm,
    safe_sqrt,
)
from kd_jax.core.types import Array, Scalar
from kd_jax.losses.logits import divergence, log_predictions, log_ratio

EPSILON = 1e-8
"""What DIST adds to the product of the norms."""


def _split_target(log_probabilities: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Splits log-probabilities `[..., K]` into `[..., 2]`, target and rest, and `[..., K]` within
    the rest.

    Within the rest the target has 0.

    Stays in log space: where the target is nearly certain, `1 - p` would round to 0 and its
    logarithm be infinite."""
    of_target = jnp.sum(jnp.where(target, log_probabilities, 0), axis=-1)
    # Added up as logarithms: 1 - p would lose all digits of a confident prediction.
    others = jnp.where(target, -jnp.inf, log_probabilities)
    # Of nothing but impossible classes the sum is 0; its logarithm would have NaN as gradient.
    none = jnp.all(jnp.isneginf(others), axis=-1, keepdims=True)
    of_rest = jax.nn.logsumexp(jnp.where(none, 0, others), axis=-1, keepdims=True)
    of_rest = jnp.where(none, -jnp.inf, of_rest)
    ruled_out = jnp.isneginf(log_probabilities)
    within = jnp.where(ruled_out, -jnp.inf, log_probabilities - jnp.where(none, 0, of_rest))
    return jnp.stack([of_target, of_rest[..., 0]], axis=-1), jnp.where(target, 0, within)


def decoupled_kd(
    student_logits: Float[Array, "*b k"],
    teacher_logits: Float[Array, "*b k"],
    labels: Int[Array, "*b"],
    *,
    temperature: Scalar = 4.0,
    target_weight: Scalar = 1.0,
    nontarget_weight: Scalar = 8.0,
) -> Float[jax.Array, "*b"]:
    """Computes decoupled knowledge distillation, `T^2 (a TCKD + b NCKD)`.

    TCKD is the divergence of the two-way predictions (label's class, all others), NCKD that of the
    predictions among the others. Computed in log space and at least float32, so it is finite for
    saturated logits, where the original code is not. No gradient reaches the teacher.

    Args:
      student_logits: `[..., K]` unnormalized log-probabilities, `K` at least 2.
      teacher_logits: `[..., K]`, the same shape.
      labels: `[...]` integer classes. One outside `0..K-1` is read as the nearest class: mask such
        rows.
      temperature: `T > 0`. May be traced.
      target_weight: `a`, of TCKD. May be traced.
      nontarget_weight: `b`, of NCKD. May be traced.

    Returns:
      `[...]` nats, unreduced; zero where the two agree.

    Raises:
      ValueError: if shapes differ, the logits are integers, the labels aren't, or `temperature` is
        a Python number <= 0.

    References:
      Zhao et al. `Decoupled Knowledge Distillation <https://arxiv.org/abs/2203.08679>`_, 2022.
    """
    log_q, log_p = log_predictions(student_logits, teacher_logits, temperature)
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != log_q.shape[:-1]:
        raise ValueError(
            f"labels must be integers of the logits' leading shape {log_q.shape[:-1]}, got"
            f" {labels.dtype}"
            f" {labels.shape}"
        )
    # With one class there is no rest whose distribution could be compared.
    if log_q.shape[-1] < 2:
        raise ValueError(f"there must be at least 2 classes, got {log_q.shape[-1]}")
    # Clipped, since without any target the logarithms below would be of 0; such rows are masked
    # later.
    target = jax.nn.one_hot(jnp.clip(labels, 0, log_q.shape[-1] - 1), log_q.shape[-1], dtype=bool)
    (two_q, rest_q), (two_p, rest_p) = _split_target(log_q, target), _split_target(log_p, target)
    among_rest = jnp.where(target, 0, jnp.exp(rest_p) * log_ratio(rest_p, rest_q)).sum(axis=-1)
    target_and_rest = divergence(two_p, two_q) * target_weight + among_rest * nontarget_weight
    return target_and_rest * temperature**2


def standardized_kl(
    student_logits: Float[Array, "*b k"],
    teacher_logits: Float[Array, "*b k"],
    *,
    temperature: Scalar = 2.0,
) -> Float[jax.Array, "*b"]:
    """Computes `T^2 KL` of the predictions from standardised logits.

    The student need not match the teacher's scale or shift.

    Each row of logits has its mean taken off and is divided by its standard deviation (`ddof = 1`,
    plus 1e-7); both are taken over the classes that neither side rules out by a logit of minus
    infinity. Computed in at least float32. No gradient reaches the teacher.

    Args:
      student_logits: `[..., K]` unnormalized log-probabilities, `K` at least 2.
      teacher_logits: `[..., K]`, the same shape.
      temperature: `T > 0`. May be traced.

    Returns:
      `[...]` nats, unreduced; zero where the two agree up to scale and shift. A constant row
      predicts all classes alike.

    Raises:
      ValueError: if the shapes differ, the logits are integers, there is one class, or
        `temperature` is a Python number <= 0.

    References:
      Sun et al. `Logit Standardization in Knowledge Distillation
      <https://arxiv.org/abs/2403.01427>`_, 2024.
    """
    student, teacher = prepare(student_logits, teacher_logits, "logits")
    require_equal_shapes(student, teacher, "logits")
    # With ddof = 1 a row of one class would divide its variance by 0.
    if student.shape[-1] < 2:
        raise ValueError(f"there must be at least 2 classes, got {student.shape[-1]}")
    possible = jnp.isfinite(student) & jnp.isfinite(teacher)
    student, teacher = _standardize(student, possible), _standardize(teacher, possible)
    log_q, log_p = log_predictions(student, teacher, temperature)
    return divergence(log_p, log_q) * temperature**2


def _standardize(
    logits: Float[jax.Array, "*b k"], possible: Bool[jax.Array, "*b k"]
) -> Float[jax.Array, "*b k"]:
    # Minus infinity is set aside, since a product with it would be NaN in the gradient.
    known = jnp.isfinite(logits)
    finite = jnp.where(known, logits, 0)
    # A student then needs the teacher's order and ratios, not its range of logits.
    count = jnp.sum(possible, axis=-1, keepdims=True, dtype=logits.dtype)
    mean = jnp.sum(jnp.where(possible, finite, 0), axis=-1, keepdims=True) / jnp.maximum(count, 1)
    centered = finite - mean
    squares = jnp.sum(jnp.where(possible, jnp.square(centered), 0), axis=-1, keepdims=True)
    scaled = centered / (safe_sqrt(squares / jnp.maximum(count - 1, 1)) + 1e-7)
    return jnp.where(known, scaled, logits)


def _correlation(a: jax.Array, b: jax.Array, where: jax.Array, axis: int) -> jax.Array:
    """Computes Pearson's correlation along `axis` over what counts."""
    # Centred over what counts alone: masked rows must not shift the mean.
    a, b = (
        jnp.where(where, x - jnp.expand_dims(masked_mean(x, where, axis), axis), 0) for x in (a, b)
    )
    return jnp.sum(a * b, axis=axis) / (safe_norm(a, axis) * safe_norm(b, axis) + EPSILON)


def dist(
    student_logits: Float[Array, "*b k"],
    teacher_logits: Float[Array, "*b k"],
    *,
    temperature: Scalar = 1.0,
    inter_weight: Scalar = 1.0,
    intra_weight: Scalar = 1.0,
    where: Shaped[Array, "*b"] | None = None,
) -> Float[jax.Array, ""]:
    """Computes DIST: predictions should correlate with the teacher's, over classes and over
    examples.

    `T^2 (b (1 - mean row correlation) + g (1 - mean column correlation))`, Pearson correlations of
    `p` and `q` with 1e-8 added to the product of the norms. A constant row or column has
    correlation 0. Computed in at least float32. No gradient reaches the teacher.

    Args:
      student_logits: `[..., K]` unnormalized log-probabilities; the leading axes together are the
        examples.
      teacher_logits: `[..., K]`, the same shape.
      temperature: `T > 0`. May be traced.
      inter_weight: `b`, of the correlation over classes. May be traced.
      intra_weight: `g`, of the correlation over examples. May be traced.
      where: `[...]` bool, the examples that count; None: all.

    Returns:
      `[]`; near 0 (1e-8 aside) where the two agree, 0 where no example counts.

    Raises:
      ValueError: if the shapes differ, the logits are integers, or `temperature` is a Python number
        <= 0.

    References:
      Huang et al. `Knowledge Distillation from A Stronger Teacher
      <https://arxiv.org/abs/2205.10536>`_, 2022.
    """
    q, p, rows = _probabilities(student_logits, teacher_logits, temperature, where)
    mask = jnp.broadcast_to(rows[:, None], q.shape)
    # Classes of one example; below, examples of one class.
    between_classes = masked_mean(_correlation(q, p, jnp.ones_like(mask), axis=1), rows)
    between_examples = jnp.mean(_correlation(q, p, mask, axis=0))
    loss = inter_weight * (1 - between_classes) + intra_weight * (1 - between_examples)
    return jnp.where(jnp.any(rows), temperature**2 * loss, 0)


def class_correlation(
    student_logits: Float[Array, "*b k"],
    teacher_logits: Float[Array, "*b k"],
    *,
    temperature: Scalar = 4.0,
    where: Shaped[Array, "*b"] | None = None,
) -> Float[jax.Array, ""]:
    """Computes MLLD's class level, the squared difference of the classes' Gram matrices.

    `sum((P^T P - Q^T Q)^2) / K`.

    Computed in at least float32. No gradient reaches the teacher; there is no factor `T^2`.

    Args:
      student_logits: `[..., K]` unnormalized log-probabilities; the leading axes together are the
        examples.
      teacher_logits: `[..., K]`, the same shape.
      temperature: `T > 0`. May be traced.
      where: `[...]` bool, the examples that count; None: all.

    Returns:
      `[]`; zero where the two agree.

    Raises:
      ValueError: if the shapes differ, the logits are integers, or `temperature` is a Python number
        <= 0.

    References:
      Jin et al. `Multi-Level Logit Distillation
      <https://openaccess.thecvf.com/content/CVPR2023/html/Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html>`_,
      2023.
    """
    q, p, _ = _probabilities(student_logits, teacher_logits, temperature, where)
    # Rows that don't count are 0 and add nothing to sums over the batch, so no mask is needed.
    return jnp.sum(jnp.square(einsum("bi,bj->ij", p, p) - einsum("bi,bj->ij", q, q))) / q.shape[-1]


def batch_correlation(
    student_logits: Float[Array, "*b k"],
    teacher_logits: Float[Array, "*b k"],
    *,
    temperature: Scalar = 4.0,
    where: Shaped[Array, "*b"] | None = None,
) -> Float[jax.Array, ""]:
    """Computes MLLD's batch level, the squared difference of the examples' Gram matrices.

    `sum((P P^T - Q Q^T)^2) / B`.

    `B` counts the examples that count; 0 where there are none. Otherwise as `class_correlation`.
    """
    q, p, rows = _probabilities(student_logits, teacher_logits, temperature, where)
    difference = einsum("ik,jk->ij", p, p) - einsum("ik,jk->ij", q, q)
    return jnp.sum(jnp.square(difference)) / jnp.maximum(jnp.sum(rows, dtype=q.dtype), 1)


def _probabilities(student_logits, teacher_logits, temperature, where):
    """Returns `q` and `p` `[B, K]`, zero in rows that don't count, and which `[B]` count.

    Examples of all leading axes are put into one.
    """
    require_positive(temperature, "temperature")
    student, teacher = prepare(student_logits, teacher_logits, "logits")
    require_equal_shapes(student, teacher, "logits")
    rows = as_where(where, student.shape[:-1], "example").reshape(-1)
    # What doesn't count may hold anything; it is replaced before it is computed with.
    student, teacher = (
        jnp.where(rows[:, None], x.reshape(-1, x.shape[-1]), 0) for x in (student, teacher)
    )
    log_q, log_p = log_predictions(student, teacher, temperature)
    # Zeroed once more: the softmax of a zeroed row is uniform, not 0.
    return (
        jnp.where(rows[:, None], jnp.exp(log_q), 0),
        jnp.where(rows[:, None], jnp.exp(log_p), 0),
        rows,
    )
