"""Which parts of an example teacher and student rest on, and whether they are the same ones."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from kd_jax.analysis.attribution import Attribution, attribute, draw_permutations
from kd_jax.core.rng import stream
from kd_jax.core.types import Array, Batch
from kd_jax.data.run_datasets import Datasets
from kd_jax.explain.patches_and_tokens import PatchesAndTokens, one_example, split, views_of
from kd_jax.explain.run import Run
from kd_jax.teachers.ensemble import without_labels
from kd_jax.training.progress import StepProgress
from kd_jax.training.trained_model import TrainedModel

ROWS = 64
"""Masked examples that go through a network at a time."""
APART = "they read other tokens (tokenizer or length), which can't be compared one by one"


@dataclass(frozen=True)
class Piece:
    """A model that is asked, and the parts that it is asked about."""

    model: TrainedModel
    parts: PatchesAndTokens
    ask: Callable[..., Attribution]


def attribute_examples(run: Run, name: str, examples: int, permutations: int) -> dict[str, Any]:
    """Attributions of the first evaluation examples, of the compared teacher and a model, by the
    same permutations.

    Args:
      run: the run.
      name: the model's.
      examples: how many.
      permutations: orders of joining to sample for each example, reverses included.

    Returns:
      What stands in explain.json under "attributions": the class whose logit is attributed is the
      one that the teacher predicts. "cosine" is None where two models' parts differ, and for an
      attribution of zero. An ensemble whose members read different tokens is asked member by
      member.

    Raises:
      ValueError: if there are fewer examples, an odd number or fewer than 4 of permutations, or
        only one model.
    """
    teacher, source = run.results["compare"]["teacher"], run.context.datasets.splits["evaluation"]
    # Compared with itself a model gives a cosine of 1, which tells nothing.
    if name == teacher:
        raise ValueError(
            f"{name!r} is the compared teacher itself; --model names whom to set beside it"
        )
    if not 1 <= examples <= len(source):
        raise ValueError(
            f"--examples must be from 1 to {len(source)}, the evaluation split's, got {examples}"
        )
    # Permutations come in pairs with their reverses, which lowers the variance.
    if permutations < 4 or permutations % 2:
        raise ValueError(
            f"--permutations come in pairs, of which an error needs two: got {permutations}"
        )
    models = run.models((teacher, name))
    sides = [_pieces(models[side], models, run.context.datasets) for side in (teacher, name)]
    found = []
    with closing(
        StepProgress("attributions", total_steps=examples, start=0, batch_size=1)
    ) as progress:
        for index in range(examples):
            found.append(_example(run, index, (models[teacher], models[name]), sides, permutations))
            progress.advance(index + 1)
            if (index + 1) % max(1, examples // 10) == 0:
                progress.report(index + 1, {})
    parts = next(iter(sides[0].values())).parts
    pairs = {ours: list(sides[1]) for ours in sides[0]}
    cosines = {
        a: {b: _mean(each["cosine"][a][b] for each in found) for b in others}
        for a, others in pairs.items()
    }
    # A missing cosine needs an explanation beside it, else it looks like a mistake.
    apart = any(not _alike(a, b) for a in sides[0].values() for b in sides[1].values())
    return {
        "teacher": teacher,
        "model": name,
        "split": "evaluation",
        "permutations": permutations,
        "players": parts.kind,
        "grid": parts.grid,
        "cosine": cosines,
        "cosine_note": APART if apart else None,
        "examples": found,
    }


def _pieces(
    model: TrainedModel, models: Mapping[str, TrainedModel], datasets: Datasets
) -> dict[str, Piece]:
    """Returns the model; in its place, if it is an ensemble of several tokenizers, its members."""
    if datasets.modality == "text" and len(views_of(model)) > 1:
        inner = [_pieces(models[member], models, datasets) for member in model.plan.members]
        return {name: piece for pieces in inner for name, piece in pieces.items()}
    # Patches of all models share one grid, so they can be compared; tokens are each model's own.
    views = views_of(*models.values()) if datasets.modality == "image" else views_of(model)
    parts, network = split(views, datasets), without_labels(model.network)

    # Compiled by model, and not by example: only a text of another length compiles again.
    @jax.jit
    def ask(batch: Batch, classes: Array, permutations: Array) -> Attribution:
        def logits_of(shown):
            return network(model.variables, shown).logits

        return attribute(logits_of, parts.masking, batch, classes, permutations, rows=ROWS)

    return {model.plan.name: Piece(model, parts, ask)}


def _alike(one: Piece, other: Piece) -> bool:
    return one.parts.views.keys() == other.parts.views.keys()


def _example(
    run: Run,
    index: int,
    pair: tuple[TrainedModel, TrainedModel],
    sides: list[dict[str, Piece]],
    permutations: int,
):
    datasets, names = run.context.datasets, run.class_names
    label = int(datasets.splits["evaluation"].labels[index])
    predicted = {model.plan.name: _predict(model, datasets, index) for model in pair}
    # Both are asked about the teacher's class, else the two attributions had different meanings.
    classes = np.array([predicted[pair[0].plan.name]])
    values: dict[str, Any] = {}
    for name, piece in {**sides[0], **sides[1]}.items():
        batch = one_example(datasets, piece.parts.views, index)
        # One key an example: where the parts are the same, so are the permutations.
        drawn = draw_permutations(
            stream(run.context.seed, "explain", index), piece.parts.count(batch), permutations // 2
        )
        # Padding tokens get values as well, which are cut off before anybody sees them.
        tokens = piece.parts.tokens(datasets, batch)
        shown = slice(None) if tokens is None else slice(len(tokens))
        found = jax.tree.map(
            lambda leaf, shown=shown: np.asarray(leaf)[0][shown], piece.ask(batch, classes, drawn)
        )
        values[name] = {"values": found.values.tolist(), "standard_errors": found.errors.tolist()}
        values[name] |= {} if tokens is None else {"tokens": tokens}
    return {
        "example": index,
        "label": names[label] if label >= 0 else None,
        "class": names[classes[0]],
        "predictions": {name: names[number] for name, number in predicted.items()},
        "attributions": values,
        "cosine": {
            a: {
                b: _cosine(values[a], values[b]) if _alike(sides[0][a], sides[1][b]) else None
                for b in sides[1]
            }
            for a in sides[0]
        },
    }


def _predict(model: TrainedModel, datasets: Datasets, index: int) -> int:
    batch = one_example(datasets, views_of(model), index)
    return int(np.argmax(without_labels(model.network)(model.variables, batch).logits))


def _cosine(one: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
    ours, theirs = np.array(one["values"]), np.array(other["values"])
    # A vector of zeros has no direction, and the division would give NaN.
    length = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float(ours @ theirs) / length if length else None


def _mean(values: Any) -> float | None:
    # An example without a cosine says nothing, so it must not pull the mean towards 0.
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
