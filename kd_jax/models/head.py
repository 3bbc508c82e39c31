"""The last layer of a model: what it says, in other units."""

from typing import Any

import jax
import numpy as np

from kd_jax.core.types import Variables

CLASSIFIER = "classifier"
"""The submodule that makes the outputs, in every architecture of kd_jax."""


def rescale(variables: Variables, scale: np.ndarray, shift: np.ndarray) -> Variables:
    """Returns variables of the same module whose outputs are `outputs * scale + shift`.

    Args:
      variables: with a dense layer `CLASSIFIER`.
      scale: [K].
      shift: [K].

    Raises:
      ValueError: if there is no such layer.
    """
    params: Any = variables["params"]
    if CLASSIFIER not in params or {*params[CLASSIFIER]} != {"kernel", "bias"}:
        raise ValueError(f"the model has no dense layer {CLASSIFIER!r} whose units can be changed")
    head = params[CLASSIFIER]

    def change(leaf: Any, factor: np.ndarray, addend: np.ndarray | float) -> Any:
        # In float64 on the host, so that the head is rounded once.
        wide = np.asarray(jax.device_get(leaf), np.float64) * factor + addend
        return wide.astype(leaf.dtype)

    changed = {
        "kernel": change(head["kernel"], scale, 0.0),
        "bias": change(head["bias"], scale, shift),
    }
    return {**variables, "params": {**params, CLASSIFIER: changed}}
