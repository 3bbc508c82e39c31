"""Hyperparameters that change with the step: a term's weight, its temperature."""

from collections.abc import Callable, Mapping
from typing import Any

import optax

from kd_jax.core.option_types import is_number
from kd_jax.core.options import call_with_options, choose

Schedule = Callable[[Any], Any]


def linear(*, start: float, stop: float, steps: int) -> Schedule:
    """Goes from `start` to `stop` in a straight line over `steps` training steps, then stays."""
    return optax.linear_schedule(start, stop, steps)


def cosine(*, start: float, stop: float, steps: int) -> Schedule:
    """Goes from `start` to `stop` along half a cosine over `steps` training steps, then stays."""
    # Optax's cosine only falls to 0; stretched like this, the value may also rise.
    shape = optax.cosine_decay_schedule(1.0, steps)
    return lambda step: stop + (start - stop) * shape(step)


def switch(*, start: float, stop: float, at: int) -> Schedule:
    """Stays at `start` until training step `at`, and at `stop` from there on."""
    return optax.join_schedules(
        [optax.constant_schedule(start), optax.constant_schedule(stop)], [at]
    )


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "cosine": cosine,
    "linear": linear,
    "switch": switch,
}


def extremes(value: float | Mapping[str, Any]) -> tuple[float, ...]:
    """Returns the numbers between which a constant or scheduled value stays, for range checks."""
    return (value["start"], value["stop"]) if isinstance(value, Mapping) else (value,)


def make_value(value: float | Mapping[str, Any], owner: str) -> Schedule:
    """Makes a number, or `dict(name=..., start=..., stop=..., ...)`, a function of the step.

    Raises:
      ValueError: for anything else, an unknown name or an unknown option.
    """
    # In Python a bool is an int, so True would pass as the number 1.
    if not is_number(value) and not isinstance(value, Mapping):
        raise ValueError(f"{owner} must be a finite number or a schedule, got {value!r}")
    # A constant becomes a function as well, so that callers never ask which kind they have.
    if not isinstance(value, Mapping):
        return optax.constant_schedule(float(value))
    return call_with_options(
        choose(SCHEDULES, value, f"schedule for {owner}"), value, f"{owner}: schedule"
    )
