"""What a value of a config may be, and the message where it is something else.

A rule is an annotation in `kd_jax.config.schema`: `epochs: Annotated[float, POSITIVE]`."""

import dataclasses
import functools
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kd_jax.core.options import check_keys, is_number, is_whole

LARGEST = 2**63
"""No number of a config is as large; infinity is, and NaN compares as false."""


class Rule(Protocol):
    """Checks one value of a config."""

    def check(self, value: Any, path: str) -> None:
        """Raises a ValueError that names the key's full `path` if the value isn't allowed."""
        ...


@dataclass(frozen=True)
class Value:
    """A single value, or a tuple of them.

    Attributes:
      meaning: what it must be, for the message.
      fits: whether a value is that.
    """

    meaning: str
    fits: Callable[[Any], bool]

    def check(self, value: Any, path: str) -> None:
        """Raises a ValueError if the value isn't allowed."""
        if not self.fits(value):
            raise ValueError(f"{path} must be {self.meaning}, got {value!r}")

    def or_none(self) -> "Value":
        """Returns the rule that allows None as well."""
        return Value(f"{self.meaning}, or None", lambda value: value is None or self.fits(value))


@dataclass(frozen=True)
class Section:
    """A section whose keys are the fields of a dataclass; a field without default is required.

    Attributes:
      schema: its fields are annotated with rules. A static method `check_together(section, path)`
        checks what several keys must agree in.
    """

    schema: type

    def check(self, value: Any, path: str) -> None:
        """Raises a ValueError for a missing key, one that doesn't exist, or a wrong value."""
        # Keys go before values: a key with a typing error is the likelier mistake.
        known, rules = _fields(self.schema)
        _require_section(value, path)
        check_keys(value, known, path or "the config")
        for key, rule in rules.items():  # What others inherit comes first, and is blamed.
            if key in value:
                rule.check(value[key], f"{path}.{key}" if path else key)
        # Only when every key is right by itself can they be compared.
        together = getattr(self.schema, "check_together", None)
        if together is not None:
            together(value, path)


@dataclass(frozen=True)
class Each:
    """A section of the user's own names, each with the same rule.

    Attributes:
      rule: of every value.
    """

    rule: Rule

    def check(self, value: Any, path: str) -> None:
        """Raises a ValueError if it is no section, or for the first value that isn't allowed."""
        _require_section(value, path)
        for name, inner in value.items():
            # Names become folders and keys of JSON.
            if not isinstance(name, str):
                raise ValueError(f"{path} must have names as keys, got {name!r}")
            self.rule.check(inner, f"{path}.{name}")


@dataclass(frozen=True)
class Named:
    """A section with a `name`, on which the other keys depend.

    Attributes:
      schemas: name -> dataclass of the other keys.
    """

    schemas: Mapping[str, type]

    def check(self, value: Any, path: str) -> None:
        """Raises a ValueError for an unknown name, or as `Section` does."""
        _require_section(value, path)
        if "name" not in value:
            raise ValueError(f"{path} needs option 'name'; there are {', '.join(self.schemas)}")
        # The name decides which other keys there are, so it is checked before them.
        one_of(*self.schemas).check(value["name"], f"{path}.name")
        # The name decides which options exist, so it is checked first.
        options = {key: inner for key, inner in value.items() if key != "name"}
        Section(self.schemas[value["name"]]).check(options, path)


@dataclass(frozen=True)
class Options:
    """A section that another room checks: here, only that it is one and its numbers are finite.

    Attributes:
      needs: keys of which one, at least, names something.
    """

    needs: tuple[str, ...]

    def check(self, value: Any, path: str) -> None:
        """Raises a ValueError if it is no section, names nothing or holds NaN or infinity."""
        _require_section(value, path)
        # Without one of these the other room could only say that everything is unknown.
        if not any(key in value for key in self.needs):
            raise ValueError(f"{path} needs option {' or '.join(map(repr, self.needs))}")
        for key in self.needs:
            if key in value:
                TEXT.check(value[key], f"{path}.{key}")
        _check_finite(value, path)


