"""Which keys a config has and what their values must be, and what a checked config is made of.

Each section is a frozen dataclass; a field's `kind` says what its value must be. Everything about a
value alone is checked here, in one place, and every message names the key with its full path. What
a model, term, optimizer or schedule may be given beside is checked by what is built of it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kd_jax.config.kinds import Choice, Kind, Number, Optional, Section, Several, Text, Whole
from kd_jax.config.names import TRAIN, TRANSFER, TRUSTED

FROM_MODEL = "from_model"
"""Key of a model's `model` that names an earlier model, whose weights it starts from."""

DTYPES = ("float32", "bfloat16", "float16", "float64")
SHARE = Number(0, 1)
POSITIVE = Number(0, open_low=True)
MODES = Choice("off", "report", "drop", "repair")


def key(kind: Kind, *, required: bool = True) -> Any:
    """Returns the field of a key: what its value must be, and whether it must be given."""
    if required:
        return field(metadata={"kind": kind})
    return field(metadata={"kind": kind}, default=None)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """`data.augmentation`."""

    crop: int = key(Whole())
    flip: float = key(SHARE)


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """`data.cleaning`."""

    mode: str = key(MODES)
    prepared: str = key(MODES)
    max_characters: int | None = key(Optional(Whole(1)))
    max_pixels: int | None = key(Optional(Whole(1)))
    near_duplicate: float | None = key(Optional(SHARE))


@dataclass(frozen=True, kw_only=True)
class Data:
    """`data`."""

    name: str = key(Text())
    dir: str | None = key(Optional(Text()))
    train: str = key(Text())
    selection: str = key(Text())
    evaluation: str = key(Text())
    inputs: Any = key(Several(Text(), lengths=(1, 2)))
    label: str = key(Text())
    max_rejected: int = key(Whole())
    augmentation: Augmentation = key(Section())
    cleaning: Cleaning = key(Section())


@dataclass(frozen=True, kw_only=True)
class Training:
    """`training`, of the experiment and of each model that is trained."""

    batch_size: int = key(Whole(1))
    epochs: float = key(POSITIVE)
    accumulate: int = key(Whole(1))
    optimizer: Any = key(Section())
    schedule: Any = key(Section())
    mixing: Any = key(Optional(Section()), required=False)


@dataclass(frozen=True, kw_only=True)
class Compare:
    """`compare`."""

    student: str = key(Text())
    baseline: str = key(Text())
    teacher: str = key(Text())


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """`parallel`."""

    backend: str = key(Choice("jit", "pmap"))
    data: int = key(Whole(1, others=(-1,)))
    fsdp: int = key(Whole(1))
    tensor: int = key(Whole(1))


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """`checkpoint`."""

    every_steps: int = key(Whole(1))
    keep_latest: int = key(Whole(1))
    keep_best: int = key(Whole(1))
    use: str = key(Choice("best", "latest"))


