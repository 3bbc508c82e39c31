"""Fills a config's missing keys in with their defaults."""

import copy
from collections.abc import Mapping
from typing import Any

from kd_jax.config.defaults import DEFAULTS, FREE_OF_NAME

SECTIONS = ("data", "compare", "parallel", "checkpoint", "logging")


def fill(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config with the defaults of all keys that it doesn't give.

    So a config that was saved before a key existed still means what it meant.

    Args:
      config: plain mappings; it isn't changed. What isn't a mapping where one belongs stays, for
        the schema to refuse.
    """
    filled = {key: copy.deepcopy(DEFAULTS[key]) for key in ("seed", "dtype", "evaluations")}
    filled |= copy.deepcopy(dict(config))
    for section in SECTIONS:
        filled[section] = merge(DEFAULTS[section], filled.get(section, {}))
    filled["training"] = fill_training(filled.get("training", {}))
    return filled


def fill_training(training: Any) -> Any:
    """Returns a `training` section with defaults.

    Another optimizer or schedule than the default takes over only what all of them have.
    """
    if not isinstance(training, Mapping):
        return training
    filled = {**DEFAULTS["training"], **training}
    for key, common in FREE_OF_NAME.items():
        given, known = training.get(key, {}), DEFAULTS["training"][key]
        if not isinstance(given, Mapping):
            continue
        if given.get("name", known["name"]) != known["name"]:
            known = {name: known[name] for name in common}
        filled[key] = {**known, **given}
    return copy.deepcopy(filled)


def merge(defaults: Any, given: Any) -> Any:
    """Returns `given` with what it lacks of `defaults`, section by section."""
    if not isinstance(given, Mapping) or not isinstance(defaults, Mapping):
        return copy.deepcopy(given)
    merged = {key: copy.deepcopy(value) for key, value in given.items()}
    for key, value in defaults.items():
        merged[key] = merge(value, given[key]) if key in given else copy.deepcopy(value)
    return merged
