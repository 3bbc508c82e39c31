"""A tag a word."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from kd_jax.core.types import Batch, Mean, Sample
from kd_jax.tasks import entities, metrics
from kd_jax.tasks.entities import OUTSIDE
from kd_jax.tasks.labels import check_classes, list_counts, name_classes, number_labels
from kd_jax.tasks.task import Rows, Task


@dataclass(frozen=True)
class Tagging(Task):
    """One tag a word, of K that exclude one another; outputs are logits [B, P, K] of P words.

    Models read pieces of words and predict at the first piece of each. A word that was cut off has
    no prediction and counts as one of no entity.

    Attributes:
      tags: [K] names of the outputs; empty before the data are known.
    """

    name = "tagging"
    metrics = ("entity_f1", "token_accuracy")
    tabled = ("entity_f1", "token_accuracy", "loss")
    hard_term = "cross_entropy"
    soft_term = "soft_target_kl"
    softmax = True
    divergence = "teacher_kl"
    kind = "classes"
    problem_type = None
    one_class = False
    words = True
    teachable = ("hard",)
    predicts = "token"

    tags: tuple[str, ...] = field(default=(), kw_only=True)

    def read_label(self, record: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
        """Reads a list of tags, or tags between spaces; see `Task.read_label`."""
        column = columns[0]
        value = record.get(column)
        tags = value.split() if isinstance(value, str) else value
        if not isinstance(tags, list) or not tags:
            raise ValueError(f"column {column!r} must hold a list of tags, got {value!r}")
        for number, tag in enumerate(tags, 1):
            if not isinstance(tag, str) or not tag.strip():
                raise ValueError(f"tag {number} of column {column!r} is no text but {tag!r}")
        return tuple(tag.strip() for tag in tags)

    def check_row(self, text: str, label: Any) -> None:
        """Compares the numbers of words and tags; see `Task.check_row`."""
        words = len(text.split(" "))
        if label is not None and len(label) != words:
            raise ValueError(f"{len(label)} tags for {words} words")

    def number(
        self,
        given: Sequence[Any],
        everyone: Iterable[Any],
        names: Sequence[str] | None,
        columns: Sequence[str],
        rows: Sequence[int],
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Numbers the tags by their names, a row a sentence; see `Task.number`."""
        del columns
        known = tuple(names or name_classes(tag for each in everyone for tag in each))
        longest = max((len(each) for each in given if each is not None), default=1)
        labels = np.full((len(given), longest), -1, np.int32)
        for row, (line, each) in enumerate(zip(rows, given, strict=True)):
            if each is not None:
                labels[row, : len(each)] = number_labels(each, known, [line] * len(each))
        return labels, known

    def check_labels(self, labels: np.ndarray, names: Sequence[str], unlabelled: object) -> None:
        """Refuses what is no set of tags; see `Task.check_labels`."""
        counts = np.bincount(labels[labels >= 0], minlength=len(names))
        check_classes(names, counts.tolist(), () if unlabelled is None else unlabelled)

    def tell_labels(self, labels: np.ndarray, names: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """Counts the words of each tag; see `Task.tell_labels`."""
        found = np.bincount(labels[labels >= 0], minlength=len(names)).tolist()
        counts = dict(zip(names, found, strict=True))
        rows = int((labels >= 0).any(axis=-1).sum())
        told = f"tags of the words of {rows} training rows: {list_counts(counts)}"
        return told, {"training_rows": rows, "words": counts}

    def fitted(self, labels: np.ndarray, names: Sequence[str]) -> Self:
        """Returns the task with the names of its tags; see `Task.fitted`."""
        del labels
        return dataclasses.replace(self, tags=tuple(names))

    def groups(self, labels: np.ndarray) -> np.ndarray:
        """Numbers the distinct sequences of tags; see `Task.groups`."""
        _, numbers = np.unique(labels, axis=0, return_inverse=True)
        return np.where((labels >= 0).any(axis=-1), numbers.reshape(-1), -1).astype(np.int32)

    def sureness(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the probability of the least sure word's tag; see `Task.sureness`."""
        best = special.softmax(outputs, axis=-1).max(axis=-1)
        return np.where(np.isnan(best), 1, best).min(axis=-1)

    def teach(self, outputs: np.ndarray, labels: str, temperature: float) -> np.ndarray:
        """Returns each word's likeliest tag, -1 where it was cut off; see `Task.teach`."""
        del labels, temperature
        there = ~np.isnan(outputs).any(axis=-1)
        return np.where(there, np.nan_to_num(outputs).argmax(axis=-1), -1).astype(np.int32)

    def counted(self, batch: Batch) -> jax.Array:
        """Returns [B, P], which words have a label and a prediction; see `Task.counted`."""
        return self.compared(batch) & (jnp.asarray(batch.labels) >= 0)

    def compared(self, batch: Batch) -> jax.Array:
        """Returns [B, P], which words there are; see `Task.compared`."""
        return jnp.asarray(batch.valid)[..., None] & jnp.asarray(batch.positions)

    def predict_row(self, outputs: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        """Tells each word's likeliest tag and its probability, None for words that were cut off.

        Args:
          outputs: [W, K] float64, NaN where there is none.
          names: [K].
        """
        found = special.softmax(outputs, axis=-1)
        there = ~np.isnan(found).any(axis=-1)
        best = np.where(there, np.nan_to_num(found).argmax(axis=-1), -1)
        return {
            "tags": [None if k < 0 else names[k] for k in best.tolist()],
            "probabilities": [
                None if k < 0 else round(float(row[k]), 6)
                for row, k in zip(found, best.tolist(), strict=True)
            ],
        }

    def read_out(self, name: str) -> str:
        """Prints a tag a token; see `Task.read_out`."""
        return f"print([[{name} for i in row] for row in logits.argmax(-1)])"

    def training_metrics(self, outputs: jax.Array, batch: Batch) -> dict[str, Mean]:
        """Sums the share of words that are right; see `Task.training_metrics`."""
        return {"token_accuracy": self._accuracy(outputs, batch)}

    def sums(self, outputs: jax.Array, batch: Batch) -> dict[str, Any]:
        """Sums likewise; see `Task.sums`."""
        return {"token_accuracy": self._accuracy(outputs, batch)}

    def _accuracy(self, outputs: jax.Array, batch: Batch) -> Mean:
        # A word that was cut off counts too, as one of no entity.
        outside = self.tags.index(OUTSIDE) if OUTSIDE in self.tags else -1
        labels = jnp.asarray(batch.labels)
        found = jnp.where(jnp.asarray(batch.positions), jnp.argmax(outputs, axis=-1), outside)
        counted = jnp.asarray(batch.valid)[..., None] & (labels >= 0)
        return Mean(jnp.sum((found == labels) & counted), jnp.sum(counted))

    def agreement(self, outputs: jax.Array, teacher: jax.Array) -> jax.Array:
        """Tells of which words the tags are equal; see `Task.agreement`."""
        return jnp.argmax(outputs, axis=-1) == jnp.argmax(teacher, axis=-1)

    def rows(self, outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns tags instead of logits, -1 for words that were cut off; see `Task.rows`."""
        there = jnp.asarray(batch.positions)
        return jnp.where(there, jnp.argmax(outputs, axis=-1), -1), jnp.asarray(batch.labels)

    def summarize(self, sums: Mapping[str, Any], rows: Rows) -> dict[str, float | None]:
        """Computes both metrics; see `Task.summarize`."""
        counts = list(self._count(rows).values())
        total = {key: sum(each[key] for each in counts) for key in ("right", "predicted", "rows")}
        return {
            "entity_f1": entities.scores(total)["f1"] if len(rows.labels) else None,
            "token_accuracy": metrics.mean(sums["token_accuracy"]) if len(rows.labels) else None,
        }

    def errors(self, rows: Rows) -> np.ndarray:
        """Counts the wrong words of each sentence; see `Task.errors`."""
        wrong = self._found(rows) != rows.labels
        return (wrong & (rows.labels >= 0)).sum(axis=-1).astype(np.float64)

    def tell_row(self, place: int, rows: Rows, names: Sequence[str]) -> tuple[str, str]:
        """Says the tags word by word, a dot for what is no entity; see `Task.tell_row`."""
        there = rows.labels[place] >= 0
        label, found = (
            " ".join(
                "·" if k < 0 or names[int(k)] == OUTSIDE else names[int(k)]
                for k in each[place][there]
            )
            for each in (rows.labels, self._found(rows))
        )
        return label, found

    def _found(self, rows: Rows) -> np.ndarray:
        # A word that was cut off counts as one of no entity.
        outside = self.tags.index(OUTSIDE) if OUTSIDE in self.tags else -1
        return np.where(rows.outputs < 0, outside, rows.outputs)

    def sample(self, rows: Rows) -> Sample:
        """Draws sentences; see `Task.sample`."""
        if self.primary == "token_accuracy":
            words = (rows.labels >= 0).sum(axis=-1)
            right = words - self.errors(rows)
            return Sample(len(words), lambda i: float(right[i].sum() / words[i].sum()))
        # Counted once a sentence: an F1 is of sums.
        each = []
        for row in range(len(rows.labels)):
            one = Rows(rows.outputs[row : row + 1], rows.labels[row : row + 1])
            counts = self._count(one).values()
            each.append([sum(c[key] for c in counts) for key in ("right", "predicted", "rows")])
        table = np.array(each, np.int64).reshape(-1, 3)

        def f1(drawn: np.ndarray) -> float:
            right, predicted, wanted = table[drawn].sum(axis=0).tolist()
            return 2 * right / (predicted + wanted) if predicted + wanted else 0.0

        return Sample(len(table), f1)

    def _count(self, rows: Rows) -> dict[str, dict[str, int]]:
        # A word that was cut off is predicted to be outside; one without a label is no word.
        names = (*self.tags, OUTSIDE)
        wanted, found = [], []
        for labels, predicted in zip(rows.labels, rows.outputs, strict=True):
            there = labels >= 0
            wanted.append([names[k] for k in labels[there]])
            found.append([names[int(k)] for k in predicted[there]])
        return entities.count(wanted, found)

    def details(self, rows: Rows, names: Sequence[str]) -> dict[str, Any]:
        """Tells how each type of entity fares; see `Task.details`."""
        del names
        counts = self._count(rows)
        return {"by_class": {kind: entities.scores(each) for kind, each in counts.items()}}

    def guess(self, labels: np.ndarray) -> tuple[str, float, float] | None:
        """Returns the share of the commonest tag; see `Task.guess`."""
        words = labels[labels >= 0]
        share = float(np.bincount(words).max() / len(words))
        return "token_accuracy", share, 2 * sqrt(share * (1 - share) / len(words))