@dataclass(frozen=True, kw_only=True)
class Logging:
    """`logging`."""

    every_steps: int = key(Whole(1))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A section of `evaluations`: what differs from `data`."""

    name: str | None = key(Optional(Text()), required=False)
    dir: str | None = key(Optional(Text()), required=False)
    evaluation: str | None = key(Optional(Text()), required=False)
    inputs: Any = key(Optional(Several(Text(), lengths=(1, 2))), required=False)
    label: str | None = key(Optional(Text()), required=False)
    max_rejected: int | None = key(Optional(Whole()), required=False)
    label_map: Any = key(Optional(Section()), required=False)
    label_ranges: Any = key(Optional(Section()), required=False)
    corruption: Any = key(Optional(Section()), required=False)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A section of `models`, completed by what it inherits."""

    model: Any = key(Section())
    view: Any = key(Section())
    dtype: str = key(Choice(*DTYPES))
    like: str | None = key(Text(), required=False)
    teachers: Any = key(Several(Text(), one=False), required=False)
    cached: Any = key(Several(Text(), one=False), required=False)
    objective: Any = key(Optional(Section()), required=False)
    training: Any = key(Optional(Section()), required=False)
    data: Any = key(Several(Text(), one=False), required=False)
    restore: str | None = key(Optional(Text()), required=False)
    ema: Any = key(Optional(Section()), required=False)
    condition: Any = key(Optional(Section()), required=False)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The whole config."""

    name: str = key(Text())
    seed: int = key(Whole())
    dtype: str = key(Choice(*DTYPES))
    data: Data = key(Section())
    view: Any = key(Section())
    training: Training = key(Section())
    models: Any = key(Section())
    compare: Compare = key(Section())
    evaluations: Any = key(Section())
    parallel: Parallel = key(Section())
    checkpoint: Checkpoint = key(Section())
    logging: Logging = key(Section())
    transfer_sets: Any = key(Optional(Section()), required=False)
    trusted_sets: Any = key(Optional(Section()), required=False)


SECTIONS: dict[str, type] = {
    "data": Data,
    "data.augmentation": Augmentation,
    "data.cleaning": Cleaning,
    "training": Training,
    "compare": Compare,
    "parallel": Parallel,
    "checkpoint": Checkpoint,
    "logging": Logging,
}
"""Path of a section that every config has -> its dataclass."""


def check_config(config: Mapping[str, Any]) -> None:
    """Checks every key of a resolved config, save the models' own, which `check_model` does.

    Raises:
      ValueError: in one line, with the key's full path, what was wrong and what exists.
    """
    check_section("", config, Experiment)
    for path, section in SECTIONS.items():
        value: Any = config
        for name in path.split("."):
            value = value[name]
        check_section(path, value, section)
    for kind in ("evaluations", "models", TRANSFER, TRUSTED):
        for name, section in (config.get(kind) or {}).items():
            if not isinstance(section, Mapping):
                raise ValueError(f"{kind}.{name} must be a section, got {section!r}")
            if kind == "evaluations":
                check_section(f"evaluations.{name}", section, Evaluation)


def check_model(name: str, section: Mapping[str, Any]) -> None:
    """Checks a model's section and, if the model is trained, its `training`.

    Raises:
      ValueError: as `check_config`.
    """
    path = f"models.{name}"
    check_section(path, section, Model)
    if section.get("objective"):
        training = section.get("training")
        if not isinstance(training, Mapping):
            raise ValueError(f"{path}.training must be a section, got {training!r}")
        check_section(f"{path}.training", training, Training)
        for term, given in section["objective"].items():
            if not isinstance(given, Mapping):
                raise ValueError(
                    f"{path}.objective.{term} must be a section with a term and a weight, got"
                    f" {given!r}"
                )


def check_section(path: str, section: Mapping[str, Any], schema: type) -> None:
    """Checks the keys and values of one section.

    Args:
      path: of the section, for messages; "" for the whole config.
      section: its keys and values.
      schema: the dataclass that describes it.

    Raises:
      ValueError: for an unknown or missing key, or a value of another kind.
    """
    owner = path or "the config"
    fields = {each.name: each for each in dataclasses.fields(schema)}
    listed = ", ".join(sorted(fields))
    for name in section:
        if name not in fields:
            raise ValueError(f"{owner} has no option {name!r}; its options are {listed}")
    for name, each in fields.items():
        required = each.default is dataclasses.MISSING
        if name not in section:
            if required:
                raise ValueError(f"{owner} needs option {name!r}; its options are {listed}")
            continue
        kind: Kind = each.metadata["kind"]
        if not kind.fits(section[name]):
            where = f"{path}.{name}" if path else name
            raise ValueError(f"{where} must be {kind.meaning}, got {section[name]!r}")


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
      seed_group: the model whose name seeds it: models that are `like` one another start alike and
        see the same batches.
      members: names of earlier models, if this one is their ensemble.
      data: what it learns from: "train", the training split, and names of sets.
      decay: of the moving average of itself that it learns from too, or None.
      condition: which teacher's output is part of its input, and how, or None.
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
      config: the resolved config, plain Python values, defaults filled in.
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
