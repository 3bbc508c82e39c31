"""A model ready to teach and to be evaluated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_jax.config.schema import ModelPlan
from kd_jax.core.types import PyTree, Variables
from kd_jax.models.projectors.conditioning import Condition


@dataclass(frozen=True)
class TrainedModel:
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
        """Counts its parameters, BatchNorm statistics left out."""
        return self.description["parameters"]
