"""Applies a model of one text to texts in windows: its output is the mean over a text's windows."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax.core.types import Array, ModelOutput

MASK = "window_mask"
"""Which windows [B, W] there are, beside arguments [B, W, ...] of a module."""


def split(view: Mapping[str, Array]) -> tuple[dict[str, Any], Array | None]:
    """Returns a module's arguments, a row a window, and which windows there are.

    Args:
      view: of texts in windows, or of anything else, which stays as it is.

    Returns:
      Arguments [B * W, ...], and `[B, W]`; None where there are no windows.
    """
    if MASK not in view:
        return dict(view), None
    mask = view[MASK]
    flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in view.items()}
    flat.pop(MASK)
    return flat, mask


def repeat(signal: Array | None, mask: Array | None) -> Array | None:
    """Returns what is added to each text, [B, ...], for each of its windows."""
    if signal is None or mask is None:
        return signal
    return jnp.repeat(jnp.asarray(signal), mask.shape[1], axis=0)


def join(output: ModelOutput, mask: Array | None) -> ModelOutput:
    """Returns the means over each text's windows.

    Args:
      output: of [B * W, ...] windows.
      mask: [B, W]; None: there are none, and the output stays as it is.

    Returns:
      Logits [B, K], and those features that are one vector a window; others belong to no text.
    """
    if mask is None:
        return output
    vectors = {name: each for name, each in output.features.items() if each.ndim == 2}
    return ModelOutput(_mean(output.logits, mask), {k: _mean(v, mask) for k, v in vectors.items()})


def _mean(values: Array, mask: Array) -> jax.Array:
    apart = jnp.asarray(values).reshape(*mask.shape, -1)
    counted = jnp.asarray(mask)[..., None]
    total = jnp.sum(jnp.where(counted, apart, 0), axis=1)
    return total / jnp.sum(counted, axis=1).astype(total.dtype)
