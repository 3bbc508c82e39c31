"""From a config's words to an optax transformation and its learning-rate schedule.

Options that a published optimizer fixes (Adam's betas) keep optax's defaults; what an experiment
chooses (learning rate, weight decay, clipping, warm-up) has none and must be given."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from kd_jax.core.options import call_with_options, choose
from kd_jax.core.types import PyTree

Schedule = Callable[[Any], Any]


def warm_up(schedule: Schedule, peak: float, warmup_steps: int) -> Schedule:
    """Rises linearly from 0 to `peak` over `warmup_steps`, then follows `schedule` from its
    start."""
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps must not be negative, got {warmup_steps}")
    if warmup_steps == 0:
        return schedule
    # After the boundary optax counts the second schedule's steps from 0 again.
    return optax.join_schedules(
        [optax.linear_schedule(0.0, peak, warmup_steps), schedule], [warmup_steps]
    )


def constant(
    learning_rate: float,
    total_steps: int,  # noqa: ARG001 - all schedules have one signature
    *,
    warmup_steps: int,
) -> Schedule:
    """Keeps the learning rate throughout, after the warm-up."""
    return warm_up(optax.constant_schedule(learning_rate), learning_rate, warmup_steps)


def cosine(
    learning_rate: float, total_steps: int, *, warmup_steps: int, final_fraction: float = 0.0
) -> Schedule:
    """Follows half a cosine down to `final_fraction` (https://arxiv.org/abs/1608.03983)."""
    # The decay gets what the warm-up leaves; optax refuses a decay over zero steps.
    decay = optax.cosine_decay_schedule(
        learning_rate, max(1, total_steps - warmup_steps), alpha=final_fraction
    )
    return warm_up(decay, learning_rate, warmup_steps)


def linear(
    learning_rate: float, total_steps: int, *, warmup_steps: int, final_fraction: float = 0.0
) -> Schedule:
    """Follows a straight line down to `final_fraction` of the learning rate: BERT's schedule."""
    # It ends with the training, so the warm-up's steps are taken from its length.
    decay = optax.linear_schedule(
        learning_rate, final_fraction * learning_rate, max(1, total_steps - warmup_steps)
    )
    return warm_up(decay, learning_rate, warmup_steps)


def step(
    learning_rate: float,
    total_steps: int,
    *,
    warmup_steps: int,
    boundaries: tuple[float, ...],
    factor: float,
) -> Schedule:
    """Multiplies by `factor` at each of the `boundaries`, fractions of the whole training."""
    if any(not 0 < boundary < 1 for boundary in boundaries):
        raise ValueError(
            f"boundaries are fractions of the training, between 0 and 1, got {tuple(boundaries)}"
        )
    drops: dict[int, float] = {}
    for boundary in boundaries:
        # Boundaries count from the training's start, the joined schedule from the warm-up's end.
        at = max(1, round(boundary * total_steps) - warmup_steps)
        # In a short training two boundaries may fall on one step; both count.
        drops[at] = drops.get(at, 1.0) * factor
    return warm_up(
        optax.piecewise_constant_schedule(learning_rate, drops), learning_rate, warmup_steps
    )


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "step": step,
}


def weight_decay_mask(params: PyTree) -> PyTree:
    """Marks kernels and embeddings; biases and normalization scales (rank under 2) don't decay."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def adamw(
    learning_rate: Schedule,
    *,
    weight_decay: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
):
    """Builds Adam with decoupled weight decay (https://arxiv.org/abs/1711.05101)."""
    return optax.adamw(
        learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=weight_decay_mask
    )


def adam(learning_rate: Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8):
    """Builds Adam (https://arxiv.org/abs/1412.6980)."""
    return optax.adam(learning_rate, b1, b2, eps)


def sgd(learning_rate: Schedule, *, weight_decay: float, momentum: float, nesterov: bool = False):
    """Builds stochastic gradient descent; weight decay enters the gradient, as in PyTorch."""
    # Decay stands before momentum, so that momentum collects it as it collects the gradient.
    decay = optax.add_decayed_weights(weight_decay, mask=weight_decay_mask)
    # With momentum 0 optax would still store a trace of the gradients; None stores nothing.
    return optax.chain(decay, optax.sgd(learning_rate, momentum or None, nesterov))


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": adam,
    "adamw": adamw,
    "sgd": sgd,
}


def make_schedule(spec: Mapping[str, Any], learning_rate: float, total_steps: int) -> Schedule:
    """Builds the learning rate as a function of the step.

    Args:
      spec: `name` and that schedule's options.
      learning_rate: the peak, per step.
      total_steps: steps of the whole training.

    Raises:
      ValueError: for an unknown name or option, naming what exists.
    """
    build = choose(SCHEDULES, spec, "schedule")
    return call_with_options(build, spec, "schedule", learning_rate, total_steps)


def make_optimizer(
    optimizer: Mapping[str, Any], schedule: Mapping[str, Any], total_steps: int
) -> tuple[optax.GradientTransformation, Schedule]:
    """Builds the update rule: clipping by global norm, then the optimizer under the schedule.

    Args:
      optimizer: `name`, `learning_rate` (> 0), `clip_norm` (global L2 norm, or None for no
        clipping), further options.
      schedule: `name` and that schedule's options.
      total_steps: steps of the whole training.

    Returns:
      The transformation, and the learning rate by step (for the log).

    Raises:
      ValueError: for an unknown name, an unknown or missing option, or a learning rate that is not
        positive.
    """
    build = choose(OPTIMIZERS, optimizer, "optimizer")
    for required in ("learning_rate", "clip_norm"):
        if required not in optimizer:
            raise ValueError(f"optimizer {optimizer['name']!r} needs {required!r}")
    rate, clip_norm = optimizer["learning_rate"], optimizer["clip_norm"]
    # Written with `not`, so that NaN is refused too.
    if not rate > 0:
        raise ValueError(f"learning_rate must be positive, got {rate}")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm must be positive, or None for no clipping, got {clip_norm}")
    # The schedule becomes part of the optimizer, whose own step counter is in every checkpoint.
    rates = make_schedule(schedule, rate, total_steps)
    options = {
        key: value for key, value in optimizer.items() if key not in ("learning_rate", "clip_norm")
    }
    update = call_with_options(build, options, "optimizer", rates)
    # Clipping stands first: it has to see the raw gradients, before the optimizer rescales them.
    return (
        update if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), update)
    ), rates
