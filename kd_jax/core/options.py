"""Turns a config section that names something into that thing, called with the section's options.

Wrong names and options are refused in one line that lists the right ones.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from kd_jax.core.option_types import check_types, hints_of

Built = TypeVar("Built")


def choose(
    registry: Mapping[str, Built], spec: Mapping[str, Any], kind: str, key: str = "name"
) -> Built:
    """Returns the registry's entry that `spec[key]` names.

    Args:
      registry: name -> entry.
      spec: the config section.
      kind: what the entries are, for the message.
      key: of the section, that holds the name.

    Raises:
      ValueError: if there is no such entry, with the names that exist.
    """
    name = spec.get(key)
    if not isinstance(name, str) or name not in registry:
        raise ValueError(f"unknown {kind} {name!r}; there are {', '.join(sorted(registry))}")
    return registry[name]


def call_with_options(
    function: Callable[..., Built],
    spec: Mapping[str, Any],
    kind: str,
    *arguments: Any,
    key: str = "name",
) -> Built:
    """Calls `function(*arguments, **options)` with the options of `spec`, all but `key`.

    Raises:
      ValueError: for an option that the function doesn't have or of another type than it says, or
        a required one that is missing; lists the function's options.
    """
    return function(*arguments, **options_of(function, spec, kind, key))


def options_of(
    function: Callable[..., Any], spec: Mapping[str, Any], kind: str, key: str = "name"
) -> dict[str, Any]:
    """Returns the options of `spec`, all but `key`, after checking them against a function.

    Raises:
      ValueError: as in `call_with_options`.
    """
    # Only keyword-only parameters are options of a config; positional ones are what the library
    # itself passes in.
    parameters = inspect.signature(function).parameters.values()
    known = {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY}
    options = {name: value for name, value in spec.items() if name != key}
    owner = f"{kind} {spec.get(key)!r}" if key in spec else kind
    check_keys(options, known, f"{kind} {spec.get(key)!r}")
    check_types(hints_of(function), options, owner)
    return options


def is_number(value: Any) -> bool:
    """Tells whether a value is an int or a float; True and False aren't numbers."""
    # In Python True is an int; in a config it is a mistake where a number is meant.
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Any, least: int) -> bool:
    """Tells whether a value is an int of at least `least`; True and False aren't ints."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_keys(options: Mapping[str, Any], known: Mapping[str, bool], owner: str) -> None:
    """Checks that options have known names and that no required one is missing.

    Args:
      options: what was given.
      known: name -> whether it is required.
      owner: whose options they are, for the message.

    Raises:
      ValueError: naming the key and those that exist.
    """
    listed = ", ".join(sorted(known)) or "none"
    for name in options:
        if name not in known:
            raise ValueError(f"{owner} has no option {name!r}; its options are {listed}")
    for name, required in known.items():
        if required and name not in options:
            raise ValueError(f"{owner} needs option {name!r}; its options are {listed}")
