"""What each member of an ensemble adds to it: exact Shapley values of the ensemble's accuracy."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from kd_jax.analysis.shapley import EXACT_PLAYERS, shapley_values
from kd_jax.core.types import Batch
from kd_jax.data.source import Source
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
        without_labels(model.network), unlabelled_logits(members, source, context), source.labels
    )


def shapley_of_members(
    ensemble: Ensemble, logits: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Computes each member's share of the ensemble's accuracy above that of a guess.

    Args:
      ensemble: of M members; a subset of them keeps its weights' proportions.
      logits: `[M, N, K]`, in the order of the members.
      labels: `[N]` int, negative where there is none.

    Returns:
      "values" and "standard_errors" (0 where all subsets are valued) by member, adding up to "all"
      minus "empty", the accuracies of the whole ensemble and of a uniform guess.
    """
    names, labelled = list(ensemble.members), labels >= 0
    logits, labels = logits[:, labelled], labels[labelled]
    # Combining needs only labels of a batch; the logits are already there, so no views are.
    batch = Batch(
        np.arange(len(labels)), {}, labels, np.ones(len(labels), bool), np.ones(len(labels), bool)
    )

    def accuracy(subset: frozenset) -> float:
        # No member says anything, so what remains is a uniform guess.
        if not subset:
            return 1 / logits.shape[-1]
        rows = [i for i, name in enumerate(names) if name in subset]
        # Their sum, below 1 in a subset, changes no largest logit.
        part = replace(ensemble, weights=tuple(ensemble.weights[i] for i in rows))
        scaled = jnp.stack([jnp.asarray(logits[i]) / ensemble.temperatures[i] for i in rows])
        predicted = np.argmax(np.asarray(part.combined(scaled, batch)), axis=-1)
        return float(np.mean(predicted == labels))

    # Exact values need all 2^M subsets, which soon are too many.
    sampled = None if len(names) <= EXACT_PLAYERS else PERMUTATIONS
    values, errors = shapley_values(accuracy, names, permutations=sampled)
    whole, empty = accuracy(frozenset(names)), accuracy(frozenset())
    return {"values": values, "standard_errors": errors, "all": whole, "empty": empty}
