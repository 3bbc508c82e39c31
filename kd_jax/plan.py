"""A config checked and laid out: which models there are, what each learns from, in which order they are trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from kd_jax.data.union import TRAIN
from kd_jax.evaluations import expand
from kd_jax.identity import difference
from kd_jax.inheritance import root_of_likeness
from kd_jax.network import DTYPES
from kd_jax.options import check_keys
from kd_jax.order import groups_in_order
from kd_jax.teaching import EMA, PEER, condition_of, members_of, own_average, peers_of
from kd_jax.training_data import TRANSFER, TRUSTED, check_sets, makers_of

SECTIONS: dict[str, dict[str, bool]] = {
    "": {TRANSFER: False, TRUSTED: False} | dict.fromkeys(
        ("name", "seed", "data", "view", "dtype", "training", "models", "compare", "evaluations", "parallel",
         "checkpoint", "logging"), True),
    "data": dict.fromkeys(("name", "dir", "train", "selection", "evaluation", "inputs", "label", "max_rejected",
                           "augmentation", "cleaning"), True),
    "training": {"mixing": False} | dict.fromkeys(
        ("batch_size", "epochs", "accumulate", "optimizer", "schedule"), True),
    "parallel": dict.fromkeys(("backend", "data", "fsdp", "tensor"), True),
    "checkpoint": dict.fromkeys(("every_steps", "keep_latest", "keep_best", "use"), True),
    "logging": {"every_steps": True},
    "compare": dict.fromkeys(("student", "baseline", "teacher"), True),
    "evaluation": dict.fromkeys(("name", "dir", "evaluation", "inputs", "label", "max_rejected", "label_map",
                                 "label_ranges", "corruption"), False),
    "model": {"model": True, "view": True, "dtype": True} | dict.fromkeys(
        ("like", "teachers", "cached", "objective", "training", "data", "restore", "ema", "condition"), False),
}  # fmt: skip
"""Section -> key -> whether it is required. A key that isn't here is refused, so none can go unread."""

FROM_MODEL = "from_model"
"""Key of a model's `model` that names an earlier model, whose weights it starts from in place of random ones."""


@dataclass(frozen=True)
class ModelPlan:
    """One model of an experiment.

    Attributes:
      name: its name in the config.
      model: what to build: `name` or `pretrained`, and options.
      view: how it sees the data.
      dtype: what it computes in.
      teachers: names of earlier models.
      cached: those of the teachers whose outputs are computed once, before training, instead of in every step.
      objective: name -> term; empty for a model that is used as it is.
      training: batch size, epochs, optimizer, ...
      restore: folder of a finished model to use instead of training one, or None.
      members: names of earlier models, if this one is their ensemble.
      data: what it learns from: "train", the training split, and names of sets.
      decay: of the moving average of itself that it learns from too, or None.
      condition: which teacher's output is part of its input, and how, or None.
      kin: the model whose name seeds it: models that are `like` one another start alike and see the same batches.
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
    kin: str
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


def make_plan(config: Mapping[str, Any]) -> Plan:
    """Checks a config whose references are resolved and orders its models.

    Raises:
      ValueError: for unknown or missing keys, unknown or circular teachers, an unfair comparison; one line.
    """
    check_keys(config, SECTIONS[""], "the config")
    for section in ("data", "parallel", "checkpoint", "logging", "training"):
        known = SECTIONS[section]
        check_keys(config[section], known, section)
    for name, section in config["evaluations"].items():
        check_keys(section, SECTIONS["evaluation"], f"evaluations.{name}")
    expand(config["evaluations"])
    if config["checkpoint"]["use"] not in ("best", "latest"):
        raise ValueError(f"checkpoint.use is 'best' or 'latest', got {config['checkpoint']['use']!r}")
    models = {name: _plan_model(name, section, config["models"]) for name, section in config["models"].items()}
    transfer, trusted = check_sets(config, models)
    _check_comparison(config["compare"], models)
    needed = {name: _needed(model, makers_of(transfer, trusted)) for name, model in models.items()}
    order = groups_in_order(needed, {name: model.peers for name, model in models.items()})
    for one, other in (pair for group in order for pair in combinations(group, 2)):
        if (models[one].kin, models[one].model) == (models[other].kin, models[other].model):
            raise ValueError(f"models.{one} and models.{other} train together and would start from the same weights, as"
                             f" models `like` {models[one].kin} do: make one `like` the other, its peer")  # fmt: skip
    return Plan(dict(config), tuple(tuple(models[name] for name in group) for group in order), transfer, trusted)


def _plan_model(name: str, section: Mapping[str, Any], sections: Mapping[str, Any]) -> ModelPlan:
    check_keys(section, SECTIONS["model"], f"models.{name}")
    decay, peers = own_average(name, section), peers_of(name, section, sections)
    teachers, objective = tuple(section.get("teachers", ())), dict(section.get("objective", {}))
    teachers = tuple(teacher for teacher in teachers if not teacher.startswith((EMA, PEER)))
    for teacher in teachers:
        if teacher not in sections:
            raise ValueError(f"models.{name}.teachers names {teacher!r}; there are {', '.join(sorted(sections))}")
    cached = tuple(section.get("cached", ()))
    if strangers := sorted(set(cached) - set(teachers)):
        raise ValueError(f"models.{name}.cached names {', '.join(strangers)}; its teachers are {', '.join(teachers)}")
    if (start := section["model"].get(FROM_MODEL)) is not None and (start not in sections or start == name):
        others = ", ".join(sorted(sections.keys() - {name}))
        raise ValueError(f"models.{name}.model.{FROM_MODEL} names {start!r}; there are {others}")
    members = members_of(name, section, sections)
    used_as_is = "pretrained" in section["model"] or section.get("restore") or members
    if not objective and not used_as_is:
        raise ValueError(f"models.{name} has no objective: give it one, or pretrained weights, or restore=...")
    training = dict(section.get("training", {}))
    if objective:
        check_keys(training, SECTIONS["training"], f"models.{name}.training")
        if not training["epochs"] > 0:
            raise ValueError(f"models.{name}.training.epochs must be positive, got {training['epochs']}")
    if section["dtype"] not in DTYPES:
        raise ValueError(f"models.{name}.dtype {section['dtype']!r} is unknown; there are {', '.join(DTYPES)}")
    return ModelPlan(
        name, dict(section["model"]), dict(section["view"]), section["dtype"], teachers, cached, objective,
        training,
        section.get("restore"), root_of_likeness(sections, name), members,
        tuple(section.get("data", (TRAIN,))), decay,
        condition_of(name, section, teachers), peers,
    )  # fmt: skip


def _needed(model: ModelPlan, makers: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The models that must be finished before this one begins; `makers` are those that each set waits for."""
    start = () if model.start is None else (model.start,)
    return (*model.teachers, *model.members, *start, *(maker for name in model.data for maker in makers.get(name, ())))


def _check_comparison(compare: Mapping[str, str], models: Mapping[str, ModelPlan]) -> None:
    check_keys(compare, SECTIONS["compare"], "compare")
    for role, name in compare.items():
        if name not in models:
            raise ValueError(f"compare.{role} names {name!r}; there are {', '.join(sorted(models))}")
    student, baseline = models[compare["student"]], models[compare["baseline"]]
    for aspect in ("model", "view", "dtype", "training"):
        ours, theirs = getattr(student, aspect), getattr(baseline, aspect)
        if ours != theirs:
            raise ValueError(
                f"compare: student {student.name!r} and baseline {baseline.name!r} differ in {aspect}"
                f" ({difference(ours, theirs)}); the comparison would not be fair"
            )
