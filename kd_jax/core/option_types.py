"""Checks options of a config against the annotations of what they are given to."""

import collections.abc
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

LARGEST = 2**63
"""No number of a config is as large; infinity is, and NaN compares as false."""


def check_types(hints: Mapping[str, Any], options: Mapping[str, Any], owner: str) -> None:
    """Checks that every option is of the type that it is annotated with.

    A number must be finite; True and False are no numbers; a list may stand for a tuple.

    Args:
      hints: name -> annotation; one of a kind that configs don't have allows anything.
      options: what was given.
      owner: whose options they are, for the message.

    Raises:
      ValueError: naming the option, what it must be and what it is.
    """
    for name, value in options.items():
        hint = hints.get(name, Any)
        if not fits(hint, value):
            raise ValueError(f"{owner}: {name} must be {meaning(hint)}, got {value!r}")


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns a function's or dataclass's annotations by name; none where they can't be read."""
    try:
        return typing.get_type_hints(function)
    # A user's own function may be annotated with names that exist for a type checker only.
    except (NameError, TypeError, AttributeError):
        return {}


def fits(hint: Any, value: Any) -> bool:
    """Tells whether a value of a config is of an annotation's type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(each, value) for each in inner)
    if origin is typing.Literal:
        # In Python True and 1.0 equal 1, so types are looked at too.
        return any(value == each and type(value) is type(each) for each in inner)
    if origin is typing.Annotated:
        return fits(inner[0], value)
    kind = origin or hint
    if kind in _SIMPLE:
        return _SIMPLE[kind][1](value)
    if kind in (tuple, list, collections.abc.Sequence):
        # A text is a sequence too, and never the one that is meant.
        if not isinstance(value, tuple | list):
            return False
        parts = [each for each in inner if each is not Ellipsis]
        if kind is tuple and inner and Ellipsis not in inner:
            return len(value) == len(parts) and all(map(fits, parts, value))
        return not parts or all(fits(parts[0], each) for each in value)
    if kind in (dict, collections.abc.Mapping):
        return isinstance(value, Mapping)
    return True


def meaning(hint: Any) -> str:
    """Says in words what an annotation allows."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(meaning(each) for each in inner)
    if origin is typing.Literal:
        return f"one of {list(inner)}"
    if origin is typing.Annotated:
        return meaning(inner[0])
    kind = origin or hint
    if kind in _SIMPLE:
        return _SIMPLE[kind][0]
    if kind in (tuple, list, collections.abc.Sequence):
        parts = [each for each in inner if each is not Ellipsis]
        return f"a tuple, each part {meaning(parts[0])}" if parts else "a tuple"
    return "a section" if kind in (dict, collections.abc.Mapping) else str(hint)


def is_number(value: Any) -> bool:
    """Tells whether a value is a finite int or float; True and False aren't numbers."""
    # In Python True is an int; in a config it is a mistake where a number is meant.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < LARGEST and math.isfinite(value)


def is_whole(value: Any) -> bool:
    """Tells whether a value is an int that 64 bits can hold; True and False aren't ints."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST


_SIMPLE: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("True or False", lambda value: isinstance(value, bool)),
    int: ("a whole number", is_whole),
    float: ("a finite number", is_number),
    str: ("a text", lambda value: isinstance(value, str) and bool(value)),
    type(None): ("None", lambda value: value is None),
}
