"""What each member of an ensemble adds to it: exact Shapley values of the task's primary metric."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from kd_jax.analysis.shapley import EXACT_PLAYERS, shapley_values
from kd_jax.core.types import Batch
from kd_jax.data.source import Source, are_labelled
from kd_jax.tasks import CLASSIFICATION, Task
from kd_jax.teachers.build_ensemble import unlabelled_logits
from kd_jax.teachers.ensemble import Ensemble, without_labels
from kd_jax.training.context import RunContext
from kd_jax.training.trained_model import TrainedModel

PERMUTATIONS = 200
"""Sampled where there are too many members for exact values."""


def member_values(
    model: TrainedModel, members: Mapping[str, TrainedModel], source: Source, context: RunContext
) -> dict[str, Any]:
    """Computes Shapley values of an ensemble's members on a split; see `shapley_of_members`."""
    return shapley_of_members(
        without_labels(model.network),
        unlabelled_logits(members, source, context),
        source.labels,
        context.datasets.task,
    )


def shapley_of_members(
    ensemble: Ensemble, outputs: np.ndarray, labels: np.ndarray, task: Task = CLASSIFICATION
) -> dict[str, Any]:
    """Computes each member's share of the ensemble's primary metric above that of a guess.

    Args:
      ensemble: of M members; a subset of them keeps its weights' proportions.
      outputs: `[M, N, K]`, in the order of the members.
      labels: `[N]` int, negative where there is none, or `[N, K]`, NaN where there is none.
      task: that has `Task.blind` outputs.

    Returns:
      "values" and "standard_errors" (0 where all subsets are valued) by member, adding up to "all"
      minus "empty", the metrics of the whole ensemble and of a guess, as `Task.worth` gives them.
    """
    names, labelled = list(ensemble.members), are_labelled(labels)
    outputs, labels = outputs[:, labelled], labels[labelled]
    count = len(labels)
    # Combining needs only labels of a batch; the outputs are already there, so no views are.
    batch = Batch(np.arange(count), {}, labels, np.ones(count, bool), np.ones(count, bool))

    def value(subset: frozenset) -> float:
        if not subset:
            return task.worth_of_a_guess(labels, outputs.shape[-1])
        rows = [i for i, name in enumerate(names) if name in subset]
        weights = np.array([ensemble.weights[i] for i in rows])
        part = replace(ensemble, weights=tuple((weights / weights.sum()).tolist()))
        scaled = [jnp.asarray(outputs[i]) / ensemble.temperatures[i] for i in rows]
        return task.worth(part.combined(jnp.stack(scaled), batch), batch)

    # Exact values need all 2^M subsets, which soon are too many.
    sampled = None if len(names) <= EXACT_PLAYERS else PERMUTATIONS
    values, errors = shapley_values(value, names, permutations=sampled)
    whole, empty = value(frozenset(names)), value(frozenset())
    return {"values": values, "standard_errors": errors, "all": whole, "empty": empty}
