"""The knowledge mapping network: what is learned between student and teacher widths, and left behind on export.

A mapping is trained with the student, inside the objective. The absence of a mapping is the identity.
"""

import numbers

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.models import normalization
from kd_jax.types import Array


class Linear(nn.Module):
    """An affine map of the last axis, as between the layers of FitNets and TinyBERT.

    Attributes:
      width: the teacher's.

    References:
      Romero et al. `FitNets: Hints for Thin Deep Nets <https://arxiv.org/abs/1412.6550>`_, 2014.
      Jiao et al. `TinyBERT <https://arxiv.org/abs/1909.10351>`_, 2019, equation 8.
    """

    width: int

    @nn.compact
    def __call__(self, features: Array) -> jax.Array:
        """`[B, ..., D]` -> `[B, ..., width]`, in the dtype of the parameters."""
        features = jnp.asarray(features).astype(normalization.parameter_dtype(self))
        return nn.Dense(self.width, name="dense")(features)


MAPPINGS = {"linear": Linear}
"""Name -> constructor of a Linen module that takes the teacher's `width`."""


def build_mapping(name: str, width: int) -> nn.Module:
    """A module that maps a student's feature `[B, ..., D]` to the teacher's width, `[B, ..., width]`.

    Args:
      name: one of `MAPPINGS`.
      width: the teacher's, at least 1.

    Returns:
      The module, without parameters.

    Raises:
      ValueError: if there is no such mapping, or the width is not a positive whole number.
    """
    if name not in MAPPINGS:
        raise ValueError(f"no mapping {name!r}; there are {sorted(MAPPINGS)}")
    if not isinstance(width, numbers.Integral) or isinstance(width, bool) or width < 1:
        raise ValueError(f"a mapping's width must be a positive whole number, got {width!r}")
    return MAPPINGS[name](width=int(width))
