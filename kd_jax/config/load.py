"""Loads a config file, by its path or by the name of one that comes with kd_jax."""

import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from kd_jax.config.fill import fill, resolve
from kd_jax.config.inherit import inherit
from kd_jax.config.smoke import shrink

__all__ = ["find_config", "load_config", "plain", "resolve", "with_tuples"]

SHIPPED = (Path(__file__).parents[2] / "configs", Path(__file__).parents[1] / "configs")
"""Folders of the configs that come with kd_jax: in a checkout, and in an installed wheel."""

SMOKE = "smoke"
"""The variant that every config has."""


def find_config(name: str) -> Path:
    """Returns the file of a config: an existing file, or a shipped config of that name.

    Raises:
      ValueError: naming what exists.
    """
    # A file of the user's wins over a shipped config of the same name.
    if Path(name).is_file() and name.endswith(".py"):
        return Path(name)
    # The same commands work in a checkout and with an installed wheel.
    stem = Path(name).name.removesuffix(".py")
    shipped = {file.stem: file for folder in SHIPPED for file in sorted(folder.glob("*.py"))}
    # A path into another folder that doesn't exist is an error, and no shipped config.
    if name in (stem, f"{stem}.py", f"configs/{stem}.py") and stem in shipped:
        return shipped[stem]
    raise ValueError(
        f"there is no config file {name!r}; give a file, or one of {', '.join(sorted(shipped))}"
    )


def load_config(argument: str, *, smoke: bool = False) -> ConfigDict:
    """Loads `FILE.py`, `FILE.py:VARIANT` or a shipped config by name.

    Args:
      argument: the file or name, and after a colon a variant of it. The variant "smoke", alone or
        after a comma, is one that every config has; see `smoke`.
      smoke: shrinks the config to seconds: built-in data, tiny models, a few steps.

    Returns:
      The config with what its models inherit, locked; references stay live, so that a later change
      reaches everyone who inherits it.

    Raises:
      ValueError: if there is no such file or variant, or it has no function get_config.
    """
    name, _, variant = argument.partition(":")
    file = find_config(name)
    # "smoke" is a variant that we add; the file sees the rest.
    words = [word for word in variant.split(",") if word]
    # The file's own function knows nothing of this variant, so it is taken off first.
    if words and words[-1] == SMOKE:
        words, smoke = words[:-1], True
    config = call_config(file, ",".join(words))
    # A file may return plain dicts, which need no import at all.
    if not isinstance(config, ConfigDict):
        config = ConfigDict(dict(config))
    # Filled before models inherit, so that they inherit the defaults too.
    config = ConfigDict(fill(config.to_dict()))
    # Shrunk before the models inherit, so that they inherit the small values.
    if smoke:
        shrink(config)
    return inherit(config).lock()


def call_config(file: Path, variant: str) -> Any:
    """Returns what a file's get_config returns; it runs as a module of its own.

    Raises:
      ValueError: if the file has no such function, or no such variant.
    """
    # By path, so that the file needs no package and may lie anywhere.
    spec = importlib.util.spec_from_file_location("kd_jax_config", file)
    assert spec is not None, "a Python file has a spec"
    assert spec.loader is not None, "a Python file has a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{file} has no function get_config")
    # A get_config without parameters has no variants to choose from.
    takes_variant = bool(inspect.signature(module.get_config).parameters)
    if variant and not takes_variant:
        raise ValueError(f"unknown variant {variant!r} of {file}; there is {SMOKE!r}")
    return module.get_config(variant) if variant else module.get_config()


def plain(config: ConfigDict) -> dict[str, Any]:
    """Returns the config as plain Python values, references resolved."""
    resolved: Any = config.copy_and_resolve_references()
    return ConfigDict(resolved).to_dict()


def with_tuples(value: Any) -> Any:
    """Returns a value read from JSON with tuples for its lists, as configs have them."""
    if isinstance(value, Mapping):
        return {key: with_tuples(inner) for key, inner in value.items()}
    return tuple(with_tuples(inner) for inner in value) if isinstance(value, list) else value
