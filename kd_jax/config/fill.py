"""Fills a config's missing keys in with their defaults."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from kd_jax.config.defaults import DEFAULTS, FREE_OF_NAME, IMAGE_VIEW, TEXT_VIEW
from kd_jax.config.inherit import inherit, inherit_from_experiment, sections_of

FILE = "file:"
"""Before the path of a file of outputs among a model's teachers."""

FLAT = ("seed", "task", "primary", "dtype", "evaluations")
SECTIONS = ("data", "compare", "parallel", "checkpoint", "logging")


def fill(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config with the defaults of all keys that it doesn't give.

    So a config that was saved before a key existed still means what it meant.

    Args:
      config: plain mappings; it isn't changed. What isn't a mapping where one belongs stays, for
        the schema to refuse. `data` may be a dataset's name.
    """
    # Copies throughout: a default that is changed in one config must not change in all.
    filled = {key: copy.deepcopy(DEFAULTS[key]) for key in FLAT}
    filled |= copy.deepcopy(dict(config))
    # The shortest config names a dataset and nothing else of it.
    if isinstance(filled.get("data"), str):
        filled["data"] = {"name": filled["data"]}
    # These sections are filled level by level.
    for section in SECTIONS:
        filled[section] = merge(DEFAULTS[section], filled.get(section, {}))
    # Only the first level: the options of an optimizer belong to its name.
    filled["training"] = fill_training(merge(DEFAULTS["training"], filled.get("training", {}), 1))
    # Models with a view of their own have gaps in it as well.
    for section in (filled, *sections_of(filled.get("models"))):
        if "view" in section:
            section["view"] = fill_view(section["view"])
    _name_files(filled)
    return filled


def _name_files(config: dict[str, Any]) -> None:
    """Gives each file of outputs among the teachers, "file:PATH", a section of its own."""
    models = config.get("models")
    for section in sections_of(models):
        teachers = section.get("teachers")
        if isinstance(teachers, list | tuple):
            section["teachers"] = tuple(_name_of(each, config) for each in teachers)


def _name_of(teacher: Any, config: dict[str, Any]) -> Any:
    if not isinstance(teacher, str) or not teacher.startswith(FILE):
        return teacher
    path, models = teacher.removeprefix(FILE), config["models"]
    for name, section in models.items():
        if isinstance(section, Mapping) and section.get("model") == {"outputs": path}:
            return name
    # The compared teacher where there is none yet, else by the file's name.
    name = config["compare"].get("teacher", "teacher")
    if name in models:
        name = re.sub(r"\W+", "_", Path(path).stem) or "outputs"
    if name in models:
        raise ValueError(f"teachers names {teacher!r}, and there is another model {name!r}")
    models[name] = {"model": {"outputs": path}}
    return name


def resolve(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """Returns any config as plain Python values, defaults and what models inherit filled in.

    Args:
      config: of `experiment`, of a file, or plain mappings.

    Raises:
      ValueError: if `like` names no model, or goes in a circle.
    """
    return _fill_models(inherit(fill(to_dict(config))))


def fill_resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a resolved config with the defaults of all keys that it doesn't give.

    Args:
      config: plain mappings, such as a saved config.json; it isn't changed.
    """
    return _fill_models(inherit_from_experiment(fill(to_dict(config))))


def _fill_models(config: dict[str, Any]) -> dict[str, Any]:
    for model in sections_of(config.get("models")):
        # An optimizer that a model names itself takes over nothing of another's options.
        if "training" in model:
            model["training"] = fill_training(model["training"])
    return config


def to_dict(value: Any) -> Any:
    """Returns nested dicts with tuples for the lists of JSON; references are resolved."""
    # References must become values first; else the copy would still follow the original.
    if isinstance(value, ConfigDict):
        # References must become values first, since a dict holds none.
        resolved: Any = value.copy_and_resolve_references()
        return to_dict(ConfigDict(resolved).to_dict())
    if isinstance(value, Mapping):
        return {key: to_dict(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(map(to_dict, value))
    return copy.deepcopy(value)


def fill_training(training: Any) -> Any:
    """Returns a `training` section with defaults of the options of its optimizer and schedule.

    Another optimizer or schedule than the default takes over only what all of them have.
    """
    if not isinstance(training, Mapping):
        return training
    filled = dict(training)
    for key, common in FREE_OF_NAME.items():
        given, known = training.get(key), DEFAULTS["training"][key]
        if isinstance(given, Mapping):
            # Another optimizer has other options, so it takes over what all of them have.
            if given.get("name", known["name"]) != known["name"]:
                known = {name: known[name] for name in common}
            filled[key] = {**known, **given}
    return copy.deepcopy(filled)


def fill_view(view: Any) -> Any:
    """Returns a `view` with defaults; one size stands for height and width."""
    if not isinstance(view, Mapping):
        return view
    if "tokenizer" in view:
        return {"max_length": TEXT_VIEW["max_length"], **view}
    size = view.get("size")
    # In Python True is an int.
    square = isinstance(size, int) and not isinstance(size, bool)
    return {**IMAGE_VIEW, **view} | ({"size": (size, size)} if square else {})


def merge(defaults: Any, given: Any, depth: int | None = None) -> Any:
    """Returns `given` with what it lacks of `defaults`, section by section, or `depth` levels."""
    # What is given always wins; only sections are looked into.
    if not isinstance(given, Mapping) or not isinstance(defaults, Mapping) or depth == 0:
        return copy.deepcopy(given)
    inner = None if depth is None else depth - 1
    merged = {key: copy.deepcopy(value) for key, value in given.items()}
    for key, value in defaults.items():
        known = key in given
        merged[key] = merge(value, given[key], inner) if known else copy.deepcopy(value)
    return merged
