"""The knowledge mapping network: what is learned between student and teacher widths, and left
  behind on export.

A mapping is trained with the student, inside the objective. The absence of a mapping is the
identity. Each works on the last axis, so on vectors, on tokens and, as a 1x1 convolution, on maps.
"""

import numbers
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.core.types import Array, PyTree
from kd_jax.models.layers import normalization


class Linear(nn.Module):
    """An affine map of the last axis, as between the layers of FitNets and TinyBERT.

    Attributes:
      width: the teacher's.
      normalizes: whether it takes `where` and `axis_name`, for batch normalization.

    References:
      Romero et al. `FitNets: Hints for Thin Deep Nets <https://arxiv.org/abs/1412.6550>`_, 2014.
      Jiao et al. `TinyBERT <https://arxiv.org/abs/1909.10351>`_, 2019, equation 8.
    """

    width: int
    normalizes: ClassVar[bool] = False

    @nn.compact
    def __call__(self, features: Array) -> jax.Array:
        """Maps `[B, ..., D]` to `[B, ..., width]`, in the dtype of the parameters."""
        return nn.Dense(self.width, name="dense")(_cast(self, features))


class Mlp(nn.Module):
    """Two affine maps round a ReLU, the hidden layer as wide as the teacher's.

    Attributes:
      width: the teacher's.
      normalizes: see `Linear`.
    """

    width: int
    normalizes: ClassVar[bool] = False

    @nn.compact
    def __call__(self, features: Array) -> jax.Array:
        """Maps `[B, ..., D]` to `[B, ..., width]`, in the dtype of the parameters."""
        return _stack(_cast(self, features), self.width, 2)


class Regressor(nn.Module):
    """VID's prediction of the teacher's map: three 1x1 convolutions with ReLUs between them.

    Attributes:
      width: the teacher's.
      normalizes: see `Linear`.

    References:
      Ahn et al. `Variational Information Distillation <https://arxiv.org/abs/1904.05835>`_, 2019.
    """

    width: int
    normalizes: ClassVar[bool] = False

    @nn.compact
    def __call__(self, features: Array) -> jax.Array:
        """Maps `[B, ..., D]` to `[B, ..., width]`, in the dtype of the parameters."""
        return _stack(_cast(self, features), self.width, 3)


class Connector(nn.Module):
    """A 1x1 convolution and batch normalization: what OFD and AB put between the maps before the
      ReLU.

    Only ever used in training, so it normalizes by the batch and keeps no running statistics of
    use.

    Attributes:
      width: the teacher's.
      rectified: whether a ReLU follows, for maps that are themselves after one (FitNets' regressor
        on maps).
      normalizes: see `Linear`.

    References:
      Heo et al. `A Comprehensive Overhaul of Feature Distillation
      <https://arxiv.org/abs/1904.01866>`_, 2019.
    """

    width: int
    rectified: bool = False
    normalizes: ClassVar[bool] = True

    @nn.compact
    def __call__(
        self, features: Array, *, where: Array | None = None, axis_name: str | None = None
    ) -> jax.Array:
        """Maps `[B, ..., D]` to `[B, ..., width]`; the keywords are those of
        `normalization.BatchNorm`.
        """
        # BatchNorm adds a bias of its own.
        x = nn.Dense(self.width, use_bias=False, name="dense")(_cast(self, features))
        x = normalization.BatchNorm(name="norm")(x, train=True, where=where, axis_name=axis_name)
        return nn.relu(x) if self.rectified else x


def rectified_connector(width: int) -> Connector:
    """Builds a `Connector` with a ReLU."""
    return Connector(width=width, rectified=True)


PROJECTORS = {
    "connector": Connector,
    "convolution": rectified_connector,
    "linear": Linear,
    "mlp": Mlp,
    "regressor": Regressor,
}
"""Name -> constructor of a Linen module that takes the teacher's `width`."""


def build_projector(name: str, width: int) -> nn.Module:
    """Builds what maps a student's feature `[B, ..., D]` to the teacher's width, `[B, ..., width]`.

    Args:
      name: one of `PROJECTORS`.
      width: the teacher's, at least 1.

    Returns:
      The module, without parameters.

    Raises:
      ValueError: if there is no such mapping, or the width is not a positive whole number.
    """
    # Refused by name here; a constructor would say less.
    if name not in PROJECTORS:
        raise ValueError(f"no mapping {name!r}; there are {sorted(PROJECTORS)}")
    # In Python a bool is an int, and would pass as a width of 1.
    if not isinstance(width, numbers.Integral) or isinstance(width, bool) or width < 1:
        raise ValueError(f"a mapping's width must be a positive whole number, got {width!r}")
    return PROJECTORS[name](width=int(width))


def starting_at_zero(params: PyTree) -> PyTree:
    """Sets a projector's last affine map to 0, and so all that it gives.

    For the mappings that end in an affine map: those that don't normalize.
    """
    last = max(params)  # `dense`, or the last of `dense_0`, `dense_1`, ...
    # The last map alone: were several at 0, none of their kernels would get a gradient.
    return {**params, last: jax.tree.map(jnp.zeros_like, params[last])}


def _cast(module: nn.Module, features: Array) -> jax.Array:
    return jnp.asarray(features).astype(normalization.parameter_dtype(module))


def _stack(x: jax.Array, width: int, layers: int) -> jax.Array:
    """Applies so many affine maps with ReLUs between them; called within a compact method."""
    for i in range(layers):
        x = nn.Dense(width, name=f"dense_{i}")(nn.relu(x) if i else x)
    return x
