"""Checks a whole experiment against shapes, before anything is trained."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_jax.config.names import TRAIN
from kd_jax.config.schema import ModelPlan, Plan
from kd_jax.core.types import Variables
from kd_jax.data.run_datasets import view_name
from kd_jax.data.source import Source
from kd_jax.experiments.build import build_shapes, make_group
from kd_jax.experiments.check_layout import check_layout, check_replicated
from kd_jax.experiments.restore import read_restored
from kd_jax.models import registry
from kd_jax.models.weights import formats
from kd_jax.teachers.build_ensemble import equal_ensemble
from kd_jax.teachers.conditioned_student import build_condition
from kd_jax.teachers.frozen import FrozenTeachers, check_cacheable, shapes_of
from kd_jax.training.context import RunContext
from kd_jax.training.step import PeerGroup
from kd_jax.training.trained_model import Held, TrainedModel

log = logging.getLogger("kd_jax")


@dataclass(frozen=True)
class ShapedGroup:
    """Models that are to be trained together, and what their step takes, as shapes.

    Attributes:
      plans: their sections.
      group: how they are trained.
      variables: by name, the models' own.
      frozen: their teachers, none of them stored yet but those that are only a file.
      source: what they learn from, or rows of the same kind.
    """

    plans: tuple[ModelPlan, ...]
    group: PeerGroup
    variables: Mapping[str, Variables]
    frozen: FrozenTeachers
    source: Source


def check_shapes(
    plan: Plan, context: RunContext, stored: Mapping[str, TrainedModel] | None = None
) -> list[ShapedGroup]:
    """Builds every model, objective and condition of an experiment as shapes.

    So a wrong layer name in the last student is refused in seconds, not after its teachers were
    trained for hours, and so is a finished model that can't be restored.

    Args:
      plan: of the experiment.
      context: of the run.
      stored: the teachers of which only outputs are known, by name.

    Returns:
      What is to be trained, in order.

    Raises:
      ValueError: naming the model and what doesn't fit.
    """
    trained: list[ShapedGroup] = []
    check_replicated({model.name: model for model in plan.models}, context.parallel)
    models: dict[str, TrainedModel] = dict(stored or {})
    for group in plan.groups:
        if group[0].name in models:
            continue
        if group[0].members:
            models[group[0].name] = _ensemble(group[0], models, context)
        else:
            found, shaped = _group(group, models, plan.transfer_sets, context)
            models |= found
            trained += shaped
    check_layout(models, context.parallel)
    _tell_what_cannot_hold(models[plan.config["compare"]["student"]])
    return trained


def _tell_what_cannot_hold(student: TrainedModel) -> None:
    """Says now, and not after the training, that transformers won't open the student."""
    try:
        formats.counterpart(registry.describe(student.network.module))
    except ValueError as error:
        log.info("%s: no export for transformers: %s", student.plan.name, error)


def _group(
    plans: Sequence[ModelPlan],
    models: Mapping[str, TrainedModel],
    sets: Mapping[str, Any],
    context: RunContext,
) -> tuple[dict[str, TrainedModel], list[ShapedGroup]]:
    # Models that start at random are built as shapes only, so even a large one takes no memory.
    built = {plan.name: build_shapes(plan, context, models) for plan in plans}
    conditions = {
        plan.name: build_condition(plan, *built[plan.name], models, context) for plan in plans
    }
    for plan in plans:
        # What is in the run's folder already needs nothing of the other run.
        if plan.restore and not (context.workdir / plan.name / "finished.json").exists():
            read_restored(plan, built[plan.name][0], context)
    trained: list[ShapedGroup] = []
    # A restored model is not trained here, so its objective is never built.
    if plans[0].objective and not plans[0].restore:
        training = plans[0].training
        context.parallel.check_batch(training["batch_size"], training["accumulate"])
        source = _source(plans[0], context)
        frozen = _frozen(plans, models, source, context)
        networks = {name: network for name, (network, _) in built.items()}
        # Building it checks every option.
        made = make_group(plans, networks, frozen, source, context, conditions)
        _check_labels(made, plans[0].data, sets)
        variables = {name: found for name, (_, found) in built.items()}
        trained.append(ShapedGroup(tuple(plans), made, variables, frozen, source))
    # They have no description or folder yet, as shapes are all that later checks ask for.
    return {
        plan.name: TrainedModel(plan, network, Held(variables), {}, Path(), (plan.view,))
        for plan, (network, variables) in ((plan, built[plan.name]) for plan in plans)
    }, trained


def _source(plan: ModelPlan, context: RunContext) -> Source:
    """Opens what a model learns from; sets not made yet have the rows' kind of the training
    split.
    """
    return context.datasets.training_source((TRAIN,) if plan.data != (TRAIN,) else plan.data)


def _check_labels(group: PeerGroup, data: Sequence[str], sets: Mapping[str, Any]) -> None:
    """Refuses terms that learn from labels where no set that is learned from will have any."""
    if group.task.masks is not None or any(
        name not in sets or sets[name]["labels"] != "none" for name in data
    ):
        return
    for name, model in group.models.items():
        for term, bound in model.objective.terms.items():
            if bound.labelled:
                raise ValueError(
                    f"models.{name}.objective.{term} learns from labels, and all of its data,"
                    f" {', '.join(data)}, have labels='none'"
                )


def _ensemble(
    plan: ModelPlan, models: Mapping[str, TrainedModel], context: RunContext
) -> TrainedModel:
    members = {name: models[name] for name in plan.members}
    try:
        network = equal_ensemble(plan, members, context)
    except ValueError as error:
        raise ValueError(f"models.{plan.name}: {error}") from None
    views = {view_name(view): view for member in members.values() for view in member.views}
    return TrainedModel(plan, network, None, {}, Path(), tuple(views.values()), members=members)


def _frozen(
    plans: Sequence[ModelPlan],
    models: Mapping[str, TrainedModel],
    source: Source,
    context: RunContext,
) -> FrozenTeachers:
    """Returns the teachers of a group, with shapes in place of their variables."""
    # A dict in place of a set, because it keeps the order.
    names = {name: None for plan in plans for name in plan.teachers}
    cached = {name for plan in plans for name in plan.cached}
    training = plans[0].training
    mixed = bool(training.get("mixing"))
    check_cacheable(
        sorted(cached),
        [name for name in names if models[name].stored is not None],
        augmented=context.datasets.augmented,
        mixed=mixed,
        repeated=training.get("augmented_epochs") is not None,
    )
    if cached and mixed and training["mixing"]["candidates"] > 1:
        raise ValueError(
            f"training.mixing.candidates must be 1: cached teachers ({', '.join(sorted(cached))})"
            f" can't be asked which mix they are least certain of"
        )
    return shapes_of({name: models[name] for name in names}, source)
