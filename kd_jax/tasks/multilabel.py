"""A set of classes an example."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from kd_jax.core.types import Batch, Mean
from kd_jax.tasks import metrics
from kd_jax.tasks.labels import check_several, clean_label, list_counts, list_names, name_classes
from kd_jax.tasks.task import Rows, Task

log = logging.getLogger("kd_jax")

YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
"""What a column of a class holds, in any case."""


@dataclass(frozen=True)
class MultiLabel(Task):
    """A set of classes an example, of K that are there or not; outputs are log-odds [B, K].

    A table says it in several columns of 0 and 1, one a class; in one column of names between
    separators; or, in JSONL, as a list of names.

    Attributes:
      threshold: probability from which a class is predicted.
      separator: between names in one column.
    """

    name = "multilabel"
    metrics = ("macro_f1", "micro_f1", "mean_average_precision", "exact_set_accuracy")
    tabled = ("macro_f1", "micro_f1", "mean_average_precision", "exact_set_accuracy", "loss")
    hard_term = "binary_cross_entropy"
    soft_term = "binary_soft_target_kl"
    divergence = "teacher_kl"
    kind = "sets"
    problem_type = "multi_label_classification"

    threshold: float = field(default=0.5, kw_only=True)
    separator: str = field(default="|", kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"task.threshold must be above 0 and below 1, got {self.threshold}")
        if not self.separator.strip():
            raise ValueError("task.separator must not be empty or blank")

    def describe(self) -> dict[str, Any]:
        """Returns what a finished model writes down of its task."""
        return {"name": self.name, "threshold": self.threshold, "separator": self.separator}

    def read_label(self, record: Mapping[str, Any], columns: Sequence[str]) -> frozenset[str]:
        """Reads the names of the classes that are there; see `Task.read_label`."""
        if len(columns) > 1:
            return frozenset(column for column in columns if _is_there(record, column))
        value = record.get(columns[0])
        if isinstance(value, list):
            found = [clean_label({"": each}, "") for each in value]
        else:
            found = [each.strip() for each in clean_label(record, columns[0]).split(self.separator)]
        if "" in found:
            raise ValueError(f"an empty name in column {columns[0]!r}")
        return frozenset(found)

    def number(
        self,
        given: Sequence[Any],
        everyone: Iterable[Any],
        names: Sequence[str] | None,
        columns: Sequence[str],
        rows: Sequence[int],
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Writes a row of 0 and 1 for each set; see `Task.number`."""
        if names is None:
            several = len(columns) > 1
            names = columns if several else name_classes(n for each in everyone for n in each)
        position = {name: number for number, name in enumerate(names)}
        found = {name for each in given if each is not None for name in each}
        # Numbers of classes that have names, as in files that come with a list of them.
        if found and not found & {*names} and all(name.isdecimal() for name in found):
            position = {str(number): number for number in range(len(names))}
        labels = np.zeros((len(given), len(position)), np.float32)
        for row, (line, each) in enumerate(zip(rows, given, strict=True)):
            if each is None:
                labels[row] = np.nan
                continue
            for name in each:
                if name not in position:
                    raise ValueError(
                        f"label {name!r} (row {line}) is not among the classes"
                        f" {list_names(tuple(names))}"
                    )
                labels[row, position[name]] = 1
        return labels, tuple(names)

    def check_labels(self, labels: np.ndarray, names: Sequence[str], unlabelled: object) -> None:
        """Refuses classes of which nothing can be learned; see `Task.check_labels`."""
        if {*names} <= {"0", "1"}:
            raise ValueError(
                "data.label: the column holds 0 and 1 only; name the columns of all classes, or"
                " take task='classification' for one that is there or not"
            )
        check_several(names, unlabelled, len(labels))
        known = labels[np.isfinite(labels).all(axis=-1)]
        constant = [n for n, column in zip(names, known.T, strict=True) if len({*column}) < 2]
        if len(constant) == len(names):
            raise ValueError(
                f"data.label: every training row has the same classes; is the column right, and"
                f" task.separator, {self.separator!r}?"
            )
        if constant:
            log.warning("the classes %s are in all training rows or in none", list_names(constant))

    def tell_labels(self, labels: np.ndarray, names: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """Counts the rows of each class; see `Task.tell_labels`."""
        known = labels[np.isfinite(labels).all(axis=-1)]
        counts = dict(zip(names, known.sum(axis=0).astype(int).tolist(), strict=True))
        mean = float(known.sum(axis=-1).mean()) if len(known) else 0.0
        told = f"classes of {len(known)} training rows: {list_counts(counts)}; {mean:.2f} a row"
        return told, {"training_rows": counts, "classes_a_row": mean}

    def groups(self, labels: np.ndarray) -> np.ndarray:
        """Numbers the distinct sets; see `Task.groups`."""
        known = np.isfinite(labels).all(axis=-1)
        _, numbers = np.unique(np.nan_to_num(labels), axis=0, return_inverse=True)
        return np.where(known, numbers.reshape(-1), -1).astype(np.int32)

    def predict_row(self, outputs: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        """Tells the classes from the threshold on, and probabilities; see `Task.predict_row`."""
        found = special.expit(outputs)
        shown = {name: round(float(p), 6) for name, p in zip(names, found, strict=True)}
        labels = [name for name, p in zip(names, found, strict=True) if p >= self.threshold]
        return {"labels": labels, "probabilities": shown}

    def read_out(self, name: str) -> str:
        """Compares log-odds with the threshold's; see `Task.read_out`."""
        cut = float(special.logit(self.threshold))
        return f"print([[{name} for i, z in enumerate(row) if z >= {cut:.4g}] for row in logits])"

    def training_metrics(self, outputs: jax.Array, batch: Batch) -> dict[str, Mean]:
        """Sums how many classes are right; see `Task.training_metrics`."""
        counted = (batch.valid & batch.label_valid)[:, None]
        right = (self._predicted(outputs) == (jnp.asarray(batch.labels) >= 0.5)) & counted
        return {"right_classes": Mean(jnp.sum(right), jnp.sum(counted) * outputs.shape[-1])}

    def agreement(self, outputs: jax.Array, teacher: jax.Array) -> jax.Array:
        """Tells which share of the classes is predicted alike; see `Task.agreement`."""
        return jnp.mean(self._predicted(outputs) == self._predicted(teacher), axis=-1)

    def _predicted(self, outputs: Any) -> Any:
        # Compared as log-odds, as a sigmoid would round.
        return outputs >= special.logit(self.threshold)

    def summarize(self, sums: Mapping[str, Any], rows: Rows) -> dict[str, float | None]:
        """Computes all metrics; see `Task.summarize`."""
        del sums
        labels, predicted = rows.labels >= 0.5, self._predicted(rows.outputs)
        return {
            "macro_f1": metrics.f1_of_sets(labels, predicted, "macro"),
            "micro_f1": metrics.f1_of_sets(labels, predicted, "micro"),
            "mean_average_precision": metrics.mean_average_precision(labels, rows.outputs),
            "exact_set_accuracy": metrics.exact_set_accuracy(labels, predicted),
        }

    def details(self, rows: Rows, names: Sequence[str]) -> dict[str, Any]:
        """Tells how each class fares; see `Task.details`."""
        if not len(rows.labels):
            return {}
        labels, predicted = rows.labels >= 0.5, self._predicted(rows.outputs)
        return {"by_class": metrics.by_class(labels, predicted, names)}


def _is_there(record: Mapping[str, Any], column: str) -> bool:
    value = record.get(column)
    # JSON has numbers and booleans; JSON's own spelling of them is among the words below.
    word = value if isinstance(value, str) else json.dumps(value)
    told = word.strip().lower()
    if told in YES:
        return True
    if told in NO:
        return False
    raise ValueError(f"column {column!r} of a class must hold 0 or 1, got {value!r}")
