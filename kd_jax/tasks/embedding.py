"""A vector a text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.core.types import Batch, Mean, Sample
from kd_jax.tasks import metrics
from kd_jax.tasks.numbers import read_number, stack_numbers
from kd_jax.tasks.task import Rows, Task

LARGEST_SEARCH = 5_000
"""Texts of a split among which nearest neighbours are sought; of more, the first ones."""


@dataclass(frozen=True)
class Embedding(Task):
    """A vector a text, outputs [B, D]: texts that mean the same have a cosine near 1.

    Models learn from a teacher's vectors alone, and need no labels. Where texts come in pairs with
    a score, the cosines of the pairs are compared with it.
    """

    name = "embedding"
    metrics = ("spearman", "pearson", "teacher_cosine", "recall_at_1")
    tabled = ("spearman", "teacher_cosine", "recall_at_1")
    hard_term = None
    soft_term = "cosine_distance"
    soft_options = MappingProxyType({"student": "pooled", "teacher": "pooled", "mapping": None})
    divergence = None
    kind = "vectors"
    problem_type = None
    feature = "number"
    mixes = True
    predicts = "embedding"
    apart = True
    named = False
    meets_teachers = True

    @property
    def needs_labels(self) -> bool:
        """Returns whether models are chosen by the scores of pairs."""
        return self.primary in ("spearman", "pearson")

    def read_label(self, record: Mapping[str, Any], columns: Sequence[str]) -> tuple[float, ...]:
        """Reads a pair's score; see `Task.read_label`."""
        return tuple(read_number(record.get(column), column) for column in columns[:1])

    def number(
        self,
        given: Sequence[Any],
        everyone: Iterable[Any],
        names: Sequence[str] | None,
        columns: Sequence[str],
        rows: Sequence[int],
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Stacks the scores; see `Task.number`."""
        del everyone, names, columns, rows
        return stack_numbers(given, 1), ("embedding",)

    def check_labels(self, labels: np.ndarray, names: Sequence[str], unlabelled: object) -> None:
        """Refuses scores that are all equal; see `Task.check_labels`."""
        del names, unlabelled
        known = labels[np.isfinite(labels)]
        if len(known) and len({*known.tolist()}) < 2:
            raise ValueError("data.label: all pairs have the same score; say data.label=None")

    def tell_labels(self, labels: np.ndarray, names: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """Counts the texts, whose labels nothing learns from; see `Task.tell_labels`."""
        del names
        return f"{len(labels)} texts to learn from", {"training_rows": len(labels)}

    def groups(self, labels: np.ndarray) -> np.ndarray:
        """Returns 0 for all: nothing contradicts a text's equal; see `Task.groups`."""
        return np.zeros(len(labels), np.int32)

    def kept(self, batch: Batch) -> jax.Array:
        """Returns all texts, with and without a score; see `Task.kept`."""
        return jnp.asarray(batch.valid)

    def predict_row(self, outputs: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        """Tells the vector; see `Task.predict_row`."""
        del names
        return {"embedding": [float(f"{value:.7g}") for value in outputs]}

    def read_out(self, name: str) -> str:
        """Prints the numbers; see `Task.read_out`."""
        del name
        return "print(logits.tolist())"

    def training_metrics(self, outputs: jax.Array, batch: Batch) -> dict[str, Mean]:
        """Sums nothing; see `Task.training_metrics`."""
        del outputs, batch
        return {}

    def summarize(self, sums: Mapping[str, Any], rows: Rows) -> dict[str, float | None]:
        """Computes all metrics; see `Task.summarize`."""
        del sums
        outputs = _scaled(rows.outputs)
        pairs, cosines = _pairs(rows)
        teacher = next(iter(rows.teachers.values()), None)
        return {
            "spearman": metrics.spearman(pairs, cosines) if len(pairs) else None,
            "pearson": metrics.pearson(pairs, cosines) if len(pairs) else None,
            "teacher_cosine": None if teacher is None else _cosine(outputs, _scaled(teacher)),
            "recall_at_1": None if teacher is None else _recall(outputs, _scaled(teacher)),
        }

    def sample(self, rows: Rows) -> Sample | None:
        """Draws pairs for the correlations, and texts for the cosine; see `Task.sample`."""
        if self.primary == "teacher_cosine":
            teacher = next(iter(rows.teachers.values()), None)
            if teacher is None or teacher.shape != rows.outputs.shape:
                return None
            cosines = np.sum(_scaled(rows.outputs) * _scaled(teacher), axis=-1)
            return Sample(len(cosines), lambda i: float(cosines[i].mean()))
        if self.primary == "recall_at_1":
            return None
        pairs, cosines = _pairs(rows)
        function = {"spearman": metrics.spearman, "pearson": metrics.pearson}[self.primary]
        return Sample(len(pairs), lambda i: function(pairs[i], cosines[i]))


def _pairs(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores [N, 1] of pairs, and the cosines [N, 1] of their texts."""
    outputs, scores = _scaled(rows.outputs), rows.labels[:, 0]
    known = np.isfinite(scores)
    # The texts of a pair follow one another and share its score.
    cosines = np.sum(outputs[known][::2] * outputs[known][1::2], axis=-1)
    return scores[known][::2, None], cosines[:, None]


def _scaled(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def _cosine(outputs: np.ndarray, teacher: np.ndarray) -> float | None:
    """Computes the mean cosine of a text's two vectors; undefined in spaces of different widths."""
    if outputs.shape != teacher.shape or not len(outputs):
        return None
    return float(np.mean(np.sum(outputs * teacher, axis=-1)))


def _recall(outputs: np.ndarray, teacher: np.ndarray) -> float | None:
    """Computes how often the nearest other text is the teacher's nearest one, too."""
    # A text that stands there twice would be its own neighbour.
    _, first = np.unique(teacher, axis=0, return_index=True)
    chosen = np.sort(first)[:LARGEST_SEARCH]
    if len(chosen) < 2:
        return None
    nearest = []
    for vectors in (outputs[chosen], teacher[chosen]):
        found = []
        # In blocks, as all cosines at once would take the square of the texts.
        for start in range(0, len(vectors), 512):
            cosines = vectors[start : start + 512] @ vectors.T
            cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -np.inf
            found.append(cosines.argmax(axis=-1))
        nearest.append(np.concatenate(found))
    return float(np.mean(nearest[0] == nearest[1]))
