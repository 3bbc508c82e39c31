"""A loss's hyperparameters as a config gives them: numbers or schedules, checked by the loss
itself."""

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from kd_jax.objective.schedules import extremes, make_value

STRUCTURAL = ("p", "order")
"""Hyperparameters that shape the computation and can't change with the step."""

NOT_OPTIONS = ("where",)


def of_loss(loss: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The loss's keyword-only hyperparameters by name, with the paper's values as their
    defaults."""
    parameters = inspect.signature(loss).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in NOT_OPTIONS}


def adopts(*losses: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Lets a term's constructor, which takes `**given`, show the hyperparameters of its losses as
    its own options."""

    def decorate(build: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(build)
        kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        adopted = {name: p for loss in losses for name, p in of_loss(loss).items()}
        build.__signature__ = own.replace(parameters=[*kept, *adopted.values()])  # pyright: ignore[reportFunctionMemberAccess]
        return build

    return decorate


def bind(
    loss: Callable[..., Any], given: Mapping[str, Any], *shapes: Any, **fixed: Any
) -> Callable[..., Any]:
    """The loss with its hyperparameters as functions of the step: `(step, *arrays, **more) ->
    values`.

    Args:
      loss: the function.
      given: name -> number or schedule; the others keep the paper's values.
      *shapes: what the loss will be called with, as `jax.ShapeDtypeStruct`s: it is traced once with
        each extreme of each schedule, so that its own checks speak before anything compiles.
      **fixed: further arguments of that trial.

    Raises:
      ValueError: what the loss says of shapes or values that don't fit.
    """
    structural = {name: given[name] for name in given if name in STRUCTURAL}
    scheduled = {name: make_value(given[name], name) for name in given if name not in STRUCTURAL}
    for values in itertools.product(*(extremes(given[name]) for name in scheduled)):
        settings = structural | dict(zip(scheduled, values, strict=True)) | fixed
        jax.eval_shape(functools.partial(loss, **settings), *shapes)

    def at(step: Any, *arrays: Any, **more: Any) -> Any:
        return loss(
            *arrays,
            **structural,
            **{name: value(step) for name, value in scheduled.items()},
            **more,
        )

    return at
