"""A set of classes an example."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from kd_jax.core.types import Batch, Mean, Sample
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
      threshold: probability from which a class is predicted; "tuned": for each class the one with
        the best F1 on the selection split, each model's own.
      thresholds: [K] one a class, in place of `threshold`; found where it is "tuned".
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
    teachable = ("soft", "hard")
    mixes = True
    valued = True
    # Of many rare classes a model that begins at one half learns nothing else for hundreds of steps
    # (Lin et al. `Focal Loss for Dense Object Detection <https://arxiv.org/abs/1708.02002>`_).
    starts_blind = True

    threshold: float | Literal["tuned"] = field(default=0.5, kw_only=True)
    thresholds: tuple[float, ...] | None = field(default=None, kw_only=True)
    separator: str = field(default="|", kw_only=True)

    def __post_init__(self) -> None:
        given = () if self.threshold == "tuned" else (self.threshold,)
        for each in (*given, *(self.thresholds or ())):
            if isinstance(each, str) or not 0 < each < 1:
                key = "threshold" if given == (each,) else "thresholds"
                raise ValueError(f"task.{key} must be above 0 and below 1, got {each!r}")
        if not self.separator.strip():
            raise ValueError("task.separator must not be empty or blank")

    def describe(self) -> dict[str, Any]:
        """Returns what a finished model writes down of its task."""
        told = {"name": self.name, "threshold": self.threshold, "separator": self.separator}
        return told if self.thresholds is None else told | {"thresholds": self.thresholds}

    def fitted(self, labels: np.ndarray, names: Sequence[str]) -> Self:
        """Compares the number of thresholds with that of classes; see `Task.fitted`."""
        del labels
        if self.thresholds is not None and len(self.thresholds) != len(names):
            raise ValueError(
                f"task.thresholds has {len(self.thresholds)} numbers, and the data"
                f" {len(names)} classes: {list_names(tuple(names))}"
            )
        return self

    @property
    def tunes(self) -> bool:
        """Returns whether thresholds are still to be found."""
        return self.threshold == "tuned" and self.thresholds is None

    def tuned(self, rows: Rows) -> Self:
        """Returns the task with each class's best threshold; see `Task.tuned`."""
        if not self.tunes or not len(rows.labels):
            return self
        cuts = [best_cut(y >= 0.5, z) for y, z in zip(rows.labels.T, rows.outputs.T, strict=True)]
        return replace(self, thresholds=tuple(float(p) for p in special.expit(cuts)))

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

    def sureness(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the probability of the least sure class; see `Task.sureness`."""
        return special.expit(np.abs(outputs)).min(axis=-1)

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """Returns the sum of the classes' entropies; see `Task.entropy`."""
        both = jax.nn.sigmoid(jnp.stack([outputs, -outputs]))
        return jnp.sum(jax.scipy.special.entr(both), axis=(0, -1))

    def teach(self, outputs: np.ndarray, labels: str, temperature: float) -> np.ndarray:
        """Returns each class's probability, or which classes are there; see `Task.teach`."""
        if labels == "hard":
            return np.asarray(self._predicted(outputs), np.float32)
        return np.asarray(special.expit(outputs / temperature), np.float32)

    def predict_row(self, outputs: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        """Tells the classes from the threshold on, and probabilities; see `Task.predict_row`."""
        found = special.expit(outputs)
        shown = {name: round(float(p), 6) for name, p in zip(names, found, strict=True)}
        there = self._predicted(outputs[None])[0]
        labels = [name for name, known in zip(names, there, strict=True) if known]
        return {"labels": labels, "probabilities": shown}

    def read_out(self, name: str) -> str:
        """Compares log-odds with the threshold's; see `Task.read_out`."""
        if self.thresholds is None:
            cut = f"{float(self._cuts()):.4g}"
            return f"print([[{name} for i, z in enumerate(row) if z >= {cut}] for row in logits])"
        cuts = [float(f"{cut:.4g}") for cut in self._cuts()[0].tolist()]
        found = f"[{name} for i, z in enumerate(row) if z >= {cuts}[i]]"
        return f"print([{found} for row in logits])"

    def training_metrics(self, outputs: jax.Array, batch: Batch) -> dict[str, Mean]:
        """Sums how many classes are right; see `Task.training_metrics`."""
        counted = (batch.valid & batch.label_valid)[:, None]
        right = (self._predicted(outputs) == (jnp.asarray(batch.labels) >= 0.5)) & counted
        return {"right_classes": Mean(jnp.sum(right), jnp.sum(counted) * outputs.shape[-1])}

    def agreement(self, outputs: jax.Array, teacher: jax.Array) -> jax.Array:
        """Tells which share of the classes is predicted alike; see `Task.agreement`."""
        return jnp.mean(self._predicted(outputs) == self._predicted(teacher), axis=-1)

    def _predicted(self, outputs: Any) -> Any:
        return outputs >= self._cuts()

    def _cuts(self) -> Any:
        """Returns the log-odds from which classes are predicted: one number, or [1, K]."""
        # Compared as log-odds, as a sigmoid would round.
        if self.thresholds is not None:
            return special.logit(np.array(self.thresholds))[None]
        return special.logit(0.5 if self.threshold == "tuned" else self.threshold)

    def summarize(self, sums: Mapping[str, Any], rows: Rows) -> dict[str, float | None]:
        """Computes all metrics; see `Task.summarize`."""
        del sums
        # Where nothing was found yet, these rows are the selection split's.
        labels, predicted = rows.labels >= 0.5, self.tuned(rows)._predicted(rows.outputs)
        return {
            "macro_f1": metrics.f1_of_sets(labels, predicted, "macro"),
            "micro_f1": metrics.f1_of_sets(labels, predicted, "micro"),
            "mean_average_precision": metrics.mean_average_precision(labels, rows.outputs),
            "exact_set_accuracy": metrics.exact_set_accuracy(labels, predicted),
        }

    def right(self, rows: Rows) -> np.ndarray | None:
        """Returns which sets are right as a whole, where that is counted; see `Task.right`."""
        if self.primary != "exact_set_accuracy":
            return None
        return (self._predicted(rows.outputs) == (rows.labels >= 0.5)).all(axis=-1)

    def sample(self, rows: Rows) -> Sample:
        """Knows all metrics; see `Task.sample`."""
        labels, predicted = rows.labels >= 0.5, self._predicted(rows.outputs)
        known: dict[str, Callable[[np.ndarray], float | None]] = {
            "macro_f1": lambda i: float(np.mean(_f1(labels[i], predicted[i]))),
            "micro_f1": lambda i: float(_f1(labels[i].ravel(), predicted[i].ravel())),
            "mean_average_precision": lambda i: metrics.mean_average_precision(
                labels[i], rows.outputs[i]
            ),
            "exact_set_accuracy": lambda i: metrics.exact_set_accuracy(labels[i], predicted[i]),
        }
        return Sample(len(labels), known[self.primary])

    def errors(self, rows: Rows) -> np.ndarray:
        """Returns each row's mean binary cross-entropy; see `Task.errors`."""
        z, y = rows.outputs, rows.labels
        return np.mean(np.logaddexp(0, z) - y * z, axis=-1)

    def tell_row(self, place: int, rows: Rows, names: Sequence[str]) -> tuple[str, str]:
        """Says which classes are there; see `Task.tell_row`."""
        sets = (rows.labels[place] >= 0.5, self._predicted(rows.outputs[place][None])[0])
        label, found = (
            ", ".join(name for name, there in zip(names, each, strict=True) if there) or "none"
            for each in sets
        )
        return label, found

    def blind(self, labels: np.ndarray, width: int) -> np.ndarray:
        """Returns the log-odds of each class's share of the examples; see `Task.blind`."""
        del width
        # Half an example more and less keeps a class of none or all of them finite.
        return special.logit((labels.sum(axis=0) + 0.5) / (len(labels) + 1))

    def details(self, rows: Rows, names: Sequence[str]) -> dict[str, Any]:
        """Tells how each class fares; see `Task.details`."""
        if not len(rows.labels):
            return {}
        labels, predicted = rows.labels >= 0.5, self._predicted(rows.outputs)
        found = {"by_class": metrics.by_class(labels, predicted, names)}
        if self.thresholds is None:
            return found
        return found | {"thresholds": dict(zip(names, self.thresholds, strict=True))}


def _f1(labels: np.ndarray, predicted: np.ndarray) -> Any:
    """Returns the F1 of each column, 0 without positives; faster than scikit-learn's."""
    both = labels.sum(axis=0) + predicted.sum(axis=0)
    return 2 * (labels & predicted).sum(axis=0) / np.maximum(both, 1)


def best_cut(labels: np.ndarray, outputs: np.ndarray) -> float:
    """Finds the log-odds from which predicting a class has the greatest F1.

    It lies halfway between two outputs; of several as good the highest. Where no example has the
    class it is 0, a probability of 0.5.

    Args:
      labels: [N] bool.
      outputs: [N] log-odds.
    """
    positives = int(labels.sum())
    if not positives:
        return 0.0
    order = np.argsort(-outputs, kind="stable")
    ranked, right = outputs[order], np.cumsum(labels[order])
    f1 = 2 * right / (np.arange(1, len(order) + 1) + positives)
    # Equal outputs are predicted alike, so a cut can only lie after the last of them.
    f1[:-1][ranked[:-1] == ranked[1:]] = -1
    last = int(np.argmax(f1))
    below = ranked[last + 1] if last + 1 < len(ranked) else ranked[last] - 1
    return float((ranked[last] + below) / 2)


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
