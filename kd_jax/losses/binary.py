"""Losses of classes that are there or not, each by itself: one Bernoulli distribution a class.

Values are means over the classes, as in PyTorch, so that a term's weight means the same whatever
their number."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax.core.checks import (
    at_least_float32,
    prepare,
    require_equal_shapes,
    require_floating,
    require_positive,
)
from kd_jax.core.types import Array, Scalar


def binary_cross_entropy(
    student_logits: Float[Array, "*b k"],
    labels: Float[Array, "*b k"],
    *,
    positive_weights: Scalar | Float[Array, " k"] = 1.0,
) -> Float[jax.Array, "*b"]:
    r"""Computes the mean over the classes of the binary cross-entropy with the labels.

    With :math:`q = \mathrm{sigmoid}(z)`, returns the mean of :math:`-w y \log q - (1 - y) \log(1 -
    q)`. Computed in at least float32. No gradient reaches the labels.

    Args:
      student_logits: `[..., K]`, the log-odds of each class.
      labels: `[..., K]`, 1 where the class is there and 0 where not, or probabilities between.
      positive_weights: `w`, how much a class that is there counts; a number or `[K]`.

    Returns:
      `[...]` nats, unreduced; zero where the student is certain and right.

    Raises:
      ValueError: if the shapes differ or the logits are integers.
    """
    require_equal_shapes(student_logits, labels, "logits and labels")
    require_floating(student_logits, "student logits")
    (z,) = at_least_float32(student_logits)
    y = jax.lax.stop_gradient(jnp.asarray(labels)).astype(z.dtype)
    # log(1 - sigmoid(z)) as log sigmoid(-z), which stays finite where 1 - sigmoid(z) rounds to 0.
    there, absent = jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)
    weights = jnp.broadcast_to(jnp.asarray(positive_weights, z.dtype), z.shape)
    return -jnp.mean(weights * y * there + (1 - y) * absent, axis=-1)


def binary_soft_target_kl(
    student_logits: Float[Array, "*b k"],
    teacher_logits: Float[Array, "*b k"],
    *,
    temperature: Scalar = 1.0,
) -> Float[jax.Array, "*b"]:
    r"""Computes the mean over the classes of the KL divergence from the teacher's soft targets.

    With :math:`p = \mathrm{sigmoid}(z_\text{teacher} / T)` and `q` the student's, returns
    :math:`T^2` times the mean of :math:`p \log(p / q) + (1 - p) \log((1 - p) / (1 - q))`: soft
    targets as for classes that exclude one another, class by class. Computed in at least float32.
    No gradient reaches the teacher.

    Args:
      student_logits: `[..., K]`, the log-odds of each class.
      teacher_logits: `[..., K]`, the same shape.
      temperature: `T > 0`, dimensionless; larger is softer. May be traced.

    Returns:
      `[...]` divergences in nats, unreduced; zero where the two agree.

    Raises:
      ValueError: if the shapes differ, the logits are integers, or `temperature` is a Python number
        <= 0.

    References:
      Hinton, Vinyals, Dean. `Distilling the Knowledge in a Neural Network
      <https://arxiv.org/abs/1503.02531>`_, 2015, for two classes each.
    """
    require_equal_shapes(student_logits, teacher_logits, "logits")
    require_positive(temperature, "temperature")
    student, teacher = prepare(student_logits, teacher_logits, "logits")
    s, t = student / temperature, teacher / temperature
    p, not_p = jax.nn.sigmoid(t), jax.nn.sigmoid(-t)
    there = p * (jax.nn.log_sigmoid(t) - jax.nn.log_sigmoid(s))
    absent = not_p * (jax.nn.log_sigmoid(-t) - jax.nn.log_sigmoid(-s))
    return jnp.mean(there + absent, axis=-1) * temperature**2