@dataclass(frozen=True)
class Maybe:
    """A section, or None or an empty one: there is none.

    Attributes:
      rule: of the section.
    """

    rule: Rule

    def check(self, value: Any, path: str) -> None:
        """Raises a ValueError if it is neither None nor what the rule allows."""
        # An empty section asks for nothing, so it means the same as None.
        if value is not None and value != {}:
            self.rule.check(value, path)


def one_of(*choices: str) -> Value:
    """Returns the rule of a choice between words."""
    listed = ", ".join(map(repr, choices))
    meaning = f"{choices[0]!r} or {choices[1]!r}" if len(choices) == 2 else f"one of {listed}"
    return Value(meaning, lambda value: isinstance(value, str) and value in choices)


def whole(least: int) -> Value:
    """Returns the rule of whole numbers from `least` on."""
    return Value(
        f"a whole number from {least} on",
        # The bound keeps numbers out that no 64-bit integer can hold.
        lambda value: is_whole(value, least) and value < LARGEST,
    )


def number(meaning: str, fits: Callable[[float], bool]) -> Value:
    """Returns the rule of finite numbers of some range."""
    return Value(meaning, lambda value: is_finite(value) and fits(value))


def numbers(meaning: str, fits: Callable[[float], bool]) -> Value:
    """Returns the rule of one or more finite numbers of some range."""
    return Value(
        meaning,
        lambda value: (
            _is_list(value) and bool(value) and all(is_finite(x) and fits(x) for x in value)
        ),
    )


def is_finite(value: Any) -> bool:
    """Tells whether a value is a number, and neither NaN nor infinite."""
    # A comparison with NaN is false, so this one line refuses NaN and infinity.
    return is_number(value) and abs(value) < LARGEST


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_texts(value: Any) -> bool:
    return _is_list(value) and all(_is_text(inner) for inner in value)


TEXT = Value("a text", _is_text)
PATH = Value(
    "a path in a file system; a bucket has to be mounted, or be a --mirror (docs/scaling.md)",
    # As a path such an address would become a folder "gs:" beside the command.
    lambda value: _is_text(value) and "://" not in value,
)
NAMES = Value("a tuple of names", _are_texts)
SOME_NAMES = Value("a tuple of one or more names", lambda value: _are_texts(value) and bool(value))
BOOL = Value("True or False", lambda value: isinstance(value, bool))
POSITIVE = number("a positive number", lambda x: x > 0)
NOT_NEGATIVE = number("a number, 0 or more", lambda x: x >= 0)
SHARE = number("a number between 0 and 1", lambda x: 0 <= x <= 1)
PART = number("a number above 0 and up to 1", lambda x: 0 < x <= 1)
INSIDE = number("a number above 0 and below 1", lambda x: 0 < x < 1)
BELOW_ONE = number("a number from 0 to below 1", lambda x: 0 <= x < 1)
WEIGHT = Value(
    "a finite number or a schedule",
    lambda value: is_finite(value) or (isinstance(value, Mapping) and TEXT.fits(value.get("name"))),
)
MAPPING = Value("a section", lambda value: isinstance(value, Mapping))


@functools.cache
def _fields(schema: type) -> tuple[dict[str, bool], dict[str, Rule]]:
    """Returns a schema's keys: whether each is required, and its rule."""
    # Rules are metadata of the annotations, which are dropped by default.
    hints = typing.get_type_hints(schema, include_extras=True)
    fields = [field for field in dataclasses.fields(schema) if field.name in hints]
    required = {
        field.name: field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        for field in fields
    }
    return required, {field.name: _rule(hints[field.name]) for field in fields}


def _rule(hint: Any) -> Rule:
    """Returns the rule of an annotation: a dataclass is a section, else it is annotated with its
    rule.
    """
    # A dataclass in place of a rule nests one section in another.
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return Section(hint)
    annotated: Any = hint
    return annotated.__metadata__[0]


def _require_section(value: Any, path: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{path or 'the config'} must be a section of options, got {value!r}")


def _check_finite(value: Any, path: str) -> None:
    # Every number is looked at, since one NaN deep inside would only show in the loss.
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_finite(inner, f"{path}.{key}")
    elif _is_list(value):
        for inner in value:
            _check_finite(inner, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} must be finite, got {value!r}")
