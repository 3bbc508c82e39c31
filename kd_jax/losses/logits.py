"""Losses between class scores: logits on both sides, divergences in nats, one value an example.

A logit of minus infinity rules a class out, as a masked vocabulary does. A class that the first
distribution of a divergence gives probability 0 adds 0; one that only the second rules out makes it
infinite.

Shorthand of the formulas: `p` is the teacher's prediction `softmax(z_teacher / T)`, `q` the
student's."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from kd_jax.core.checks import (
    at_least_float32,
    prepare,
    require_equal_shapes,
    require_floating,
    require_positive,
    require_within,
)
from kd_jax.core.types import Array, Scalar


def cross_entropy(
    student_logits: Float[Array, "*b k"],
    labels: Int[Array, "*b"] | Float[Array, "*b k"],
    *,
    label_smoothing: Scalar = 0.0,
) -> Float[jax.Array, "*b"]:
    """Computes the cross-entropy of the student's prediction with the labels.

    With smoothing `s` the target is `1 - s` times the label and `s / K` for each class. Computed in
    at least float32. No gradient reaches soft labels.

    Args:
      student_logits: `[..., K]` unnormalized log-probabilities.
      labels: `[...]` integer classes, or `[..., K]` probabilities. An integer outside `0..K-1`
        picks no class and costs 0: mask such rows.
      label_smoothing: `s` from 0 to 1.

    Returns:
      `[...]` nats, unreduced; zero where the student is certain and right.

    Raises:
      ValueError: if the logits are not floating point, the shapes don't fit, or `label_smoothing`
        is a Python number outside its range.

    References:
      Szegedy et al. `Rethinking the Inception Architecture <https://arxiv.org/abs/1512.00567>`_,
      2015, of the smoothing.
    """
    require_within(label_smoothing, 0, 1, "label_smoothing")
    # Integer logits are most often labels in the wrong place.
    require_floating(student_logits, "student logits")
    (student_logits,) = at_least_float32(student_logits)
    # The logarithm of a softmax would be -inf where a probability rounds to 0.
    log_q = jax.nn.log_softmax(student_logits)
    if jnp.issubdtype(labels.dtype, jnp.integer):
        if labels.shape != student_logits.shape[:-1]:
            raise ValueError(
                f"integer labels must have the logits' leading shape {student_logits.shape[:-1]},"
                f" got {labels.shape}"
            )
        # A class outside the range becomes a row of zeros, and so costs 0.
        targets = jax.nn.one_hot(labels, student_logits.shape[-1], dtype=log_q.dtype)
    else:
        if labels.shape != student_logits.shape:
            raise ValueError(
                f"soft labels must have the logits' shape {student_logits.shape}, got"
                f" {labels.shape}"
            )
        # Soft labels may come from another network, which must not be trained.
        targets = jax.lax.stop_gradient(labels).astype(log_q.dtype)
    if not isinstance(label_smoothing, int | float) or label_smoothing:
        # A row without a class has no target to smooth.
        total = jnp.sum(targets, axis=-1, keepdims=True)
        even = jnp.full_like(targets, 1 / targets.shape[-1]) * total
        targets = (1 - label_smoothing) * targets + label_smoothing * even
    # A class of probability 0 adds 0 even where the student's log-probability is -inf.
    return -jnp.sum(jnp.where(targets > 0, targets * log_q, 0.0), axis=-1)


def log_predictions(
    student_logits: Float[Array, "*b k"],
    teacher_logits: Float[Array, "*b k"],
    temperature: Scalar = 1.0,
) -> tuple[Float[jax.Array, "*b k"], Float[jax.Array, "*b k"]]:
    """Checks a pair; returns its log-probabilities `log q` (student) and `log p` (teacher), `[...,
    K]`.

    Raises:
      ValueError: if the shapes differ, the logits are integers, or `temperature` is a Python number
        <= 0.
    """
    student, teacher = prepare(student_logits, teacher_logits, "logits")
    # Without this check a `[B, 1]` teacher would broadcast in silence and give a wrong number.
    require_equal_shapes(student, teacher, "logits")
    require_positive(temperature, "temperature")
    # Both sides are softened; on one side alone the loss of equal logits would not be 0.
    return jax.nn.log_softmax(student / temperature), jax.nn.log_softmax(teacher / temperature)


def divergence(log_p: Float[Array, "*b k"], log_q: Float[Array, "*b k"]) -> Float[jax.Array, "*b"]:
    """Computes `KL(p || q)` `[...]` in nats of two distributions given as log-probabilities `[...,
    K]`.

    A class that `p` rules out (log-probability minus infinity) adds 0, whatever `q` gives it; one
    that `q` alone rules out makes the divergence infinite.
    """
    return jnp.sum(jnp.exp(log_p) * log_ratio(log_p, log_q), axis=-1)


def log_ratio(log_p: Float[Array, "*b k"], log_q: Float[Array, "*b k"]) -> Float[jax.Array, "*b k"]:
    """Computes `log p/q`, and 0 where `p` is 0: there floating point gives 0 times infinity, which
    is NaN, and the limit is 0.
    """
    return jnp.where(jnp.isneginf(log_p), 0, log_p - log_q)


def soft_target_kl(
    student_logits: Float[Array, "*b k"],
    teacher_logits: Float[Array, "*b k"],
    *,
    temperature: Scalar = 1.0,
) -> Float[jax.Array, "*b"]:
    r"""Computes the forward KL divergence from the teacher's soft targets to the student.

    With :math:`p^T = \mathrm{softmax}(z / T)`, returns :math:`T^2 \, \mathrm{KL}(p^T_\text{teacher}
    \,\|\, p^T_\text{student})`. The factor :math:`T^2` keeps the size of the gradient when the
    temperature changes, so that the term's weight can be tuned once (Section 2 of the paper).

    Computed in at least float32. No gradient reaches the teacher.

    Args:
      student_logits: `[..., K]` unnormalized log-probabilities.
      teacher_logits: `[..., K]`, the same shape.
      temperature: `T > 0`, dimensionless; larger is softer. May be traced.

    Returns:
      `[...]` divergences in nats, unreduced; zero where the two agree.

    Raises:
      ValueError: if the shapes differ, the logits are integers, or `temperature` is a Python number
        <= 0.

    References:
      Hinton, Vinyals, Dean. `Distilling the Knowledge in a Neural Network
      <https://arxiv.org/abs/1503.02531>`_, 2015.
    """
    log_q, log_p = log_predictions(student_logits, teacher_logits, temperature)
    return divergence(log_p, log_q) * temperature**2


def reverse_kl(
    student_logits: Float[Array, "*b k"],
    teacher_logits: Float[Array, "*b k"],
    *,
    temperature: Scalar = 1.0,
) -> Float[jax.Array, "*b"]:
    """Computes the reverse KL divergence, `T^2 KL(q || p)`.

    The student seeks a mode of the teacher instead of covering all. It is infinite where the
    teacher alone rules a class out.

    Computed in at least float32. No gradient reaches the teacher.

    Args:
      student_logits: `[..., K]` unnormalized log-probabilities.
      teacher_logits: `[..., K]`, the same shape.
      temperature: `T > 0`, dimensionless. May be traced.

    Returns:
      `[...]` divergences in nats, unreduced; zero where the two agree.

    Raises:
      ValueError: as `soft_target_kl`.

    References:
      Gu et al. `MiniLLM: Knowledge Distillation of Large Language Models
        <https://arxiv.org/abs/2306.08543>`_, 2024.
    """
    log_q, log_p = log_predictions(student_logits, teacher_logits, temperature)
    return divergence(log_q, log_p) * temperature**2


def log_mixture(
    log_a: Float[Array, "*b k"], log_b: Float[Array, "*b k"], share: Scalar
) -> Float[jax.Array, "*b k"]:
    """Computes `log(share a + (1 - share) b)` of two distributions given by their
    log-probabilities.
    """
    # Cast first, so that a traced share of another dtype doesn't change the result's.
    share = jnp.asarray(share, log_a.dtype)
    # In log space, since adding the probabilities would lose those that underflow.
    one, other = jnp.log(share) + log_a, jnp.log1p(-share) + log_b
    # The gradient of logaddexp is NaN where both are minus infinity, as where both rule a class
    # out.
    neither = jnp.isneginf(one) & jnp.isneginf(other)
    one, other = jnp.where(neither, 0, one), jnp.where(neither, 0, other)
    return jnp.where(neither, -jnp.inf, jnp.logaddexp(one, other))


def jensen_shannon(
    student_logits: Float[Array, "*b k"],
    teacher_logits: Float[Array, "*b k"],
    *,
    beta: Scalar = 0.5,
) -> Float[jax.Array, "*b"]:
    """Computes the generalised Jensen-Shannon divergence, `b KL(p || m) + (1 - b) KL(q || m)`.

    The mixture is `m = b p + (1 - b) q`.

    At the ends it is defined as `KL(p || q)` for `b = 0` and `KL(q || p)` for `b = 1`; both are
    jumps, since the formula's limit there is 0. Computed in at least float32, at temperature 1. No
    gradient reaches the teacher.

    Args:
      student_logits: `[..., K]` unnormalized log-probabilities.
      teacher_logits: `[..., K]`, the same shape.
      beta: `b` in [0, 1], the teacher's share of the mixture. May be traced.

    Returns:
      `[...]` divergences in nats, unreduced; zero where the two agree.

    Raises:
      ValueError: if the shapes differ, the logits are integers, or `beta` is a Python number
        outside [0, 1].

    References:
      Agarwal et al. `On-Policy Distillation of Language Models (GKD)
      <https://arxiv.org/abs/2306.13649>`_, 2024.
    """
    # Checked before anything is traced, while the value is still a Python number.
    require_within(beta, 0, 1, "beta")
    log_q, log_p = log_predictions(student_logits, teacher_logits)
    beta = jnp.asarray(beta, log_p.dtype)
    # The ends are replaced before the logarithm, else their infinities would reach the gradient.
    inside = jnp.where((beta > 0) & (beta < 1), beta, 0.5)
    log_m = log_mixture(log_p, log_q, inside)
    mixed = inside * divergence(log_p, log_m) + (1 - inside) * divergence(log_q, log_m)
    # An end that isn't asked for compares a distribution with itself: an infinite one would be NaN
    # in the gradient although it is not chosen.
    forward = divergence(log_p, jnp.where(beta <= 0, log_q, log_p))
    reverse = divergence(log_q, jnp.where(beta >= 1, log_p, log_q))
    return jnp.where(beta <= 0, forward, jnp.where(beta >= 1, reverse, mixed))


def skew_kl(
    student_logits: Float[Array, "*b k"],
    teacher_logits: Float[Array, "*b k"],
    *,
    alpha: Scalar = 0.1,
) -> Float[jax.Array, "*b"]:
    """Computes the skewed forward KL, `KL(p || a p + (1 - a) q)`.

    It is bounded by `-log a` however wrong the student is.

    The true divergence; the original code leaves out the teacher's entropy. Computed in at least
    float32, at temperature 1. No gradient reaches the teacher.

    Args:
      student_logits: `[..., K]` unnormalized log-probabilities.
      teacher_logits: `[..., K]`, the same shape.
      alpha: `a` in [0, 1], the teacher's share of the mixture; 0 is the plain KL. May be traced.

    Returns:
      `[...]` divergences in nats, unreduced; zero where the two agree.

    Raises:
      ValueError: if the shapes differ, the logits are integers, or `alpha` is a Python number
        outside [0, 1].

    References:
      Ko et al. `DistiLLM: Towards Streamlined Distillation for Large Language Models
      <https://arxiv.org/abs/2402.03898>`_, 2024.
    """
    # A share outside [0, 1] would take the logarithm of a negative number: NaN in silence.
    require_within(alpha, 0, 1, "alpha")
    log_q, log_p = log_predictions(student_logits, teacher_logits)
    return divergence(log_p, log_mixture(log_p, log_q, alpha))


def skew_reverse_kl(
    student_logits: Float[Array, "*b k"],
    teacher_logits: Float[Array, "*b k"],
    *,
    alpha: Scalar = 0.1,
) -> Float[jax.Array, "*b"]:
    """Computes the skewed reverse KL, `KL(q || (1 - a) p + a q)`.

    Arguments, result, errors and source as `skew_kl`.
    """
    require_within(alpha, 0, 1, "alpha")
    log_q, log_p = log_predictions(student_logits, teacher_logits)
    return divergence(log_q, log_mixture(log_q, log_p, alpha))


def total_variation(
    student_logits: Float[Array, "*b k"], teacher_logits: Float[Array, "*b k"]
) -> Float[jax.Array, "*b"]:
    """Computes the total variation distance, half the L1 distance of the predictions at temperature
    1.

    Computed in at least float32. No gradient reaches the teacher.

    Args:
      student_logits: `[..., K]` unnormalized log-probabilities.
      teacher_logits: `[..., K]`, the same shape.

    Returns:
      `[...]` distances in [0, 1], unreduced; zero where the two agree.

    Raises:
      ValueError: if the shapes differ or the logits are integers.

    References:
      Wen et al. `f-Divergence Minimization for Sequence-Level Knowledge Distillation
      <https://arxiv.org/abs/2307.15190>`_, 2023.
    """
    # Unlike a KL it needs the probabilities themselves, in which an underflow to 0 is harmless.
    log_q, log_p = log_predictions(student_logits, teacher_logits)
    return 0.5 * jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)), axis=-1)


def deit_hard(
    distillation_logits: Float[Array, "*b k"], teacher_logits: Float[Array, "*b k"]
) -> Float[jax.Array, "*b"]:
    """Computes the cross-entropy of the student's distillation head with the teacher's decision.

    Computed in at least float32. No gradient reaches the teacher.

    Args:
      distillation_logits: `[..., K]`, of the head that learns from the teacher.
      teacher_logits: `[..., K]`, the same shape; of equal largest ones the first decides.

    Returns:
      `[...]` nats, unreduced; zero where the head is certain of the teacher's class.

    Raises:
      ValueError: if the shapes differ or the logits are integers.

    References:
      Touvron et al. `Training Data-Efficient Image Transformers and Distillation through Attention
      <https://arxiv.org/abs/2012.12877>`_, 2021.
    """
    head, teacher = prepare(distillation_logits, teacher_logits, "logits")
    require_equal_shapes(head, teacher, "logits")
    # DeiT's paper found the teacher's hard decision better than its soft targets.
    return cross_entropy(head, jnp.argmax(teacher, axis=-1))
