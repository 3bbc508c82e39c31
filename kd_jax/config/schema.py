"""Which keys a config has, and what a checked one is made of."""

from dataclasses import dataclass
from typing import Any

from kd_jax.config.names import TRAIN, TRANSFER, TRUSTED

SECTIONS: dict[str, dict[str, bool]] = {
    "": {TRANSFER: False, TRUSTED: False}
    | dict.fromkeys(
        (
            "name",
            "seed",
            "data",
            "view",
            "dtype",
            "training",
            "models",
            "compare",
            "evaluations",
            "parallel",
            "checkpoint",
            "logging",
        ),
        True,
    ),
    "data": dict.fromkeys(
        (
            "name",
            "dir",
            "train",
            "selection",
            "evaluation",
            "inputs",
            "label",
            "max_rejected",
            "augmentation",
            "cleaning",
        ),
        True,
    ),
    "training": {"mixing": False}
    | dict.fromkeys(("batch_size", "epochs", "accumulate", "optimizer", "schedule"), True),
    "parallel": dict.fromkeys(("backend", "data", "fsdp", "tensor"), True),
    "checkpoint": dict.fromkeys(("every_steps", "keep_latest", "keep_best", "use"), True),
    "logging": {"every_steps": True},
    "compare": dict.fromkeys(("student", "baseline", "teacher"), True),
    "evaluation": dict.fromkeys(
        (
            "name",
            "dir",
            "evaluation",
            "inputs",
            "label",
            "max_rejected",
            "label_map",
            "label_ranges",
            "corruption",
        ),
        False,
    ),
    "model": {"model": True, "view": True, "dtype": True}
    | dict.fromkeys(
        (
            "like",
            "teachers",
            "cached",
            "objective",
            "training",
            "data",
            "restore",
            "ema",
            "condition",
        ),
        False,
    ),
}
"""Section -> key -> whether it is required. A key that isn't here is refused, so none can go
unread."""


FROM_MODEL = "from_model"
"""Key of a model's `model` that names an earlier model, whose weights it starts from in place of
random ones."""


@dataclass(frozen=True)
class ModelPlan:
    """One model of an experiment.

    Attributes:
      name: its name in the config.
      model: what to build: `name` or `pretrained`, and options.
      view: how it sees the data.
      dtype: what it computes in.
      teachers: names of earlier models.
      cached: those of the teachers whose outputs are computed once, before training, instead of in
        every step.
      objective: name -> term; empty for a model that is used as it is.
      training: batch size, epochs, optimizer, ...
      restore: folder of a finished model to use instead of training one, or None.
      members: names of earlier models, if this one is their ensemble.
      data: what it learns from: "train", the training split, and names of sets.
      decay: of the moving average of itself that it learns from too, or None.
      condition: which teacher's output is part of its input, and how, or None.
      seed_group: the model whose name seeds it: models that are `like` one another start alike and
        see the same batches.
      peers: names of models that it learns from, and they from it, while all of them are trained.
    """

    name: str
    model: dict[str, Any]
    view: dict[str, Any]
    dtype: str
    teachers: tuple[str, ...]
    cached: tuple[str, ...]
    objective: dict[str, Any]
    training: dict[str, Any]
    restore: str | None
    seed_group: str
    members: tuple[str, ...] = ()
    data: tuple[str, ...] = (TRAIN,)
    decay: float | None = None
    condition: dict[str, Any] | None = None
    peers: tuple[str, ...] = ()

    @property
    def start(self) -> str | None:
        """The earlier model whose weights it starts from, or None."""
        return self.model.get(FROM_MODEL)


@dataclass(frozen=True)
class Plan:
    """A checked experiment.

    Attributes:
      config: the resolved config, plain Python values.
      groups: in the order of training; a group's models are trained together, by name.
      transfer_sets: name -> section, checked.
      trusted_sets: name -> section, checked.
    """

    config: dict[str, Any]
    groups: tuple[tuple[ModelPlan, ...], ...]
    transfer_sets: dict[str, Any]
    trusted_sets: dict[str, Any]

    @property
    def models(self) -> tuple[ModelPlan, ...]:
        """All models, in the order of training."""
        return tuple(model for group in self.groups for model in group)

    def __getitem__(self, name: str) -> ModelPlan:
        return next(model for model in self.models if model.name == name)
