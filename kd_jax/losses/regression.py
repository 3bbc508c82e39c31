"""Losses between numbers: predictions `[..., R]`, one value an example, means over the R numbers.

`logit_mse` is the same between any two models' outputs, logits among them."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax.core.checks import prepare, require_equal_shapes, require_positive, require_within
from kd_jax.core.types import Array, Scalar


def _difference(student: Array, target: Array, what: str) -> jax.Array:
    require_equal_shapes(student, target, what)
    ours, theirs = prepare(student, target, what)
    return ours - theirs


def squared_error(
    student_values: Float[Array, "*b r"], labels: Float[Array, "*b r"]
) -> Float[jax.Array, "*b"]:
    """Computes the mean squared error of the student's numbers.

    Computed in at least float32. No gradient reaches the labels.

    Args:
      student_values: `[..., R]`.
      labels: `[..., R]`, the right numbers.

    Returns:
      `[...]` in squared units of the numbers, unreduced.

    Raises:
      ValueError: if the shapes differ or one holds integers.
    """
    return jnp.mean(_difference(student_values, labels, "numbers") ** 2, axis=-1)


def logit_mse(
    student_logits: Float[Array, "*b k"], teacher_logits: Float[Array, "*b k"]
) -> Float[jax.Array, "*b"]:
    """Computes the mean squared difference of the outputs before any softmax or sigmoid.

    Computed in at least float32. No gradient reaches the teacher.

    Args:
      student_logits: `[..., K]`.
      teacher_logits: `[..., K]`, the same shape.

    Returns:
      `[...]`, unreduced; zero where the two agree.

    Raises:
      ValueError: if the shapes differ or one holds integers.

    References:
      Ba, Caruana. `Do Deep Nets Really Need to be Deep?
      <https://arxiv.org/abs/1312.6184>`_, 2014.
    """
    return jnp.mean(_difference(student_logits, teacher_logits, "logits") ** 2, axis=-1)


def huber(
    student_values: Float[Array, "*b r"], labels: Float[Array, "*b r"], *, delta: Scalar = 1.0
) -> Float[jax.Array, "*b"]:
    r"""Computes the mean Huber loss of the student's numbers.

    Half the squared error up to :math:`\delta`, and :math:`\delta (|e| - \delta / 2)` beyond, so
    that outliers pull no harder. Computed in at least float32. No gradient reaches the labels.

    Args:
      student_values: `[..., R]`.
      labels: `[..., R]`, the right numbers.
      delta: in units of the numbers, > 0; those of a config are in standard deviations.

    Returns:
      `[...]`, unreduced.

    Raises:
      ValueError: if the shapes differ, one holds integers, or `delta` is a Python number <= 0.

    References:
      Huber. Robust Estimation of a Location Parameter. Annals of Mathematical Statistics 35, 1964.
    """
    require_positive(delta, "delta")
    size = jnp.abs(_difference(student_values, labels, "numbers"))
    near = jnp.minimum(size, delta)
    return jnp.mean(near**2 / 2 + delta * (size - near), axis=-1)


def bounded_regression(
    student_values: Float[Array, "*b r"],
    teacher_values: Float[Array, "*b r"],
    labels: Float[Array, "*b r"],
    *,
    margin: Scalar = 0.0,
) -> Float[jax.Array, "*b"]:
    """Computes the student's squared error where the teacher's bounds it not, else zero.

    A teacher's numbers may point away from the right ones, so they are no target: the student is
    pulled to the labels until it is better than the teacher by `margin`. Computed in at least
    float32. No gradient reaches teacher or labels.

    Args:
      student_values: `[..., R]`.
      teacher_values: `[..., R]`.
      labels: `[..., R]`, the right numbers.
      margin: in squared units, >= 0.

    Returns:
      `[...]` the sum over the numbers of the squared error `s` where `s + margin` is larger than
      the teacher's, else zero; unreduced.

    Raises:
      ValueError: if the shapes differ, one holds integers, or `margin` is a Python number < 0.

    References:
      Chen, Choi, Yu, Han, Chandraker. `Learning Efficient Object Detection Models with Knowledge
      Distillation
      <https://papers.nips.cc/paper/2017/hash/e1e32e235eee1f970470a3a6658dfdd5-Abstract.html>`_,
      2017, equation 5.
    """
    require_within(margin, 0, float("inf"), "margin")
    ours = jnp.sum(_difference(student_values, labels, "numbers") ** 2, axis=-1)
    theirs = jnp.sum(_difference(teacher_values, labels, "numbers") ** 2, axis=-1)
    # Compared so that a NaN of the student is kept, not taken for a bound that holds.
    return jnp.where(ours + margin <= jax.lax.stop_gradient(theirs), 0.0, ours)
