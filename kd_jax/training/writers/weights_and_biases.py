"""Weights & Biases: one of its runs for a run of ours, with all models."""

import importlib
import os
from collections.abc import Mapping
from typing import Any

from kd_jax.core.json_files import as_json
from kd_jax.training.writers.service_run import ServiceRun
from kd_jax.training.writers.writer import FollowedRun, Writer

PROJECT = "kd_jax"
"""Where runs go if WANDB_PROJECT names nothing."""


class WeightsAndBiases(Writer):
    """Logs to W&B; whether to a server or to `RUN/wandb` is for WANDB_MODE to say."""

    extra = "wandb"

    def __init__(self, run: FollowedRun):
        super().__init__(run)
        self._kept = ServiceRun(run, "wandb")
        # By name: type checkers would ask for an optional package.
        self._run: Any = importlib.import_module("wandb").init(
            id=self._kept.id,
            resume="allow",
            # The user's own run in this process, if there is one, stays as it is.
            reinit="create_new",
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=os.environ.get("WANDB_NAME") or run.folder.name,
            group=os.environ.get("WANDB_RUN_GROUP") or run.experiment,
            dir=str(run.folder),
        )
        # A run may go on with other devices or intervals than it began with.
        self._run.config.update(as_json(run.config), allow_val_change=True)
        self._kept.begin(self._run.id)

    def begin(self, model: str, resumed_at: int) -> None:
        """Gives the model a step of its own: W&B's grows over all models and never goes back."""
        self._kept.forget_if_killed(model, resumed_at)
        self._run.define_metric(f"{model}/step", hidden=True)
        self._run.define_metric(f"{model}/*", step_metric=f"{model}/step")

    def write(self, model: str, step: int, values: Mapping[str, float]) -> None:
        """Logs values under the model's name."""
        named = {f"{model}/{name}": value for name, value in values.items()}
        if new := self._kept.new(step, named):
            self._run.log({**new, f"{model}/step": step})
            self._kept.note(step, new)

    def close(self, *, ended: bool) -> None:
        """Finishes the run; one that was stopped counts as failed until it is resumed."""
        self._run.finish(exit_code=0 if ended else 1)
        self._kept.close()
