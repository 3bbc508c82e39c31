"""Losses between single responses of feature maps `[B, H, W, C]` of one shape, one value an
example.

Each function takes `where`, bool `[B, H, W]`: positions that don't count leave both sums and
counts; None: all count."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from kd_jax.core.checks import (
    at_least_float32,
    masked_mean,
    masked_sum,
    require_equal_shapes,
    require_positive,
)
from kd_jax.core.types import Array, Scalar
from kd_jax.losses.pooling import prepare_maps

POSITIONS, ALL = (1, 2), (1, 2, 3)


def overhaul(
    student_map: Float[Array, "b h w c"],
    teacher_map: Float[Array, "b h w c"],
    margin: Float[Array, " c"],
    *,
    where: Shaped[Array, "b h w"] | None = None,
) -> Float[jax.Array, " b"]:
    """Computes OFD's partial L2 distance of maps before the ReLU.

    The teacher's map is cut off from below at its margin.

    With `t' = max(t, margin)`, the sum of `(s - t')^2` where `s > t'` or `t' > 0`: a student below
    a negative target is right already. Computed in at least float32. No gradient reaches teacher or
    margin.

    Args:
      student_map: `[B, H, W, C]`, after the connector.
      teacher_map: `[B, H, W, C]`, the same shape, before the ReLU.
      margin: `[C]`, negative: the expected value of the teacher's negative responses, from its
        BatchNorm.
      where: see the module.

    Returns:
      `[B]` sum over positions and channels; zero where the two agree.

    Raises:
      ValueError: if shapes don't fit, or a map holds integers.

    References:
      Heo et al. `A Comprehensive Overhaul of Feature Distillation
      <https://arxiv.org/abs/1904.01866>`_, 2019.
    """
    # Pooling would mix responses whose signs the loss reads, so the sizes must be equal.
    require_equal_shapes(student_map, teacher_map, "map")
    student, teacher, counts = prepare_maps(student_map, teacher_map, where, equal_channels=True)
    if margin.shape != student.shape[-1:]:
        raise ValueError(
            f"margin must have one value a channel, {student.shape[-1:]}, got {margin.shape}"
        )
    (lowest,) = at_least_float32(jax.lax.stop_gradient(margin))
    # Below zero a ReLU hides the value, so the target stops at the margin.
    target = jnp.maximum(teacher, lowest[None, None, None])
    # A student below a negative target is right: both are zero after the ReLU.
    wrong = ((student > target) | (target > 0)) & counts[..., None]
    return masked_sum(jnp.square(student - target), wrong, ALL)


def activation_boundary(
    student_map: Float[Array, "b h w c"],
    teacher_map: Float[Array, "b h w c"],
    *,
    margin: Scalar = 1.0,
    where: Shaped[Array, "b h w"] | None = None,
) -> Float[jax.Array, " b"]:
    """Computes AB, a hinge on the student's responses before the ReLU.

    They are to lie on the teacher's side of zero by a margin.

    The sum of `relu(s + m)^2` where `t <= 0` and of `relu(m - s)^2` where `t > 0`. Computed in at
    least float32. No gradient reaches the teacher.

    Args:
      student_map: `[B, H, W, C]`, after the connector.
      teacher_map: `[B, H, W, C]`, the same shape, before the ReLU.
      margin: `m > 0`. May be traced.
      where: see the module.

    Returns:
      `[B]` sum over positions and channels; zero where every response is beyond the margin on the
      teacher's side.

    Raises:
      ValueError: if shapes don't fit, a map holds integers, or `margin` is a Python number <= 0.

    References:
      Heo et al. `Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden
      Neurons <https://arxiv.org/abs/1811.03233>`_, 2019.
    """
    require_positive(margin, "margin")
    require_equal_shapes(student_map, teacher_map, "map")
    student, teacher, counts = prepare_maps(student_map, teacher_map, where, equal_channels=True)
    # Only the side of the boundary is learned, and each by a margin, as in a hinge loss.
    short = jax.nn.relu(jnp.where(teacher > 0, margin - student, student + margin))
    return masked_sum(jnp.square(short), jnp.broadcast_to(counts[..., None], short.shape), ALL)


def variational(
    student_mean: Float[Array, "b h w c"],
    log_scale: Float[Array, " c"],
    teacher_map: Float[Array, "b h w c"],
    *,
    where: Shaped[Array, "b h w"] | None = None,
) -> Float[jax.Array, " b"]:
    """Computes VID: the teacher map's negative log-likelihood under a Gaussian round its
    prediction.

    `0.5 mean((mean - t)^2 / v + log v)` with `v = softplus(log_scale) + 1e-5`, one variance a
    channel, which is trained. Computed in at least float32. No gradient reaches the teacher.

    Args:
      student_mean: `[B, H, W, C]`, the student's prediction of the teacher's map.
      log_scale: `[C]`, what softplus makes the variances of; start at `VARIATIONAL_START`, where
        they are 5.
      teacher_map: `[B, H, W, C]`, the same shape.
      where: see the module.

    Returns:
      `[B]` mean over positions and channels. Its least value over the mean is `0.5 mean(log v)`,
      not zero.

    Raises:
      ValueError: if shapes don't fit, or a map holds integers.

    References:
      Ahn et al. `Variational Information Distillation <https://arxiv.org/abs/1904.05835>`_, 2019.
    """
    require_equal_shapes(student_mean, teacher_map, "map")
    student, teacher, counts = prepare_maps(student_mean, teacher_map, where, equal_channels=True)
    if log_scale.shape != student.shape[-1:]:
        raise ValueError(
            f"log_scale must have one value a channel, {student.shape[-1:]}, got {log_scale.shape}"
        )
    (log_scale,) = at_least_float32(log_scale)
    # The constant keeps the logarithm and the division finite.
    variance = (jax.nn.softplus(log_scale) + 1e-5)[None, None, None]
    nats = 0.5 * jnp.mean(jnp.square(student - teacher) / variance + jnp.log(variance), axis=-1)
    return masked_mean(nats, counts, POSITIONS)


VARIATIONAL_START = 4.993229
"""`log_scale` that makes VID's variance 5: log(exp(5 - 1e-5) - 1)."""
