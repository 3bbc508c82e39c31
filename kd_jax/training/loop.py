"""The outer loop: step, log, evaluate, checkpoint; stops on SIGTERM, on numbers that aren't finite,
or when done."""

import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from kd_jax.core.pytree import not_finite
from kd_jax.core.types import Batch, Mean, PyTree
from kd_jax.data.batches import TrainingBatches
from kd_jax.tasks import CLASSIFICATION
from kd_jax.training.checkpoints import Checkpoints
from kd_jax.training.interruption import Diverged, Interrupted, StopSignal
from kd_jax.training.machine_use import MachineUse
from kd_jax.training.metrics_writer import MetricsWriter
from kd_jax.training.progress import StepProgress
from kd_jax.training.state import TrainState
from kd_jax.training.step import FINITE

log = logging.getLogger("kd_jax")

CONSEQUENCES = ("accuracy", "loss", "gradient_norm")
"""What a step reports beside its terms."""


@dataclass
class Window:
    """Metrics since the last log line, each step checked for numbers that aren't finite."""

    sums: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: int = 0

    def add(
        self, step: int, metrics: Mapping[str, Mapping[str, Any]], last_good: str | None
    ) -> None:
        """Adds a step's metrics.

        Raises:
          Diverged: naming the model, the step and the term.
        """
        # One transfer for all metrics of a step; float64, so that long windows don't lose digits.
        numbers: Any = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), jax.device_get(dict(metrics))
        )
        for name, values in numbers.items():
            finite = values.pop(FINITE, True)
            # The terms first: they are the cause, the total and the gradient only follow.
            for term in sorted(values, key=lambda term: (term in CONSEQUENCES, term)):
                number = values[term].total if isinstance(values[term], Mean) else values[term]
                if not np.isfinite(number):
                    raise Diverged(_told(name, f"{term} is {float(number)}", step, last_good))
            if not finite:
                told = "a parameter is no longer a finite number"
                raise Diverged(_told(name, told, step, last_good))
        self.sums = jax.tree.map(np.add, self.sums, numbers) if self.sums else numbers
        self.steps += 1

    def close(self) -> dict[str, dict[str, float]]:
        """Returns model -> metric -> mean over the window, which then begins anew."""
        # Sums and counts were kept apart, so the mean weighs every example alike.
        means = {
            name: {
                term: float(value.value()) if isinstance(value, Mean) else float(value) / self.steps
                for term, value in values.items()
            }
            for name, values in self.sums.items()
        }
        self.sums, self.steps = {}, 0
        return means


def _told(name: str, what: str, step: int, last_good: str | None) -> str:
    return (
        f"{name}: {what} at step {step}; a lower learning rate or weight may help; last good"
        f" checkpoint: {last_good or 'none yet'}"
    )


@dataclass(frozen=True)
class Intervals:
    """When a training run does what, in steps.

    Attributes:
      total: of the whole training.
      save: between evaluations on the selection split, each saved.
      log: between log lines.
      patience: evaluations without a better one after which the training ends; None: it doesn't.
    """

    total: int
    save: int
    log: int
    patience: int | None = None

    def __post_init__(self) -> None:
        # An interval of 0 would divide by zero only at the first step.
        for name, value in (("save", self.save), ("log", self.log)):
            if value < 1:
                raise ValueError(f"{name} interval must be at least 1 step, got {value}")


