"""A conditioned student of a run: what its section asks of its teacher, what is kept of it, and its
score with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax.config.schema import ModelPlan
from kd_jax.core.pytree import count_parameters, fingerprint
from kd_jax.core.types import Batch, ModelOutput, PyTree, Variables
from kd_jax.data.source import Source
from kd_jax.models.network import Network
from kd_jax.models.projectors.conditioning import Condition, make_condition
from kd_jax.teachers.ensemble import knows_labels
from kd_jax.training.context import RunContext
from kd_jax.training.evaluate import eval_step, evaluate
from kd_jax.training.trained_model import TrainedModel


@dataclass(frozen=True, eq=False)
class ConditionedStudent:
    """A student that is given its teacher's output. Stands where a `Network` stands.

    Attributes:
      student: the student's network.
      condition: how the output enters.
      teacher: the teacher's network, or what stands in its place.
    """

    student: Network
    condition: Condition
    teacher: Any

    def __call__(self, variables: Mapping[str, Variables], batch: Batch) -> ModelOutput:
        """Computes the student's output.

        `variables` are those of "student", "map" and "teacher".
        """
        # The teacher runs first, as its output is part of the student's input.
        taught = self.teacher(variables["teacher"], batch)
        return self.student(
            variables["student"], batch, self.condition.signal(variables["map"], taught)
        )


def build_condition(
    plan: ModelPlan,
    network: Network,
    variables: Variables,
    teachers: Mapping[str, TrainedModel],
    context: RunContext,
) -> Condition | None:
    """Builds the condition that a plan's section describes.

    Raises:
      ValueError: naming the model, for what doesn't fit its teacher.
    """
    if plan.condition is None:
        return None
    # One batch is enough, since only the shapes of the teacher's output matter here.
    on = teachers[plan.condition["on"]]
    source = context.datasets.splits["train"]
    batch = next(
        iter(context.datasets.evaluation_batches(source, [plan.view, *on.views], context.processes))
    )
    # `eval_shape` traces the teacher without computing anything.
    taught = jax.eval_shape(
        lambda held, seen: on.network(on.network.frozen(held), seen), on.shapes, batch
    )
    # The map is trained, and trained parameters need at least float32.
    dtype = jnp.promote_types(jnp.float32, network.dtype)
    try:
        # Such a teacher would pass the label on to the student through its input.
        if knows_labels(on.network):
            raise ValueError(
                f"condition.on names {on.plan.name!r}, which chooses by the label; no input may"
                f" tell it"
            )
        return make_condition(
            plan.condition, taught, network.signal_shape(variables, batch), dtype, plan.objective
        )
    except ValueError as error:
        raise ValueError(f"models.{plan.name}: {error}") from None


def described(
    plan: ModelPlan, condition_map: PyTree, teachers: Mapping[str, TrainedModel]
) -> dict[str, Any]:
    """Says of a condition what `finished.json` records: its section, whom it was learned on, the
    map.
    """
    if plan.condition is None:
        return {}
    # Parameters are counted apart: the student is deployed without the map.
    facts = {
        "parameters": count_parameters(condition_map),
        "fingerprint": fingerprint(condition_map),
    }
    return {"condition": plan.condition | {"teacher": _teacher(plan.condition, teachers)} | facts}


def _teacher(condition: Mapping[str, Any], teachers: Mapping[str, TrainedModel]) -> str:
    return teachers[condition["on"]].description["fingerprint"]


def check_restored(
    plan: ModelPlan, description: Mapping[str, Any], teachers: Mapping[str, TrainedModel]
) -> None:
    """Refuses a finished model whose map was not learned on the output that the plan would give it.

    Raises:
      ValueError: naming what differs.
    """
    if plan.condition is None:
        return
    found = description.get("condition", {})
    # The map was fitted to one teacher's output, so another teacher's numbers mean nothing to it.
    wanted = plan.condition | {"teacher": _teacher(plan.condition, teachers)}
    for key in ("output", "map", "teacher"):
        if found.get(key) != wanted[key]:
            raise ValueError(
                f"models.{plan.name}: {plan.restore} has condition.{key} {found.get(key)!r}, here"
                f" it is {wanted[key]!r}"
            )


def score_with_teacher(
    model: TrainedModel,
    teachers: Mapping[str, TrainedModel],
    source: Source,
    context: RunContext,
    batch_size: int,
) -> dict[str, dict[str, Any]]:
    """Computes "with_teacher" of results.json, for a conditioned student.

    The metrics where it is given its teacher's output.

    Returns:
      "teacher", "output", "map_parameters" (which count neither as the student's nor as the
      teacher's), "loss" and the task's metrics on the split; nothing for a model without a
      condition.
    """
    if model.condition is None:
        return {}
    on = teachers[model.condition.teacher]
    network = ConditionedStudent(model.network, model.condition, on.network)
    # Teachers are cast to the dtype that they are computed in, as in the student's training.
    held = {
        "student": model.variables,
        "map": model.condition_map,
        "teacher": on.network.frozen(on.variables),
    }
    task = context.datasets.task
    compiled = context.parallel.evaluate(partial(eval_step, forward=network, task=task))
    # Student and teacher may read different views of the same example.
    batches = context.datasets.evaluation_batches(source, [*model.views, *on.views], batch_size)
    scores = evaluate(compiled, held, {}, batches, task)
    facts = {
        "teacher": model.condition.teacher,
        "output": model.condition.output,
        "map_parameters": count_parameters(model.condition_map),
    }
    return {"with_teacher": facts | {name: scores[name] for name in ("loss", *task.metrics)}}
