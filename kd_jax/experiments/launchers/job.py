"""What a launcher starts: one command, or a number of equal workers of a sweep."""

import ast
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

OF_THE_LAUNCH = ("launcher", "workers", "slurm", "jobset", "tpu")
"""Flags of the launch itself, which the started command doesn't get."""

LONGEST_NAME = 40
"""Characters; Kubernetes makes host names of it, which have at most 63."""

Options = TypeVar("Options")


@dataclass(frozen=True)
class Job:
    """A command to start.

    Attributes:
      name: lower-case letters, digits and hyphens.
      arguments: of kd-jax.
      workdir: the run's or sweep's folder.
      workers: how many processes share the sweep; None: the command runs as it is.
    """

    name: str
    arguments: tuple[str, ...]
    workdir: Path
    workers: int | None

    @property
    def copies(self) -> int:
        """Returns how often the command is started."""
        return self.workers or 1


def make_job(arguments: Sequence[str], name: str, workdir: Path, workers: int | None) -> Job:
    """Makes a job of the command line that asked for it.

    Args:
      arguments: of kd-jax, the launch's own flags among them.
      name: the experiment's.
      workdir: its folder; added to the arguments, since its default depends on the config.
      workers: how many processes share a sweep; None: none is shared.
    """
    rest, waiting = list[str](), list(arguments)
    while waiting:
        argument = waiting.pop(0)
        flag, equals, _ = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag in OF_THE_LAUNCH:
            # `--FLAG VALUE` is as good as `--FLAG=VALUE`.
            del waiting[: 0 if equals else 1]
            continue
        rest.append(argument)
    if not any(each.lstrip("-").partition("=")[0] == "workdir" for each in rest):
        rest.append(f"--workdir={workdir}")
    if workers is not None and "--join" not in rest:
        rest.append("--join")
    plain_name = re.sub(r"[^a-z0-9]+", "-", f"kd-jax-{name}".lower())[:LONGEST_NAME].strip("-")
    return Job(plain_name, tuple(rest), workdir, workers)


def read_options(flag: str, items: Sequence[str]) -> dict[str, Any]:
    """Reads KEY=VALUE of a launcher's flag; a value is a number, true, false or a text.

    Raises:
      ValueError: for an item without a key or value, or a key that is there twice.
    """
    found: dict[str, Any] = {}
    for item in items:
        key, _, value = item.partition("=")
        if not key or not value or key in found:
            raise ValueError(f"--{flag}={','.join(items)}: write KEY=VALUE,..., each KEY once")
        found[key] = _read_value(value)
    return found


def fill_options(kind: type[Options], flag: str, given: Mapping[str, Any]) -> Options:
    """Makes a launcher's options of what was given.

    Args:
      kind: a dataclass with defaults.
      flag: the launcher's, for messages.
      given: key -> value.

    Raises:
      ValueError: for a key that it doesn't have, or a value of another kind than the default's.
    """
    defaults = vars(kind())
    for key, value in given.items():
        if key not in defaults:
            close = difflib.get_close_matches(key, defaults, 1, 0.0)[0]
            known = ", ".join(defaults)
            raise ValueError(f"--{flag} has no {key!r}, did you mean {close!r}? It has {known}")
        # The exact type, because in Python True is a number too.
        if type(value) is not type(defaults[key]) or (type(value) is int and value < 0):
            what = {int: "a number from 0 on", bool: "true or false"}.get(type(defaults[key]))
            raise ValueError(f"--{flag}={key}={value}: it must be {what or 'a text'}")
    return kind(**given)


def _read_value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    # Not by ast alone: 1-2 or "x" in quotes would be other than what was written.
    return ast.literal_eval(text) if re.fullmatch(r"[1-9]\d*|0|\d+\.\d+", text) else text
