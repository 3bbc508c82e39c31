"""How good a model is: on the selection split while it is trained, and on whole splits when it is
finished."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from kd_jax.config.schema import ModelPlan
from kd_jax.core.types import Teacher, Variables
from kd_jax.data.source import Source
from kd_jax.models.network import Network
from kd_jax.tasks import Task, shown
from kd_jax.teachers.ensemble import without_labels
from kd_jax.teachers.frozen import freeze_for_evaluation, known_on, logits_on
from kd_jax.teachers.outputs import StoredTeacher, view_of
from kd_jax.training.context import RunContext
from kd_jax.training.evaluate import collect, eval_step, evaluate
from kd_jax.training.trained_model import TrainedModel

log = logging.getLogger("kd_jax")


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
        frozen = freeze_for_evaluation(met, source, context, plan.training["batch_size"])
        self._teachers = frozen.teachers
        self._batches = context.datasets.evaluation_batches(
            source, [plan.view, *frozen.views], plan.training["batch_size"], frozen.outputs
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
    *,
    asked: bool = False,
) -> dict[str, Any]:
    """Computes a model's metrics on a whole split, and how far it agrees with its teachers.

    Args:
      model: which is evaluated.
      teachers: by name.
      source: the split.
      context: the data and the devices.
      batch_size: examples at a time.
      asked: whether others are compared with the model, so that its logits are kept for them.
    """
    # A file need not have outputs on more than what is learned from.
    known = {name: each for name, each in teachers.items() if covers(each, source)}
    frozen = freeze_for_evaluation(known, source, context, batch_size)
    # Nobody may know the label of an example that is evaluated.
    others = {
        name: Teacher(teacher.variables, without_labels(teacher.forward))
        for name, teacher in frozen.teachers.items()
    }
    task = tuned_task(model, context)
    outputs = {**frozen.outputs, **known_on(model, source)}
    own = None
    if asked and model.stored is None:
        own = logits_on(model, source, context, batch_size)
    if own is None:
        variables, forward = model.variables, without_labels(model.network)
    else:
        view = view_of(model.plan.name)
        variables, forward, outputs[view] = {}, StoredTeacher(view), own
    compiled = context.parallel.evaluate(partial(eval_step, forward=forward, task=task))
    # Its view tells which words have a label, whoever computed the outputs.
    views = [*model.views, *frozen.views]
    batches = context.datasets.evaluation_batches(source, views, batch_size, outputs)
    names = context.datasets.class_names
    return evaluate(compiled, variables, others, batches, task, names)


def tuned_task(model: TrainedModel, context: RunContext) -> Task:
    """Returns the task with what of it is each model's own, found on the selection split."""
    task, source = context.datasets.task, context.datasets.splits["selection"]
    if not task.tunes or not covers(model, source):
        return task
    step = partial(eval_step, forward=without_labels(model.network), task=task)
    size = 64 * context.parallel.devices
    known = known_on(model, source)
    batches = context.datasets.evaluation_batches(source, model.views, size, known)
    _, rows = collect(context.parallel.evaluate(step), model.variables, {}, batches)
    return task.tuned(rows)


def covers(model: TrainedModel, source: Source) -> bool:
    """Tells whether a model has outputs on a source: one of which only these are known may not."""
    return model.stored is None or model.stored.on(source) is not None


def judge(
    plan: ModelPlan,
    metrics: Mapping[str, float | None],
    context: RunContext,
    *,
    trained: bool = False,
) -> dict[str, Any]:
    """Compares a model that teaches as it is with a guess, and tells the result.

    Classes in another order, other tokens or another normalization show here and nowhere else.

    Args:
      plan: of the model.
      metrics: on the selection split.
      context: of the run.
      trained: whether this run or its sweep trained it.

    Returns:
      What its description holds of these metrics.

    Raises:
      ValueError: if it is worse, unless the config allows that or it was trained.
    """
    how = "was trained on these data" if trained else "is not trained here"
    task = context.datasets.task
    guess = task.guess(context.datasets.splits["selection"].labels)
    if guess is None:
        told = shown(task.primary, metrics[task.primary])
        log.info("%s %s; selection split: %s", plan.name, how, told)
        return described(metrics)
    name, chance, margin = guess
    value = metrics[name]
    told = (
        f"{plan.name} {how}; selection split: {shown(name, value)} (without"
        f" looking, always the commonest: {shown(name, chance)})"
    )
    # What few rows leave open is no error: a sound model may be unlucky with them.
    weak = value is None or value < chance - margin
    if weak and not plan.allow_weak and not trained:
        raise ValueError(
            f"models.{told}, worse than a guess: are its classes, tokenizer and normalization"
            f" the data's? If it shall be used all the same, say"
            f" models.{plan.name}.allow_weak=True"
        )
    sound = value is not None and value > chance
    log.log(logging.INFO if sound else logging.WARNING, "%s", told)
    return described(metrics)


def described(metrics: Mapping[str, float | None]) -> dict[str, Any]:
    """Returns what a description holds of the metrics on the selection split."""
    # The accuracy also by its old name, by which older runs' reports know it.
    return {"selection": dict(metrics), "selection_accuracy": metrics.get("accuracy")}
