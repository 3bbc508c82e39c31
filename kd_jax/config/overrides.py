"""Sets keys of a config from the command line: `--config.training.epochs=3`."""

import ast
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from kd_jax.config.names import WHOLE_TEXTS

WORDS = {"none": None, "null": None, "true": True, "false": False}

TUPLES = ("inputs", "label", "unlabelled", "cached")
"""Keys that are a text or a tuple of texts."""

OPTIONAL = {
    "view": ("long", "vocabulary"),
    "data": ("unlabelled",),
    "transfer_sets": ("restore",),
    "models": ("cached",),
}
"""Section, or the one around it -> keys that a config need not have, and a flag may add: texts, and
tuples of them."""

SECTIONS = {"cached_as": {"top_k": None, "dtype": None}}
"""Section that a model need not have -> its keys, which a flag may set."""

SELECTION = "selection"
"""Key that is a split's name, or a section of `WHOLE_TEXTS`."""

NAMED = ("task",)
"""Sections that may be a name alone, and whose options are checked by what they name."""


def split_overrides(arguments: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Separates `--config.KEY=VALUE` (or `--config.KEY VALUE`) from the other arguments.

    Raises:
      ValueError: for a key without a value.
    """
    found: list[tuple[str, str]] = []
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        # One or two hyphens, as absl accepts them.
        name, equals, value = argument.lstrip("-").partition("=")
        # What isn't for the config goes on to the parser of flags.
        if not (argument.startswith("-") and name.startswith("config.")):
            rest.append(argument)
            continue
        # Both `--KEY=VALUE` and `--KEY VALUE` are common, so both are understood.
        if not equals:
            if not waiting:
                raise ValueError(f"--{name} needs a value: --{name}=VALUE")
            value = waiting.pop(0)
        found.append((name.removeprefix("config."), value))
    return found, rest


def override(config: ConfigDict, path: str, text: str) -> None:
    """Sets one key.

    Args:
      config: inherited, so that a key of one model can be set alone.
      path: of the key, with dots.
      text: of the value: a number, a word, None, true or false, a tuple as `8,16` or `(8, 16)`, or
        any Python literal.

    Raises:
      ValueError: for a key that the config doesn't have, naming what exists, or a value of another
        kind than the key's.
    """
    *sections, key = path.split(".")
    section: Any = config
    # Step by step, so that the message can name the first part of the path that is wrong.
    for number, name in enumerate(sections):
        if name in SECTIONS and "models" in sections[:number] and not section.get(name):
            with section.unlocked(), section.ignore_type():
                section[name] = ConfigDict(SECTIONS[name])
        # A key that doesn't exist would otherwise be added, and never read.
        if not isinstance(section, ConfigDict) or name not in section:
            _refuse(section, ".".join(sections[:number]), name)
        if name in NAMED and isinstance(section[name], str):
            with section.ignore_type():
                section[name] = ConfigDict({"name": section[name]})
        if name == SELECTION and isinstance(section[name], str):
            with section.ignore_type():
                section[name] = ConfigDict({WHOLE_TEXTS: 1})
        section = section[name]
    if not isinstance(section, ConfigDict):
        _refuse(section, ".".join(sections), key)
    owner = sections[-1] if sections else ""
    optional = [key for name in sections[-2:] for key in OPTIONAL.get(name, ())]
    if key not in section and owner not in NAMED and key not in optional:
        _refuse(section, ".".join(sections), key)
    if owner in NAMED and key != "name":
        # An option may take numbers and words, so the present value doesn't tell its kind.
        value = text if key == "separator" else parse(text)
    else:
        value = _converted(path, text, section.get(key, () if key in TUPLES else ""))
    # Types were compared above, with a message that names the key.
    with section.unlocked(), section.ignore_type():
        section[key] = value


def _refuse(section: Any, where: str, name: str) -> None:
    known = ", ".join(section) if isinstance(section, ConfigDict) else "none"
    owner = where or "the config"
    raise ValueError(f"the config has no such option: {owner} has no {name!r}; it has {known}")


def _converted(path: str, text: str, current: Any) -> Any:
    """Converts a text to the type that the key's present value suggests."""
    key = path.rpartition(".")[2]
    if key == SELECTION:
        return text
    if key == "unlabelled":
        return _names(text) if text.strip() else ()
    # A text stays as it is typed: a dataset may be called "1" or "true".
    if isinstance(current, str):
        # A column's name is a text; several of them are a tuple.
        if key in TUPLES and "," in text:
            return _names(text)
        return None if text in ("None", "none") and key == "dir" else text
    value = parse(text)
    # Asked before numbers, because in Python a bool is an int as well.
    if isinstance(current, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{path} must be true or false, got {text!r}")
    elif isinstance(current, (int, float)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not number and not isinstance(value, tuple):
            raise ValueError(f"{path} must be a number, got {text!r}")
        # Hashes and checks tell 3 from 3.0, so numbers keep the kind of the default.
        if isinstance(current, float) and isinstance(value, int) and number:
            value = float(value)
        elif isinstance(value, float) and value.is_integer() and number:
            value = int(value)
    elif isinstance(current, tuple):
        # One value without a comma is meant as a tuple of one.
        if value is not None and not isinstance(value, tuple):
            value = (value,)
    elif isinstance(current, ConfigDict) and value is not None:
        raise ValueError(f"{path} is a section; set one of {', '.join(current)}, or None")
    return value


def _names(text: str) -> tuple[str, ...]:
    """Splits names between commas, whether or not they stand in brackets and quotes."""
    inner = text.strip()
    if inner[0] + inner[-1] in ("()", "[]"):
        inner = inner[1:-1]
    parts = (part.strip() for part in inner.split(","))
    # A comma at the end, as in a tuple of one, names nothing.
    return tuple(part.strip("'\"") for part in parts if part)


def parse(text: str) -> Any:
    """Reads a value: a Python literal, a word of `WORDS`, values between commas, or a text."""
    # Words come first, because Python itself reads only `None` and `True` with capitals.
    stripped = text.strip()
    # Shells and JSON users write `true` and `null`, Python users `True` and `None`.
    if stripped.lower() in WORDS:
        return WORDS[stripped.lower()]
    try:
        return ast.literal_eval(stripped)
    except (ValueError, SyntaxError):
        pass
    # Brackets need quoting in a shell; commas alone don't.
    if "," in stripped and not stripped.startswith(("(", "[", "{")):
        return tuple(parse(part) for part in stripped.split(",") if part.strip())
    return text
