"""Plans an experiment: which models there are, what each learns from, in which order they train."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from kd_jax.config.fill import fill
from kd_jax.config.hashing import difference
from kd_jax.config.inherit import seed_group_of
from kd_jax.config.names import TRAIN
from kd_jax.config.order import groups_in_order
from kd_jax.config.schema import FROM_MODEL, ModelPlan, Plan, check_config, check_model
from kd_jax.config.teachers import EMA, PEER, condition_of, members_of, own_average, peers_of
from kd_jax.data.evaluation_sets import expand
from kd_jax.experiments.check_sets import check_sets, makers_of


def make_plan(config: Mapping[str, Any]) -> Plan:
    """Checks a config whose references are resolved and orders its models.

    Raises:
      ValueError: in one line, for a key or value that the schema doesn't have, unknown or circular
        teachers, or an unfair comparison.
    """
    config = fill(config)
    check_config(config)
    expand(config["evaluations"])
    models = {
        name: _plan_model(name, section, config["models"])
        for name, section in config["models"].items()
    }
    transfer, trusted = check_sets(config, models)
    _check_comparison(config["compare"], models)
    needed = {name: _needed(model, makers_of(transfer, trusted)) for name, model in models.items()}
    order = groups_in_order(needed, {name: model.peers for name, model in models.items()})
    for one, other in (pair for group in order for pair in combinations(group, 2)):
        if (models[one].seed_group, models[one].model) == (
            models[other].seed_group,
            models[other].model,
        ):
            raise ValueError(
                f"models.{one} and models.{other} train together and would start from the same"
                f" weights, as models `like` {models[one].seed_group} do: make one `like` the"
                f" other, its peer"
            )
    return Plan(
        dict(config),
        tuple(tuple(models[name] for name in group) for group in order),
        transfer,
        trusted,
    )


def _plan_model(name: str, section: Mapping[str, Any], sections: Mapping[str, Any]) -> ModelPlan:
    check_model(name, section)
    decay, peers = own_average(name, section), peers_of(name, section, sections)
    teachers, objective = tuple(section.get("teachers", ())), dict(section.get("objective") or {})
    teachers = tuple(teacher for teacher in teachers if not teacher.startswith((EMA, PEER)))
    for teacher in teachers:
        if teacher not in sections:
            raise ValueError(
                f"models.{name}.teachers names {teacher!r}; there are {', '.join(sorted(sections))}"
            )
    cached = tuple(section.get("cached", ()))
    if strangers := sorted(set(cached) - set(teachers)):
        raise ValueError(
            f"models.{name}.cached names {', '.join(strangers)}; its teachers are"
            f" {', '.join(teachers)}"
        )
    if (start := section["model"].get(FROM_MODEL)) is not None and (
        start not in sections or start == name
    ):
        others = ", ".join(sorted(sections.keys() - {name}))
        raise ValueError(f"models.{name}.model.{FROM_MODEL} names {start!r}; there are {others}")
    members = members_of(name, section, sections)
    used_as_is = "pretrained" in section["model"] or section.get("restore") or members
    if not objective and not used_as_is:
        raise ValueError(
            f"models.{name} has no objective: give it one, or pretrained weights, or restore=..."
        )
    training = dict(section.get("training") or {})
    return ModelPlan(
        name,
        dict(section["model"]),
        dict(section["view"]),
        section["dtype"],
        teachers,
        cached,
        objective,
        training,
        section.get("restore"),
        seed_group_of(sections, name),
        members,
        tuple(section.get("data", (TRAIN,))),
        decay,
        condition_of(name, section, teachers),
        peers,
    )


def _needed(model: ModelPlan, makers: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The models that must be finished before this one begins; `makers` are those that each set
    waits for."""
    start = () if model.start is None else (model.start,)
    return (
        *model.teachers,
        *model.members,
        *start,
        *(maker for name in model.data for maker in makers.get(name, ())),
    )


def _check_comparison(compare: Mapping[str, str], models: Mapping[str, ModelPlan]) -> None:
    for role, name in compare.items():
        if name not in models:
            raise ValueError(
                f"compare.{role} names {name!r}; there are {', '.join(sorted(models))}"
            )
    student, baseline = models[compare["student"]], models[compare["baseline"]]
    for aspect in ("model", "view", "dtype", "training"):
        ours, theirs = getattr(student, aspect), getattr(baseline, aspect)
        if ours != theirs:
            raise ValueError(
                f"compare: student {student.name!r} and baseline {baseline.name!r} differ in"
                f" {aspect}"
                f" ({difference(ours, theirs)}); the comparison would not be fair"
            )
