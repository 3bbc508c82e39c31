"""Completes a config: defaults, and what models take over, wherever it came from."""

import copy
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from kd_jax.config.defaults import (
    DEFAULTS,
    IMAGE_VIEW,
    INPUTS,
    OPTIONS,
    SPLITS,
    TEXT_VIEW,
    TRANSFER_SET,
    TRUSTED_SET,
)
from kd_jax.config.inherit import inherit
from kd_jax.config.names import TRANSFER, TRUSTED


def is_section(value: Any) -> bool:
    """Whether a value has keys of its own; a ConfigDict is no Mapping."""
    return isinstance(value, (Mapping, ConfigDict))


def reads_text(view: Any) -> bool:
    """Whether a section `view` is of texts."""
    return is_section(view) and "tokenizer" in view


def fill_defaults(config: Any) -> Any:
    """Fills in the default of every key that is absent, in place, and returns the config.

    Values of a wrong kind are left for the schema to refuse.

    Args:
      config: a dict, or an unlocked ConfigDict. `data` may be a dataset's name.
    """
    if isinstance(config.get("data"), str):
        config["data"] = {"name": config["data"]}
    _fill(config, DEFAULTS)
    _fill(config, {"view": {}})
    _fill_view(config["view"])
    _fill_algorithms(config["training"])
    data = config["data"]
    if is_section(data):
        if not any(split in data for split in SPLITS):
            _fill(data, SPLITS)
        _fill(data, {"inputs": INPUTS["text" if reads_text(config["view"]) else "image"]})
    for section in _sections(config.get("models")):
        if "view" in section:
            _fill_view(section["view"])
    for kind, defaults in ((TRANSFER, TRANSFER_SET), (TRUSTED, TRUSTED_SET)):
        for section in _sections(config.get(kind)):
            _fill(section, defaults)
    return config


def complete(config: Any) -> Any:
    """Fills in defaults and what models inherit, in place, and returns the config.

    Args:
      config: as for `fill_defaults`.

    Raises:
      ValueError: if `like` names no model, or goes in a circle.
    """
    inherit(fill_defaults(config))
    # An optimizer or schedule that a model names itself takes over nothing from another's options.
    for section in _sections(config.get("models")):
        if "training" in section:
            _fill_algorithms(section["training"])
    return config


def resolve(config: Any) -> dict[str, Any]:
    """Returns any config as plain Python values, completed.

    Args:
      config: a ConfigDict or nested mappings, such as a saved `config.json`; it isn't changed.

    Raises:
      ValueError: as `complete`.
    """
    return complete(to_dict(config))


def to_dict(value: Any) -> Any:
    """Returns nested dicts with tuples for lists, as JSON has them; references are resolved."""
    if isinstance(value, ConfigDict):
        resolved: Any = value.copy_and_resolve_references()
        return to_dict(ConfigDict(resolved).to_dict())
    if isinstance(value, Mapping):
        return {key: to_dict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(to_dict(inner) for inner in value)
    return copy.deepcopy(value)


def _sections(sections: Any) -> list[Any]:
    """The sections among the values of a section."""
    values = sections.values() if is_section(sections) else ()
    return [section for section in values if is_section(section)]


def _fill(section: Any, defaults: Mapping[str, Any]) -> None:
    for key, default in defaults.items():
        if key not in section:
            section[key] = copy.deepcopy(default)
        elif isinstance(default, Mapping) and is_section(section[key]):
            _fill(section[key], default)


def _fill_view(view: Any) -> None:
    if not is_section(view):
        return
    _fill(view, TEXT_VIEW if reads_text(view) else IMAGE_VIEW)
    size = view.get("size")
    if isinstance(size, int) and not isinstance(size, bool) and isinstance(view, dict):
        view["size"] = (size, size)


def _fill_algorithms(training: Any) -> None:
    """Gives the optimizer and the schedule the defaults of the algorithms they name."""
    for key, by_name in OPTIONS.items():
        section = training.get(key) if is_section(training) else None
        if is_section(section):
            name: Any = section.get("name")
            _fill(section, by_name.get(name, {}) if isinstance(name, str) else {})
