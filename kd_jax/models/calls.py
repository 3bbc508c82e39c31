"""How a module is called, whatever its author called the arguments, and what it returned."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from kd_jax.core.types import ModelOutput


def as_output(found: Any, captured: Mapping[str, Any], owner: str) -> ModelOutput:
    """Reads what a model returned.

    Args:
      found: logits `[B, K]`; `(logits, features)`; or an object or mapping with `logits`.
      captured: path -> feature, beside those that the model names itself.
      owner: whose output it is, for the message.

    Raises:
      ValueError: if there are no logits in it.
    """
    features: Mapping[str, Any] = {}
    logits: Any = getattr(found, "logits", found)
    # Four ways that modules in the field return logits and features.
    if isinstance(found, ModelOutput):
        logits, features = found.logits, found.features
    elif isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping):
        logits, features = found
    elif isinstance(found, Mapping) and "logits" in found:
        logits = found["logits"]
        features = {name: value for name, value in found.items() if name != "logits"}
    if not hasattr(logits, "shape") or len(logits.shape) < 2:
        raise ValueError(
            f"{owner} must return logits [B, K], (logits, features) or an object with logits,"
            f" got {type(found).__name__}"
            + (f" of shape {tuple(logits.shape)}" if hasattr(logits, "shape") else "")
        )
    # Transformers' outputs also hold None and tuples; only arrays can be compared.
    arrays = {name: value for name, value in features.items() if hasattr(value, "shape")}
    return ModelOutput(logits, {**captured, **arrays})


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns positional and keyword arguments: a mapping is keywords, a tuple is positions."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, tuple) else ((inputs,), {})


def accepted(function: Callable[..., Any]) -> set[str]:
    """Returns the names of the parameters of a module's call."""
    return set(inspect.signature(function).parameters)


def mode(names: set[str], *, train: bool) -> dict[str, bool]:
    """Says how a call is told that it trains, by whichever parameter it has for it."""
    # Linen's own layers say `deterministic`, most users' modules `train`.
    switches = {"train": train, "training": train, "is_training": train, "deterministic": not train}
    return {name: value for name, value in switches.items() if name in names}


def by_path(tree: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Names captured arrays by the path of their module; one that is called again adds ":1", ..."""
    if isinstance(tree, Mapping):
        found: dict[str, Any] = {}
        for name, inner in tree.items():
            # Flax files an output under the method's name, and a path names modules alone.
            found |= by_path(inner, path if name == "__call__" else (*path, str(name)))
        return found
    values = tree if isinstance(tree, tuple) else (tree,)
    name = "/".join(path)
    named = {name if i == 0 else f"{name}:{i}": value for i, value in enumerate(values)}
    # Losses compare vectors of examples; what has one axis or none holds no features.
    return {key: value for key, value in named.items() if key and getattr(value, "ndim", 0) > 1}
