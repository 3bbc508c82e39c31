"""How good a model is: on the selection split while it is trained, and on whole splits when it is
finished."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from kd_jax.config.schema import ModelPlan
from kd_jax.core.types import Teacher, Variables
from kd_jax.data.source import Source
from kd_jax.models.network import Network
from kd_jax.teachers.ensemble import without_labels
from kd_jax.teachers.frozen import freeze
from kd_jax.training.context import RunContext
from kd_jax.training.evaluate import eval_step, evaluate
from kd_jax.training.trained_model import TrainedModel


class Selection:
    """Evaluates variables on the selection split; compiled once."""

    def __init__(
        self,
        network: Network,
        plan: ModelPlan,
        context: RunContext,
        teachers: Mapping[str, TrainedModel] | None = None,
    ):
        # Evaluated many times while one model trains, so it is compiled here and not in each call.
        self._task = context.datasets.task
        step = partial(eval_step, forward=network, task=self._task)
        self._compiled = context.parallel.evaluate(step)
        source = context.datasets.splits["selection"]
        # Checkpoints are chosen by what the model alone can do, but for a task whose metrics
        # compare it with its teachers.
        met = (teachers or {}) if self._task.meets_teachers else {}
        frozen = freeze(met, (), source, context, mixed=False)
        self._teachers = frozen.teachers
        self._batches = context.datasets.evaluation_batches(
            source, [plan.view, *frozen.views], plan.training["batch_size"]
        )

    def __call__(self, variables: Variables) -> dict[str, float | None]:
        """Computes the task's metrics and "loss"; None for one that is undefined there."""
        metrics = evaluate(self._compiled, variables, self._teachers, self._batches, self._task)
        return {name: metrics[name] for name in ("loss", *self._task.metrics)}


def score(
    model: TrainedModel,
    teachers: Mapping[str, TrainedModel],
    source: Source,
    context: RunContext,
    batch_size: int,
) -> dict[str, Any]:
    """Computes a model's metrics on a whole split, and how far it agrees with its teachers."""
    # Nothing is cached, as an evaluation reads each example only once.
    frozen = freeze(teachers, (), source, context, mixed=False)
    # Nobody may know the label of an example that is evaluated.
    asked = {
        name: Teacher(teacher.variables, without_labels(teacher.forward))
        for name, teacher in frozen.teachers.items()
    }
    forward = without_labels(model.network)
    task = context.datasets.task
    compiled = context.parallel.evaluate(partial(eval_step, forward=forward, task=task))
    batches = context.datasets.evaluation_batches(source, [*model.views, *frozen.views], batch_size)
    names = context.datasets.class_names
    return evaluate(compiled, model.variables, asked, batches, task, names)
