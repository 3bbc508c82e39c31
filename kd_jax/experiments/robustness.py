"""How a run's models fare on further datasets: each one's metrics, and what becomes of the accuracy
in domain."""

import statistics
from collections.abc import Mapping
from functools import partial
from typing import Any

from kd_jax.experiments.scoring import tuned_task
from kd_jax.tasks import METRICS
from kd_jax.teachers.ensemble import without_labels
from kd_jax.training.context import RunContext
from kd_jax.training.evaluate import eval_step, evaluate
from kd_jax.training.trained_model import TrainedModel


def evaluate_all(
    models: Mapping[str, TrainedModel], context: RunContext, batch_size: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Evaluates every model on every further dataset, one dataset after the other.

    Returns:
      Dataset -> model -> the task's metrics and "loss", "rows" that they are over, and
      "left_out", rows without a class of the experiment.
    """
    # Each model is compiled once, whatever the number of datasets.
    further = bool(context.datasets.evaluations)
    tasks = {name: tuned_task(model, context) for name, model in models.items() if further}
    steps = {
        name: context.parallel.evaluate(
            partial(eval_step, forward=without_labels(model.network), task=tasks[name])
        )
        for name, model in models.items()
        # Stored outputs are of the run's own data.
        if further and model.stored is None
    }
    found: dict[str, dict[str, dict[str, float]]] = {}
    # One dataset at a time, so that only one has to be in memory.
    for dataset, evaluation, source in context.datasets.open_evaluations():
        counts: dict[str, float] = {"rows": len(source), "left_out": evaluation.left_out}
        found[dataset] = {}
        for name in steps:
            model = models[name]
            batches = context.datasets.evaluation_batches(source, list(model.views), batch_size)
            task = tasks[name]
            scores = evaluate(steps[name], model.variables, {}, batches, task)
            found[dataset][name] = {
                metric: scores[metric] for metric in ("loss", *task.metrics)
            } | counts
    return found


def summarize(
    in_domain: Mapping[str, float | None],
    evaluations: Mapping[str, Mapping[str, Mapping[str, Any]]],
    primary: str = "accuracy",
) -> dict[str, dict[str, Any]]:
    """Sets a metric on further datasets beside that in domain.

    Args:
      in_domain: model -> the metric on the experiment's own evaluation split.
      evaluations: as `evaluate_all` returns them.
      primary: the metric.

    Returns:
      Model -> values of the metric: "in_domain", "mean" (each dataset counts once), "worst" and its
      "worst_dataset", and "drop", "in_domain" minus "mean"; None where one is undefined.
      Nothing where there are no further datasets, or a model was not evaluated on them.
    """
    summary: dict[str, dict[str, Any]] = {}
    for name, own in in_domain.items() if evaluations else ():
        if any(name not in scores for scores in evaluations.values()):
            continue
        # Each dataset counts once, whatever its size; else the largest would decide alone.
        others = {dataset: scores[name][primary] for dataset, scores in evaluations.items()}
        # Where a metric is undefined, as on a dataset of one class, nothing can be said of all.
        if own is None or None in others.values():
            summary[name] = {"in_domain": own} | dict.fromkeys(
                ("mean", "worst", "worst_dataset", "drop")
            )
            continue
        pick = min if METRICS[primary].higher else max
        worst, mean = pick(others, key=others.__getitem__), statistics.fmean(others.values())
        summary[name] = {
            "in_domain": own,
            "mean": mean,
            "worst": others[worst],
            "worst_dataset": worst,
            "drop": own - mean,
        }
    return summary
