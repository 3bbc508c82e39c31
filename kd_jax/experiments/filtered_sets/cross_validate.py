"""What a judge says of every training row: as it is, or as models like it that haven't seen the row
would."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from kd_jax.data.source import Source
from kd_jax.data.subsets import relabel
from kd_jax.experiments.train_models import obtain
from kd_jax.teachers import compute
from kd_jax.teachers.ensemble import without_labels
from kd_jax.training.context import RunContext
from kd_jax.training.trained_model import TrainedModel

log = logging.getLogger("kd_jax")


def ask(judge: TrainedModel, context: RunContext) -> compute.Table:
    """Asks the scoring model for `logits` [N, K], and its other vectors, on the training split."""
    # A judge that chooses by the label would agree with every wrong one.
    return compute.outputs(
        judge, context.datasets.splits["train"], context, network=without_labels(judge.network)
    )


def ask_held_out(
    judge: TrainedModel, folds: int, seed: int, folder: Path, context: RunContext
) -> np.ndarray:
    """Computes logits [N, K] of every training row by a model that learned from the other folds
    only.

    Each model starts from the judge's own initial weights and takes as many steps as it did.

    Args:
      judge: its plan is trained anew, `folds` times.
      folds: how many parts the rows are divided into at random, at most as many as there are rows.
      seed: of the division.
      folder: where the models are trained; a model that is finished there isn't trained again.
      context: data and devices.

    Raises:
      Interrupted: after SIGTERM; the same call goes on.
    """
    train = context.datasets.splits["train"]
    # The remainder of a permutation gives folds of equal size, give or take one row.
    fold_of = np.random.default_rng(seed).permutation(len(train)) % folds
    logits = np.zeros((len(train), len(train.class_names)), np.float32)
    for fold in range(folds):
        held_out = fold_of == fold
        label = f"fold {fold + 1} of {folds}"
        # A folder for each fold, so that a stopped call finds those that are finished.
        elsewhere = context.within(folder / label.replace(" ", "_"))
        elsewhere.workdir.mkdir(parents=True, exist_ok=True)
        log.info(
            "%s, trained anew to judge the rows that it isn't given: %s", judge.plan.name, label
        )
        with _added(_part(train, ~held_out, f"without {label}"), context) as name:
            # Only the data differs from the judge's own training.
            plan = replace(judge.plan, restore=None, data=(name,))
            model = obtain([plan], {}, elsewhere)[plan.name]
        part = _part(train, held_out, label)
        logits[held_out] = compute.outputs(model, part, elsewhere)["logits"]
        # The prepared rows of a fold would otherwise stay in memory until the run ends.
        context.datasets.forget(part)
    return logits


@contextmanager
def _added(source: Source, context: RunContext) -> Iterator[str]:
    """Makes a source known to the datasets for a while, under the name that is given back."""
    context.datasets.add_set(source.name, source)
    # Taken out after an interruption too, as the same name is added again later.
    try:
        yield source.name
    finally:
        context.datasets.remove_set(source.name)


def _part(train: Source, chosen: np.ndarray, label: str) -> Source:
    rows = np.flatnonzero(chosen)
    return replace(
        relabel(train, rows, train.labels[rows], train.class_names),
        name=f"{train.name} {label}",
        rows=(),
    )
