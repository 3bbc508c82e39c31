"""A profile of some steps of a training, as TensorBoard and Perfetto open it."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

log = logging.getLogger("kd_jax")


@dataclass(frozen=True)
class ProfiledSteps:
    """The steps of each training that are profiled, counted from 1.

    Attributes:
      first: the first of them.
      last: the last of them.
    """

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> "ProfiledSteps":
        """Reads FIRST:LAST.

        Raises:
          ValueError: for anything else, or a last step before the first.
        """
        found = re.fullmatch(r"([0-9]{1,18}):([0-9]{1,18})", text)
        steps = cls(*map(int, found.groups())) if found else None
        if steps is None or not 1 <= steps.first <= steps.last:
            raise ValueError(
                f"profile must be FIRST:LAST, two steps from 1 on such as 10:15, got {text!r}"
            )
        return steps

    def check(self, model: str, steps: int) -> None:
        """Checks that a training has these steps.

        Raises:
          ValueError: naming the model and its last step.
        """
        if self.last > steps:
            raise ValueError(f"profile={self} ends beyond the last step of models.{model}, {steps}")

    def __str__(self) -> str:
        return f"{self.first}:{self.last}"


class ProfiledTraining:
    """Takes a training's steps, and profiles some of them; only the first process does.

    Args:
      advance: takes one step.
      steps: that are profiled.
      folder: where the profile is written.
      name: of what is trained, for messages.
      resumed_at: the step that training goes on from.
    """

    def __init__(
        self,
        advance: Callable[[Any, Any], tuple[Any, Any]],
        steps: ProfiledSteps,
        folder: Path,
        *,
        name: str,
        resumed_at: int,
    ):
        self._advance, self._steps, self._folder, self._name = advance, steps, folder, name
        self._step, self._began = resumed_at, None
        if resumed_at >= steps.last:
            log.info("%s: no profile, as step %d is behind it", name, steps.last)

    def __call__(self, state: Any, batch: Any) -> tuple[Any, Any]:
        """Takes the next step."""
        self._step += 1
        within = self._steps.first <= self._step <= self._steps.last
        if jax.process_index() != 0 or not within:
            return self._advance(state, batch)
        if self._began is None:
            # The step before may still be at work, and is none of the profile.
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder))
            self._began = self._step
        with jax.profiler.StepTraceAnnotation("train", step_num=self._step):
            state, metrics = self._advance(state, batch)
        if self._step == self._steps.last:
            jax.block_until_ready((state, metrics))
            self.close()
        return state, metrics

    def close(self) -> None:
        """Writes the profile if it is open, as after an interruption too, and says where it is."""
        if self._began is None:
            return
        began, self._began = self._began, None
        jax.profiler.stop_trace()
        log.info(
            "%s: profile of steps %d to %d in %s; TensorBoard opens the folder, Perfetto its"
            " *.trace.json.gz",
            self._name,
            began,
            self._step,
            self._folder,
        )
