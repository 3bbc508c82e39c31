"""A loss's hyperparameters as users give them: numbers or schedules, checked by the loss itself."""

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from kd_jax.objective.schedules import Schedule, extremes, make_value

Hyperparameter = float | Mapping[str, Any]
"""A number, or a schedule: `dict(name="linear", start=..., stop=..., steps=...)`."""

STRUCTURAL = ("p", "order")
"""Hyperparameters that shape the computation and can't change with the step."""

NOT_OPTIONS = ("where",)


def of_loss(loss: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns a loss's keyword-only hyperparameters by name, defaults as in its paper."""
    parameters = inspect.signature(loss).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in NOT_OPTIONS}


class Settings:
    """A loss's hyperparameters as functions of the step, checked before anything compiles.

    Args:
      loss: the function; a hyperparameter that isn't given keeps the loss's default.
      given: name -> number or schedule.
      *shapes: what the loss will be called with, as `jax.ShapeDtypeStruct`s: it is traced once with
        each extreme of each schedule, so that its own checks speak first.

    Raises:
      ValueError: what the loss says of shapes or values that don't fit.
    """

    def __init__(self, loss: Callable[..., Any], given: Mapping[str, Any], *shapes: Any):
        # A power or an order shapes the program, so it can't change from step to step.
        self._structural = {name: given[name] for name in given if name in STRUCTURAL}
        self._scheduled: dict[str, Schedule] = {
            name: make_value(given[name], name) for name in given if name not in STRUCTURAL
        }
        # A schedule stays between its extremes: what holds at both holds on the way.
        for values in itertools.product(*(extremes(given[name]) for name in self._scheduled)):
            settings = self._structural | dict(zip(self._scheduled, values, strict=True))
            jax.eval_shape(functools.partial(loss, **settings), *shapes)

    def at(self, step: Any) -> dict[str, Any]:
        """Returns the loss's keyword arguments at a training step."""
        return self._structural | {name: value(step) for name, value in self._scheduled.items()}
