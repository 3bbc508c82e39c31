"""Progress for people: a live bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Mapping

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class StepProgress:
    """Shows step, terms, accuracy, examples a second and the time left of one model's training, on
    stderr.

    Args:
      name: the model.
      total_steps: of the whole training.
      start: the step it goes on from.
      batch_size: examples a step.
    """

    def __init__(self, name: str, *, total_steps: int, start: int, batch_size: int):
        self._name, self._total, self._batch_size = name, total_steps, batch_size
        self._first, self._began = start, time.perf_counter()
        self._bar = None
        # A bar redraws its line, which would fill a log file with rubbish, so it needs a terminal.
        if jax.process_index() == 0 and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(
                *columns, TextColumn("{task.fields[values]}"), console=Console(stderr=True)
            )
            self._task = self._bar.add_task(name, total=total_steps, completed=start, values="")
            self._bar.start()

    def advance(self, step: int) -> None:
        """Moves the bar; costs nothing elsewhere."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the newest values."""
        if jax.process_index() != 0:
            return
        # Only steps since this start count: earlier ones of a resumed run took no time here.
        seconds = time.perf_counter() - self._began
        rate = (step - self._first) * self._batch_size / max(seconds, 1e-9)
        left = (self._total - step) * self._batch_size / max(rate, 1e-9)
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=step, values=f"{text}  {rate:.0f} examples/s")
        else:
            line = (
                f"{self._name} {step}/{self._total}  {text}  {rate:.0f} examples/s "
                f" {left:.0f} s left"
            )
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
