"""Kinds of values that a config may hold: each checks one value and says what it must be."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Kind(Protocol):
    """What a key's value must be."""

    @property
    def meaning(self) -> str:
        """What a value must be, for a message: "a whole number from 1 on"."""
        ...

    def fits(self, value: Any) -> bool:
        """Says whether a value is of this kind."""
        ...


@dataclass(frozen=True)
class Whole:
    """A whole number from `least` on; of `others` some below are allowed as well."""

    least: int = 0
    others: tuple[int, ...] = ()

    @property
    def meaning(self) -> str:
        """What a value must be."""
        others = "".join(f" or {other}" for other in self.others)
        return f"a whole number from {self.least} on{others}"

    def fits(self, value: Any) -> bool:
        """Says whether a value is of this kind; True and False aren't."""
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.least <= value < 2**63 or value in self.others


@dataclass(frozen=True)
class Number:
    """A finite number between bounds, which belong to it unless it is open there."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    @property
    def meaning(self) -> str:
        """What a value must be."""
        if (self.low, self.high, self.open_low) == (0, math.inf, True):
            return "a positive number"
        bounds = []
        if self.low > -math.inf:
            bounds.append(f"{'above' if self.open_low else 'from'} {self.low:g}")
        if self.high < math.inf:
            bounds.append(f"{'below' if self.open_high else 'to'} {self.high:g}")
        return " ".join(["a finite number", *bounds])

    def fits(self, value: Any) -> bool:
        """Says whether a value is of this kind; True, False, nan and inf aren't."""
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return bool(math.isfinite(value) and above and below)


@dataclass(frozen=True)
class Text:
    """A text that isn't empty."""

    meaning: str = "a text"

    def fits(self, value: Any) -> bool:
        """Says whether a value is of this kind."""
        return isinstance(value, str) and bool(value)


@dataclass(frozen=True)
class Flag:
    """True or False."""

    meaning: str = "true or false"

    def fits(self, value: Any) -> bool:
        """Says whether a value is of this kind."""
        return isinstance(value, bool)


class Choice:
    """One of some values."""

    def __init__(self, *choices: Any):
        self._choices = choices

    @property
    def meaning(self) -> str:
        """What a value must be."""
        return f"one of {', '.join(map(str, self._choices))}"

    def fits(self, value: Any) -> bool:
        """Says whether a value is of this kind."""
        return any(value == choice and type(value) is type(choice) for choice in self._choices)


@dataclass(frozen=True)
class Optional:
    """None, or a value of another kind."""

    kind: Kind

    @property
    def meaning(self) -> str:
        """What a value must be."""
        return f"{self.kind.meaning}, or None"

    def fits(self, value: Any) -> bool:
        """Says whether a value is of this kind."""
        return value is None or self.kind.fits(value)


@dataclass(frozen=True)
class Several:
    """One value of a kind, or a tuple of some."""

    kind: Kind
    one: bool = True
    lengths: tuple[int, ...] = ()

    @property
    def meaning(self) -> str:
        """What a value must be."""
        count = f"{' or '.join(map(str, self.lengths))} of them" if self.lengths else "of them"
        return f"{self.kind.meaning}, or a tuple {count}" if self.one else f"a tuple {count}"

    def fits(self, value: Any) -> bool:
        """Says whether a value is of this kind."""
        if self.one and self.kind.fits(value):
            return True
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        return (not self.lengths or len(value) in self.lengths) and all(map(self.kind.fits, value))


@dataclass(frozen=True)
class Section:
    """A mapping, whose keys are checked where they are used."""

    meaning: str = "a section"

    def fits(self, value: Any) -> bool:
        """Says whether a value is of this kind."""
        return isinstance(value, Mapping)
