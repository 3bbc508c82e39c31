"""Losses between intermediate features of student and teacher."""

import jax
import jax.numpy as jnp

from kd_jax.losses.numerics import at_least_float32, require_equal_shapes, require_floating


def hidden_mse(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Mean squared difference of hidden vectors: FitNets' hint, the hidden loss of TinyBERT.

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
    require_floating(student, "student features")
    require_floating(teacher, "teacher features")
    require_equal_shapes(student, teacher, "features")
    student, teacher = at_least_float32(student, jax.lax.stop_gradient(teacher))
    return jnp.mean(jnp.square(student - teacher), axis=-1)
