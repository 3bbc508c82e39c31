"""What a run has at hand: the models it has finished, and what all of them share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from kd_jax.condition import Condition
from kd_jax.datasets import Datasets
from kd_jax.loop import StopSignal
from kd_jax.parallel import Parallel
from kd_jax.plan import ModelPlan
from kd_jax.types import PyTree, Variables


@dataclass(frozen=True)
class Model:
    """A model ready to teach and to be evaluated.

    Attributes:
      plan: its section.
      network: how it is applied; an ensemble stands where a network stands.
      variables: as they are stored, on the devices.
      description: what `finished.json` says of it.
      home: the folder it was trained in, where its outputs are kept.
      views: what it reads of a batch.
      condition: the teacher's output that it may be given, or None.
      condition_map: parameters of that condition's map, on the devices.
    """

    plan: ModelPlan
    network: Any
    variables: Variables
    description: Mapping[str, Any]
    home: Path
    views: tuple[Mapping[str, Any], ...]
    condition: Condition | None = None
    condition_map: PyTree = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """How many parameters it has, BatchNorm statistics left out."""
        return self.description["parameters"]


@dataclass(frozen=True)
class Surroundings:
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
        """How many processes share each batch; the smallest global batch."""
        return jax.process_count()
