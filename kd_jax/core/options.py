"""A config section that names something and gives its options: looked up and called, or refused in
one line."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Built = TypeVar("Built")


def choose(
    registry: Mapping[str, Built], spec: Mapping[str, Any], kind: str, key: str = "name"
) -> Built:
    """The registry's entry that `spec[key]` names.

    Raises:
      ValueError: naming what exists.
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
      ValueError: for an option that the function doesn't have, or one it needs and doesn't get;
        lists its options.
    """
    return function(*arguments, **options_of(function, spec, kind, key))


def options_of(
    function: Callable[..., Any], spec: Mapping[str, Any], kind: str, key: str = "name"
) -> dict[str, Any]:
    """The options of `spec`, all but `key`, if they are those of `function`.

    Raises:
      ValueError: as in `call_with_options`.
    """
    parameters = inspect.signature(function).parameters.values()
    known = {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY}
    options = {name: value for name, value in spec.items() if name != key}
    check_keys(options, known, f"{kind} {spec.get(key)!r}")
    return options


def is_number(value: Any) -> bool:
    """Whether a value is an int or float; True and False aren't."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Any, least: int) -> bool:
    """Whether a value is an int from `least` on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_keys(options: Mapping[str, Any], known: Mapping[str, bool], owner: str) -> None:
    """Refuses keys that nobody reads and asks for those that are needed.

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
