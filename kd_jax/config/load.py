"""Loads a config file and completes what its models inherit."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict


def load_config(argument: str) -> ConfigDict:
    """Loads `FILE.py` or `FILE.py:VARIANT` and completes what its models inherit; unlocked
    references stay live.

    Raises:
      ValueError: if there is no such file, it has no get_config, or no such variant.
    """
    from kd_jax.config.inherit import inherit

    path, _, variant = argument.partition(":")
    spec = (
        importlib.util.spec_from_file_location("kd_jax_config", path)
        if path.endswith(".py")
        else None
    )
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ValueError(f"there is no config file {path!r}; those of this project are in configs/")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path} has no function get_config")
    return inherit(module.get_config(variant) if variant else module.get_config()).lock()


def plain(config: ConfigDict) -> dict[str, Any]:
    """The config as plain Python values, references resolved."""
    resolved: Any = config.copy_and_resolve_references()
    return ConfigDict(resolved).to_dict()


def with_tuples(value: Any) -> Any:
    """A value read from JSON with tuples for its lists, as configs have them."""
    if isinstance(value, Mapping):
        return {key: with_tuples(inner) for key, inner in value.items()}
    return tuple(with_tuples(inner) for inner in value) if isinstance(value, list) else value
