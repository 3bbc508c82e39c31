"""What a model's section doesn't say it takes over: from the experiment, or from the model it is
  `like`.

Inherited keys are one-way references of ml_collections, put in before the flags are read. So a flag
can set an inherited key, and a later change of what was inherited still reaches everyone who
inherits it."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from kd_jax.config.teachers import PEER

FROM_EXPERIMENT = ("view", "dtype", "training")
NAMED = ("optimizer", "schedule")
"""Sections that `name` an algorithm: another name replaces the section, the same name merges into
  it."""


def inherit(config: ConfigDict) -> ConfigDict:
    """Completes every model's section in place and returns the config.

    Raises:
      ValueError: if `like` names no model, or goes in a circle.
    """
    models: Any = config.models
    with config.unlocked():
        _open_nones(config)
        for name in models:
            _complete(models, name, config, ())
            if "restore" not in models[name]:
                models[name].restore = config_dict.placeholder(str)  # So that a flag can give one.
    return config


def _open_nones(section: ConfigDict) -> None:
    """Lets every None become a value of any type; else no flag could set it and no reference could
    stand for it."""
    for key in section:
        value = section[key]
        if isinstance(value, ConfigDict):
            _open_nones(value)
        elif value is None and section.get_type(key) is type(None):
            section[key] = config_dict.placeholder(object)


def seed_group_of(models: Mapping[str, Any], name: str) -> str:
    """The model at the end of a chain of `like`s; its name seeds all of the chain.

    The chain ends before a peer: two that started alike and see the same batches would have nothing
    to tell each other."""
    while "like" in models[name] and f"{PEER}{models[name]['like']}" not in models[name].get(
        "teachers", ()
    ):
        name = models[name]["like"]
    return name


def _complete(models: Any, name: str, config: Any, asked_by: tuple[str, ...]) -> None:
    section = models[name]
    if "like" in section:
        other = section.like
        if other not in models:
            raise ValueError(f"models.{name}.like names {other!r}; there are {', '.join(models)}")
        if other in (*asked_by, name):
            raise ValueError(
                f"models.{name}.like goes in a circle: {' -> '.join((*asked_by, name, other))}"
            )
        _complete(models, other, config, (*asked_by, name))
        _take_over(section, models[other], deep=("training",))
    else:
        _take_over(section, ConfigDict({}), deep=())
        for key in FROM_EXPERIMENT:
            if key in config:
                _take_over_key(section, config, key, deep=key == "training")


def _take_over(section: Any, source: Any, deep: tuple[str, ...]) -> None:
    for key in source:
        if key not in ("like", "restore"):
            _take_over_key(section, source, key, deep=key in deep)


def _take_over_key(section: Any, source: Any, key: str, *, deep: bool) -> None:
    value = source[key]
    if isinstance(value, ConfigDict):
        if key not in section:
            section[key] = ConfigDict({})
        elif section[key] is None or not deep or _is_another(section, key, value):
            return  # None takes over nothing: `mixing=None` where the others mix.
        for inner in value:
            _take_over_key(section[key], value, inner, deep=deep)
    elif key not in section:
        section[key] = source.get_oneway_ref(key)


def _is_another(section: Any, key: str, value: ConfigDict) -> bool:
    return key in NAMED and section[key].get("name", value.get("name")) != value.get("name")
