"""What a run has at hand: the models it has finished, and what all of them share."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax

from kd_jax.data.run_datasets import Datasets
from kd_jax.training.interruption import StopSignal
from kd_jax.training.profile import ProfiledSteps
from kd_jax.training.sharding import Parallel
from kd_jax.training.writers import OpenedWriters


@dataclass(frozen=True)
class RunContext:
    """What all models of a run share.

    Attributes:
      workdir: the run's folder.
      datasets: the data.
      parallel: the devices.
      seed: the experiment's.
      checkpoint: the config's section.
      logging: the config's section.
      stop: whether SIGTERM came.
      writers: where metrics go beside metrics.jsonl.
      profile: the steps of each training that are profiled; None: none are.
    """

    workdir: Path
    datasets: Datasets
    parallel: Parallel
    seed: int
    checkpoint: Mapping[str, Any]
    logging: Mapping[str, Any]
    stop: StopSignal
    writers: OpenedWriters = field(default_factory=OpenedWriters)
    profile: ProfiledSteps | None = None

    def within(self, folder: Path) -> "RunContext":
        """Returns the context of trainings in a folder of their own, such as those of folds.

        They are no models of the run, and only write their own metrics.jsonl.
        """
        return replace(self, workdir=folder, writers=OpenedWriters(), profile=None)

    @property
    def processes(self) -> int:
        """Returns how many processes share each batch; it is the smallest global batch too."""
        return jax.process_count()