def train(
    state: TrainState,
    *,
    advance: Callable[[TrainState, Batch], tuple[TrainState, PyTree]],
    learning_rates: Mapping[str, Callable[[int], Any]],
    batches: TrainingBatches,
    intervals: Intervals,
    evaluate: Callable[[TrainState], Mapping[str, Mapping[str, float | None]]],
    checkpoints: Checkpoints,
    writers: Mapping[str, MetricsWriter],
    progress: StepProgress,
    stop: StopSignal,
    seconds: float,
    blame: Callable[[Batch], str | None] | None = None,
    rank: Callable[[Mapping[str, Any]], float | None] = CLASSIFICATION.rank,
    machine: MachineUse | None = None,
) -> float:
    """Trains from `state` to the last step; what it learned is in the checkpoints.

    Args:
      state: fresh or restored; it is donated.
      advance: one compiled step.
      learning_rates: by model, the learning rate of each step, for the log.
      batches: positioned at `state.step`.
      intervals: intervals in steps.
      evaluate: by model, "loss" and the task's metrics on the selection split; checkpoints are
        ranked by the means over the models of `rank` and of "loss", and their meta holds each
        model's metrics under "selection".
      rank: the metric that chooses checkpoints, so that more is better; None where it is undefined.
      checkpoints: where states go.
      writers: by model, where metrics go.
      progress: what people see.
      stop: whether to end early.
      seconds: trained before this start.
      blame: names the teacher whose output on a batch isn't finite, None if none is at fault.
      machine: measures what the training takes of the machine, for the log; None: nothing does.

    Returns:
      Seconds trained in all.

    Raises:
      Interrupted: after SIGTERM, with the state saved.
      Diverged: on a loss, gradient, parameter or score that isn't finite; that state is never
        saved.
    """
    # Earlier seconds are subtracted from the start, so every difference below includes them.
    step, began, window, pending = int(state.step), time.perf_counter() - seconds, Window(), None

    def settle():
        # Metrics are fetched one step late, so that the device already works on the next step
        # meanwhile.
        if pending is None:
            return
        number, metrics, batch = pending
        try:
            window.add(number, metrics, checkpoints.last_good())
        except Diverged as error:
            # Asked only now: a teacher's output is looked at when something is wrong, not in
            # every step.
            teacher = blame(batch) if blame else None
            if teacher is None:
                raise
            raise Diverged(
                f"{teacher}, a teacher, gives numbers that aren't finite at step {number}: {error}"
            ) from None

    def save(scores, ranks):
        # Optimizer states too: what can't be gone on with is no good checkpoint.
        if leaves := not_finite(state):
            told = f"{leaves[0]} is no longer finite"
            raise Diverged(_told(", ".join(writers), told, step, checkpoints.last_good()))
        # The data's position is saved with the state, so a resumed run reads the very next batch.
        meta = {
            "position": batches.get_state(),
            "seconds": time.perf_counter() - began,
            "selection": scores,
        }
        checkpoints.save(step, state, meta, ranks)

    def exhausted() -> bool:
        # Asked of the checkpoints, so that a run which was stopped here ends here as well.
        patience = intervals.patience
        return patience is not None and checkpoints.since_best() >= patience * intervals.save

    while step < intervals.total and not exhausted():
        # Dispatch returns at once; the metrics of the step before are looked at meanwhile.
        batch = next(batches)
        state, metrics = advance(state, batch)
        settle()
        step, pending = step + 1, (step + 1, metrics, batch)
        progress.advance(step)
        # The last step is always due, so that no run ends without a checkpoint of it.
        due, log_due = (
            at_interval(step, intervals.save, intervals.total),
            at_interval(step, intervals.log, intervals.total),
        )
        # Processes may agree at log steps only: the agreement is a collective that all must reach.
        ending = step < intervals.total and stop.asked(agree=log_due)
        # What is logged or saved must include this step, so its metrics are waited for.
        if due or log_due or ending:
            settle()
            pending = None
        if log_due:
            values = window.close()
            # Schedules count from 0: the step that was just taken used the rate of the one before.
            for name, rate in learning_rates.items():
                # The rate of the step that was just taken; the schedule counts from 0.
                values[name]["learning_rate"] = float(rate(step - 1))
            report(step, values, writers, progress)
            if machine is not None:
                # In lines of their own, so that all others are the same in every run.
                report(step, dict.fromkeys(writers, machine.measure(step)), writers, None)
        paused = time.perf_counter()
        if due:
            # Checkpoints are ranked by the selection split, never by what is reported.
            scores = evaluate(state)
            _check_scores(scores, step, checkpoints.last_good())
            selection = {
                name: {f"selection/{k}": v for k, v in own.items()} for name, own in scores.items()
            }
            report(step, selection, writers, None)
            save(scores, _means(scores, rank))
        elif ending:
            # Unranked: the choice of the best checkpoint must not depend on where a run happened to
            # be stopped.
            save(None, None)
        if machine is not None:
            machine.leave_out(time.perf_counter() - paused)
        if ending:
            # Saving goes on in the background; the process may only end when all is on disk.
            checkpoints.wait()
            raise Interrupted(
                f"stopped at step {step} of {intervals.total}; the same command resumes it"
            )
    checkpoints.wait()
    if step < intervals.total:
        log.info(
            "%s: ended at step %d of %d, as %d evaluations brought nothing better",
            ", ".join(writers),
            step,
            intervals.total,
            intervals.patience,
        )
    return time.perf_counter() - began


def _check_scores(
    scores: Mapping[str, Mapping[str, float | None]], step: int, last_good: str | None
) -> None:
    """Raises Diverged for a score that isn't finite: no rank could be given by it."""
    for name, own in scores.items():
        for key, value in own.items():
            if value is not None and not math.isfinite(value):
                told = f"{key} on the selection split is {value}"
                raise Diverged(_told(name, told, step, last_good))


def _means(
    scores: Mapping[str, Mapping[str, Any]], rank: Callable[[Mapping[str, Any]], float | None]
) -> dict[str, float | None]:
    """Computes what ranks a checkpoint: the means over the models."""
    ranks = [rank(own) for own in scores.values()]
    known = [each for each in ranks if each is not None]
    return {
        # A metric that is undefined for one model ranks worst, whatever the others'.
        "score": statistics.fmean(known) if len(known) == len(ranks) else None,
        # Not every task has a loss on labels.
        "loss": statistics.fmean(own["loss"] or 0.0 for own in scores.values()),
    }


def at_interval(step: int, every: int, total: int) -> bool:
    """Tells whether a step is one of every so many, or the last."""
    return step % every == 0 or step == total


def report(
    step: int,
    values: Mapping[str, Mapping[str, float | None]],
    writers: Mapping[str, MetricsWriter],
    progress: StepProgress | None,
) -> None:
    """Writes values by model, and shows them; those of several models under the models' names."""
    # Several models share one line, so their values are told apart by name.
    shown = {}
    for name, record in writers.items():
        # JSON has no NaN or infinity, and a plot can't show them.
        finite = {
            key: value
            for key, value in values[name].items()
            if value is not None and math.isfinite(value)
        }
        record.write(step, finite)
        shown |= (
            finite
            if len(writers) == 1
            else {f"{name}/{key}": value for key, value in finite.items()}
        )
    if progress is not None:
        progress.report(step, shown)
