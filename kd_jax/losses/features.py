"""Losses between hidden vectors of student and teacher, along the last axis."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from kd_jax.core.checks import normalize, prepare, require_equal_shapes
from kd_jax.core.types import Array


def hidden_mse(
    student: Float[Array, "*b d"], teacher: Float[Array, "*b d"]
) -> Float[jax.Array, "*b"]:
    """Computes the mean squared difference of hidden vectors.

    It is FitNets' hint, and the hidden loss of TinyBERT and DistilBERT.

    Computed in at least float32. No gradient reaches the teacher.

    Args:
      student: `[..., D]` hidden vectors, already mapped to the teacher's width.
      teacher: `[..., D]`, the same shape.

    Returns:
      `[...]` mean over `D` of the squared difference, unreduced; zero where the two agree.

    Raises:
      ValueError: if the shapes differ, or an argument holds integers.

    References:
      Romero et al. `FitNets: Hints for Thin Deep Nets <https://arxiv.org/abs/1412.6550>`_, 2015.
      Jiao et al. `TinyBERT <https://arxiv.org/abs/1909.10351>`_, 2020.
    """
    student, teacher = prepare(student, teacher, "features")
    require_equal_shapes(student, teacher, "features")
    # A mean, so that the term's weight need not change with the width.
    return jnp.mean(jnp.square(student - teacher), axis=-1)


def normalized_mse(
    student: Float[Array, "*b d"], teacher: Float[Array, "*b d"]
) -> Float[jax.Array, "*b"]:
    """Computes Patient KD's squared distance of two vectors, each scaled to length 1 before.

    Computed in at least float32. No gradient reaches the teacher.

    Args:
      student: `[..., D]` hidden vectors, already mapped to the teacher's width.
      teacher: `[..., D]`, the same shape.

    Returns:
      `[...]` sum over `D`, in [0, 4], unreduced; zero where the directions agree. A zero vector
      stays zero.

    Raises:
      ValueError: if the shapes differ, or an argument holds integers.

    References:
      Sun et al. `Patient Knowledge Distillation for BERT Model Compression
      <https://arxiv.org/abs/1908.09355>`_, 2019.
    """
    student, teacher = prepare(student, teacher, "features")
    require_equal_shapes(student, teacher, "features")
    # Lengths of hidden states differ between layers and models; only directions are compared.
    return jnp.sum(jnp.square(normalize(student) - normalize(teacher)), axis=-1)


def cosine_distance(
    student: Float[Array, "*b d"], teacher: Float[Array, "*b d"]
) -> Float[jax.Array, "*b"]:
    """Computes one minus the cosine of the angle between two vectors: DistilBERT's hidden loss.

    Computed in at least float32. No gradient reaches the teacher.

    Args:
      student: `[..., D]` hidden vectors, already mapped to the teacher's width.
      teacher: `[..., D]`, the same shape.

    Returns:
      `[...]` in [0, 2], unreduced; zero where the directions agree, 1 where either vector is zero.

    Raises:
      ValueError: if the shapes differ, or an argument holds integers.

    References:
      Sanh et al. `DistilBERT, a distilled version of BERT <https://arxiv.org/abs/1910.01108>`_,
      2019.
    """
    student, teacher = prepare(student, teacher, "features")
    require_equal_shapes(student, teacher, "features")
    return 1 - jnp.sum(normalize(student) * normalize(teacher), axis=-1)
