"""What the dimensions of the features that a classifier reads are worth, block by block, of teacher
and student."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kd_jax.analysis.shapley import EXACT_PLAYERS, shapley_values
from kd_jax.explain.run import Run
from kd_jax.teachers import compute
from kd_jax.training.trained_model import TrainedModel

BLOCKS = 8
"""Blocks of dimensions, where the caller doesn't say and there are as many."""
TOLERANCE = {"float32": 1e-4, "float64": 1e-6}
"""How far logits made anew from `pooled` may be off, as a share of the largest; 0.05 where the
dtype is coarser."""


def value_features(
    run: Run, name: str, blocks: int | None, permutations: int | None
) -> dict[str, Any]:
    """Computes Shapley values of blocks of `pooled`'s dimensions, of teacher and student.

    A block is neighbouring dimensions; the teacher is the compared one.

    A subset's value is the accuracy on the evaluation split of the model's own classifier where
    every dimension outside the subset stands at its mean over that split, so that it tells examples
    apart no more. Of an ensemble, each member is valued by itself.

    Args:
      run: the run.
      name: the model's.
      blocks: of as equal a size as can be; None: 8, or as many as there are dimensions.
      permutations: to sample; None: exact values, of at most 16 blocks.

    Returns:
      What stands in explain.json under "features": model -> its values and standard errors by
      block, named by its first and last dimension, and the accuracies "all" and "empty", as shares.

    Raises:
      ValueError: for more blocks than dimensions, too many for exact values, or a model whose
        logits aren't what its classifier makes of `pooled`.
    """
    # The student may be a member of the teacher too; each model is valued once.
    names = list(dict.fromkeys(_singles(run, (run.results["compare"]["teacher"], name))))
    models = run.models(names)
    return {each: _value(models[each], run, blocks, permutations) for each in names}


def _singles(run: Run, names: Iterable[str]) -> list[str]:
    """Returns the models, with its members in the place of each ensemble."""
    found = []
    for name in names:
        members = run.plan[name].members
        found += _singles(run, members) if members else [name]
    return found


def _value(
    model: TrainedModel, run: Run, blocks: int | None, permutations: int | None
) -> dict[str, Any]:
    source = run.context.datasets.splits["evaluation"]
    # The value of a subset is an accuracy, so rows without a label can't take part.
    rows = np.flatnonzero(source.labels >= 0)
    table = compute.outputs(model, source, replace(run.context, workdir=run.folder))
    pooled, weights, base = _linear(model, {key: column[rows] for key, column in table.items()})
    blocks = min(BLOCKS, pooled.shape[1]) if blocks is None else blocks
    if not 1 <= blocks <= pooled.shape[1]:
        raise ValueError(
            f"--blocks must be from 1 to {pooled.shape[1]}, the dimensions of {model.plan.name!r},"
            f" got {blocks}"
        )
    if permutations is None and blocks > EXACT_PLAYERS:
        raise ValueError(
            f"exact values are limited to {EXACT_PLAYERS} blocks, got {blocks}; sample them with"
            f" --permutations=N"
        )
    # `array_split` also takes a number of blocks that doesn't divide the dimensions.
    parts = np.array_split(np.arange(pooled.shape[1]), blocks)
    players = [str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts]
    mean = pooled.mean(axis=0)
    # A linear classifier adds up what each block says beyond its mean.
    says = {
        player: (pooled[:, part] - mean[part]) @ weights[part]
        for player, part in zip(players, parts, strict=True)
    }
    # With every dimension at its mean the classifier says the same of all examples.
    silent, labels = (
        np.broadcast_to(mean @ weights + base, (len(rows), len(base))),
        source.labels[rows],
    )

    def value(subset: frozenset) -> float:
        logits = sum((says[player] for player in players if player in subset), start=silent)
        return float(np.mean(logits.argmax(axis=1) == labels))

    # The game needs only sums of arrays; the network ran once, for all subsets.
    values, errors = shapley_values(
        value, players, permutations=permutations, seed=run.context.seed
    )
    return {
        "values": values,
        "standard_errors": errors,
        "all": value(frozenset(players)),
        "empty": value(frozenset()),
        "dimensions": pooled.shape[1],
        "permutations": permutations,
        "seed": run.context.seed,
    }


def _linear(
    model: TrainedModel, table: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns `pooled` [N, D], and kernel [D, K] and bias [K] that make logits of it, in
    float64.
    """
    # A module of the user's own may have no layer of that name.
    held = model.variables["params"].get("classifier", {})
    if "kernel" in held and "pooled" in table:
        pooled, kernel = (
            np.asarray(table["pooled"], np.float64),
            np.asarray(held["kernel"], np.float64),
        )
        bias = np.asarray(held.get("bias", np.zeros(kernel.shape[1])), np.float64)
        # Coarse dtypes round their logits, so how near is near enough depends on the dtype.
        logits, allowed = (
            np.asarray(table["logits"], np.float64),
            TOLERANCE.get(model.plan.dtype, 0.05),
        )
        if pooled.shape[1] == kernel.shape[0] and logits.shape[1] == kernel.shape[1]:
            # A head with hidden layers has a classifier too; only the numbers tell it apart.
            gap = np.abs(pooled @ kernel + bias - logits).max(initial=0)
            if gap <= allowed * max(1.0, np.abs(logits).max(initial=0)):
                return pooled, kernel, bias
    raise ValueError(
        f"the logits of {model.plan.name!r} aren't what one linear classifier makes of its 'pooled'"
        f" feature"
    )
