"""What a run has at hand: the models it has finished, and what all of them share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from kd_jax.data.run_datasets import Datasets
from kd_jax.training.interruption import StopSignal
from kd_jax.training.sharding import Parallel


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
    """

    workdir: Path
    datasets: Datasets
    parallel: Parallel
    seed: int
    checkpoint: Mapping[str, Any]
    logging: Mapping[str, Any]
    stop: StopSignal

    @property
    def processes(self) -> int:
        """Returns how many processes share each batch; it is the smallest global batch too."""
        return jax.process_count()
