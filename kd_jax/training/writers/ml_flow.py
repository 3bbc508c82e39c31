"""MLflow: one of its runs for a run of ours, with all models."""

import importlib
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from kd_jax.config.hashing import flatten
from kd_jax.training.writers.service_run import ServiceRun
from kd_jax.training.writers.writer import FollowedRun, Writer

EXPERIMENT = "kd_jax"
"""Where runs go if MLFLOW_EXPERIMENT_NAME names nothing."""

LONGEST, MOST = 500, 100
"""Characters of a parameter that every store takes, and parameters in one request."""


class MLflow(Writer):
    """Logs to the server or store that MLFLOW_TRACKING_URI names, else to MLflow's own default."""

    extra = "mlflow"

    def __init__(self, run: FollowedRun):
        super().__init__(run)
        # By name: type checkers would ask for an optional package.
        self._entities: Any = importlib.import_module("mlflow.entities")
        self._kept = ServiceRun(run, "mlflow")
        self._client: Any = importlib.import_module("mlflow").MlflowClient()
        if self._kept.id is None:
            self._kept.begin(self._create(run))
        else:
            self._client.update_run(self._kept.id, status="RUNNING")
        self._id = self._kept.id

    def write(self, model: str, step: int, values: Mapping[str, float]) -> None:
        """Logs values under the model's name."""
        now = int(time.time() * 1000)
        named = {_allowed(f"{model}/{name}"): value for name, value in values.items()}
        if new := self._kept.new(step, named):
            metrics = [self._entities.Metric(name, value, now, step) for name, value in new.items()]
            self._client.log_batch(self._id, metrics=metrics)
            self._kept.note(step, new)

    def close(self, *, ended: bool) -> None:
        """Ends the run; one that was stopped counts as killed until it is resumed."""
        self._client.set_terminated(self._id, "FINISHED" if ended else "KILLED")

    def _create(self, run: FollowedRun) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        there = self._client.get_experiment_by_name(name)
        experiment = there.experiment_id if there else self._client.create_experiment(name)
        tags = {"experiment": run.experiment}
        made = self._client.create_run(experiment, run_name=run.folder.name, tags=tags)
        params = [
            self._entities.Param(_allowed(key), str(value)[:LONGEST])
            for key, value in flatten(run.config).items()
        ]
        for first in range(0, len(params), MOST):
            self._client.log_batch(made.info.run_id, params=params[first : first + MOST])
        return made.info.run_id


def _allowed(name: str) -> str:
    """Replaces what MLflow doesn't take in a name."""
    return re.sub(r"[^\w\-. /:]", "_", name)
