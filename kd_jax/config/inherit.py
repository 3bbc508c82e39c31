"""What a model's section doesn't say it takes over: from the experiment, or from the model it is
  `like`.

In a ConfigDict, inherited keys are one-way references, put in before the flags are read. So a flag
can set an inherited key, and a later change of what was inherited still reaches everyone who
inherits it. In nested dicts they are copies."""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict, config_dict

from kd_jax.config.teachers import PEER

Config = TypeVar("Config", ConfigDict, dict[str, Any])

FROM_EXPERIMENT = ("view", "dtype", "training")
NAMED = ("optimizer", "schedule")
"""Sections that `name` an algorithm: another name replaces the section, the same name merges into
  it."""


def inherit(config: Config) -> Config:
    """Completes every model's section in place and returns the config.

    Doing it again changes nothing but what was added in the meantime.

    Args:
      config: a ConfigDict, whose references stay live, or nested dicts.

    Raises:
      ValueError: if models aren't sections, `like` names no model, or goes in a circle.
    """
    if not is_section(config.get("models")):
        raise ValueError(f"models must be a section of models, got {config.get('models')!r}")
    # A locked ConfigDict takes no new keys, and inheriting adds many.
    if isinstance(config, ConfigDict):
        with config.unlocked():
            _open_nones(config)
            _complete_all(config)
    else:
        _complete_all(config)
    return config


def inherit_from_experiment(config: dict[str, Any]) -> dict[str, Any]:
    """Completes the models of a resolved config in place and returns it.

    What such a model lacks came to the defaults later: it is the experiment's, whatever the model
    is `like`.
    """
    for section in sections_of(config.get("models")):
        _take_over_from_experiment(section, config)
        # Older configs have no such key; None means that the model isn't restored.
        section.setdefault("restore", None)
    return config


def is_section(value: Any) -> bool:
    """Returns whether a value has keys of its own; a ConfigDict is no Mapping."""
    return isinstance(value, (Mapping, ConfigDict))


def sections_of(value: Any) -> list[Any]:
    """Returns the sections among a section's values; none of what is no section."""
    return [inner for inner in value.values() if is_section(inner)] if is_section(value) else []


def _complete_all(config: Any) -> None:
    models: Any = config["models"]
    # All are checked before any is completed, as one model's mistake would show in another.
    for name in models:
        if not is_section(models[name]):
            raise ValueError(f"models.{name} must be a section of options, got {models[name]!r}")
    for name in models:
        _complete(models, name, config, ())
        if "restore" not in models[name]:
            # In a ConfigDict a placeholder, so that a flag can give a folder.
            plain = isinstance(models[name], dict)
            models[name]["restore"] = None if plain else config_dict.placeholder(str)


def _open_nones(section: ConfigDict) -> None:
    """Lets every None become a value of any type; else no flag could set it and no reference could
    stand for it."""
    # A ConfigDict fixes the type of each key, and for None that would be the type of None.
    for key in section:
        value = section[key]
        if isinstance(value, ConfigDict):
            _open_nones(value)
        elif value is None and section.get_type(key) is type(None):
            section[key] = config_dict.placeholder(object)


def seed_group_of(models: Mapping[str, Any], name: str) -> str:
    """Returns the model at the end of a chain of `like`s; its name seeds all of the chain.

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
        other = section["like"]
        if not isinstance(other, str) or other not in models:
            raise ValueError(f"models.{name}.like names {other!r}; there are {', '.join(models)}")
        # The chain is remembered, so that a circle is named whole.
        if other in (*asked_by, name):
            raise ValueError(
                f"models.{name}.like goes in a circle: {' -> '.join((*asked_by, name, other))}"
            )
        # The other model is completed first: it may be `like` a third.
        _complete(models, other, config, (*asked_by, name))
        # A restored folder holds one model, so `restore` never passes to another.
        for key in models[other]:
            if key not in ("like", "restore"):
                _take_over(section, models[other], key, deep=key == "training")
    else:
        _take_over_from_experiment(section, config)


def _take_over_from_experiment(section: Any, config: Any) -> None:
    # Only `training` is merged key by key; half of another view would make no sense.
    for key in FROM_EXPERIMENT:
        if key in config:
            _take_over(section, config, key, deep=key == "training")


def _take_over(section: Any, source: Any, key: str, *, deep: bool) -> None:
    value = source[key]
    if is_section(value):
        if key not in section:
            section[key] = {}
        # A section of the model's own stands as it is, save inside `training`, where keys merge.
        elif not is_section(section[key]) or not deep or _is_another(section, key, value):
            return  # None takes over nothing: `mixing=None` where the others mix.
        for inner in value:
            _take_over(section[key], value, inner, deep=deep)
    elif key not in section:
        # A reference follows later changes of its source; a plain dict has none, so it copies.
        plain = isinstance(section, dict)
        section[key] = copy.deepcopy(value) if plain else source.get_oneway_ref(key)


def _is_another(section: Any, key: str, value: Any) -> bool:
    return key in NAMED and section[key].get("name", value.get("name")) != value.get("name")
