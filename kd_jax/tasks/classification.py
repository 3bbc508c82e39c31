"""One class an example."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from kd_jax.core.types import Batch, Mean, Sample
from kd_jax.tasks import metrics
from kd_jax.tasks.labels import (
    check_classes,
    clean_label,
    list_counts,
    name_classes,
    number_labels,
)
from kd_jax.tasks.task import Rows, Task

CALIBRATION_BINS = 15
"""Equal-width confidence bins, as in Guo et al. (https://arxiv.org/abs/1706.04599)."""

LARGEST_TABLE = 100
"""Classes up to which results.json holds a table of them and a confusion matrix."""


@dataclass(frozen=True)
class Classification(Task):
    """One class an example, of K that exclude one another; outputs are logits [B, K]."""

    name = "classification"
    metrics = (
        "accuracy",
        "macro_f1",
        "positive_f1",
        "mcc",
        "auroc",
        "log_loss",
        "ece",
    )
    tabled = ("accuracy", "loss", "ece")
    teachable = ("soft", "hard")
    mixes = True
    valued = True
    hard_term = "cross_entropy"
    soft_term = "soft_target_kl"
    softmax = True
    divergence = "teacher_kl"
    kind = "classes"
    problem_type = "single_label_classification"
    one_class = True
    feature = "class"

    def read_label(self, record: Mapping[str, Any], columns: Sequence[str]) -> str:
        """Reads a class's name or number, as text; see `Task.read_label`."""
        return clean_label(record, columns[0])

    def number(
        self,
        given: Sequence[Any],
        everyone: Iterable[Any],
        names: Sequence[str] | None,
        columns: Sequence[str],
        rows: Sequence[int],
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Numbers the classes by their names; see `Task.number`."""
        del columns
        known = tuple(names or name_classes(each for each in everyone if each is not None))
        return number_labels(given, known, rows), known

    def check_labels(self, labels: np.ndarray, names: Sequence[str], unlabelled: object) -> None:
        """Refuses what is no set of classes; see `Task.check_labels`."""
        counts = np.bincount(labels[labels >= 0], minlength=len(names))
        check_classes(names, counts.tolist(), unlabelled)

    def tell_labels(self, labels: np.ndarray, names: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """Counts the rows of each class; see `Task.tell_labels`."""
        found = np.bincount(labels[labels >= 0], minlength=len(names)).tolist()
        counts = dict(zip(names, found, strict=True))
        largest = max(counts, key=lambda name: counts[name])
        share = counts[largest] / max(sum(counts.values()), 1)
        told = (
            f"classes of the training rows: {list_counts(counts)}; always {largest!r} would"
            f" be right for {100 * share:.2f} %"
        )
        return told, {"training_rows": counts, "largest_share": share}

    def groups(self, labels: np.ndarray) -> np.ndarray:
        """Returns the classes; see `Task.groups`."""
        return labels

    def sureness(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the probability of the likeliest class; see `Task.sureness`."""
        return np.asarray(jax.nn.softmax(outputs)).max(axis=-1)

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """Returns the entropy of the classes; see `Task.entropy`."""
        # `entr` gives 0 for a probability of 0, where p * log(p) would be NaN.
        return jnp.sum(jax.scipy.special.entr(jax.nn.softmax(outputs)), axis=-1)

    def teach(self, outputs: np.ndarray, labels: str, temperature: float) -> np.ndarray:
        """Returns distributions, one-hot ones for hard labels; see `Task.teach`."""
        soft = np.asarray(jax.nn.softmax(outputs / temperature), np.float32)
        # One-hot rows keep one format for both kinds of labels.
        if labels == "hard":
            soft = np.eye(soft.shape[1], dtype=np.float32)[soft.argmax(axis=1)]
        return soft

    def predict_row(self, outputs: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        """Tells the likeliest class and all probabilities; see `Task.predict_row`."""
        found = special.softmax(outputs)
        # Rounded for readers; the label comes from the exact values.
        shown = {name: round(float(p), 6) for name, p in zip(names, found, strict=True)}
        return {"label": names[int(np.argmax(found))], "probabilities": shown}

    def training_metrics(self, outputs: jax.Array, batch: Batch) -> dict[str, Mean]:
        """Sums the accuracy; see `Task.training_metrics`."""
        return {"accuracy": accuracy(outputs, batch)}

    def sums(self, outputs: jax.Array, batch: Batch) -> dict[str, Any]:
        """Sums accuracy and calibration; see `Task.sums`."""
        return {
            "accuracy": accuracy(outputs, batch),
            "calibration": calibration_sums(outputs, batch),
        }

    def agreement(self, outputs: jax.Array, teacher: jax.Array) -> jax.Array:
        """Tells whether the predictions are equal; see `Task.agreement`."""
        return jnp.argmax(outputs, axis=-1) == jnp.argmax(teacher, axis=-1)

    def summarize(self, sums: Mapping[str, Any], rows: Rows) -> dict[str, float | None]:
        """Computes all metrics; see `Task.summarize`."""
        labels, predicted = _classes(rows), rows.outputs.argmax(axis=-1)
        return {
            "accuracy": metrics.mean(sums["accuracy"]),
            "ece": calibration_error(sums["calibration"]),
            "macro_f1": metrics.macro_f1(labels, predicted),
            "positive_f1": metrics.positive_f1(labels, predicted, rows.outputs.shape[-1]),
            "mcc": metrics.mcc(labels, predicted),
            "auroc": metrics.auroc(labels, rows.outputs),
            "log_loss": metrics.log_loss(labels, rows.outputs),
        }

    def right(self, rows: Rows) -> np.ndarray | None:
        """Returns which predictions are right, for the accuracy; see `Task.right`."""
        if self.primary != "accuracy":
            return None
        return rows.outputs.argmax(axis=-1) == _classes(rows)

    def sample(self, rows: Rows) -> Sample | None:
        """Knows all metrics but the calibration error; see `Task.sample`."""
        labels, outputs, predicted = _classes(rows), rows.outputs, rows.outputs.argmax(axis=-1)
        right, classes = predicted == labels, outputs.shape[-1]

        def counts(i: np.ndarray) -> metrics.ClassCounts:
            return metrics.ClassCounts.of(labels[i], predicted[i], classes)

        known: dict[str, Callable[[np.ndarray], float | None]] = {
            "accuracy": lambda i: float(right[i].mean()),
            "macro_f1": lambda i: counts(i).macro_f1(),
            "positive_f1": lambda i: metrics.positive_f1(labels[i], predicted[i], classes),
            "mcc": lambda i: counts(i).mcc(),
            "auroc": lambda i: metrics.auroc(labels[i], outputs[i]),
            "log_loss": lambda i: metrics.log_loss(labels[i], outputs[i]),
        }
        value = known.get(self.primary)
        return None if value is None else Sample(len(labels), value)

    def errors(self, rows: Rows) -> np.ndarray:
        """Returns minus the log probability of each label; see `Task.errors`."""
        labels = _classes(rows)
        return -special.log_softmax(rows.outputs, axis=-1)[np.arange(len(labels)), labels]

    def tell_row(self, place: int, rows: Rows, names: Sequence[str]) -> tuple[str, str]:
        """Says a class, and how likely it is; see `Task.tell_row`."""
        found = special.softmax(rows.outputs[place])
        best = int(found.argmax())
        return names[int(_classes(rows)[place])], f"{names[best]}, {100 * found[best]:.0f} %"

    def details(self, rows: Rows, names: Sequence[str]) -> dict[str, Any]:
        """Tells how sure and right it is, and how each class fares, of up to `LARGEST_TABLE`; see
        `Task.details`."""
        if not len(rows.labels):
            return {}
        labels, predicted = _classes(rows), rows.outputs.argmax(axis=-1)
        found = {"calibration": metrics.calibration(labels, rows.outputs)}
        if len(names) > LARGEST_TABLE:
            return found
        return found | {
            "by_class": metrics.by_class(labels, predicted, names),
            # Row: the label; column: what was predicted.
            "confusion_matrix": metrics.confusion_matrix(labels, predicted, len(names)),
        }

    def blind(self, labels: np.ndarray, width: int) -> np.ndarray:
        """Returns logits of a uniform guess; see `Task.blind`."""
        del labels
        return np.zeros(width)

    def worth_of_a_guess(self, labels: np.ndarray, width: int) -> float:
        """Draws the class where the accuracy counts; see `Task.worth_of_a_guess`."""
        if self.primary == "accuracy":
            return 1 / width
        return super().worth_of_a_guess(labels, width)

    def guess(self, labels: np.ndarray) -> tuple[str, float, float] | None:
        """Returns the share of the largest class; see `Task.guess`."""
        labels = labels[labels >= 0]
        share = float(np.bincount(labels).max() / len(labels))
        return "accuracy", share, 2 * sqrt(share * (1 - share) / len(labels))


CLASSIFICATION = Classification()
"""The task where none is named."""


def _classes(rows: Rows) -> np.ndarray:
    # Of a soft label the largest class counts.
    return rows.labels if rows.labels.ndim == 1 else rows.labels.argmax(axis=-1)


def accuracy(logits: jax.Array, batch: Batch) -> Mean:
    """Returns how often the largest logit is the label's, over labelled examples.

    Args:
      logits: `[B, K]`.
      batch: its labels are classes [B], or distributions [B, K] whose largest class counts.
    """
    # Mixed examples have soft labels; their largest class stands for the label.
    labels = batch.labels if batch.labels.ndim == 1 else jnp.argmax(batch.labels, axis=-1)
    counted = batch.valid & batch.label_valid
    return Mean(jnp.sum((jnp.argmax(logits, axis=-1) == labels) & counted), jnp.sum(counted))


def calibration_sums(logits: jax.Array, batch: Batch) -> jax.Array:
    """Returns [bins, 3]: examples, sum of confidences and number right, by bin of confidence."""
    # Padding and examples without a label have no right answer, so they count in no bin.
    probabilities = jax.nn.softmax(logits)
    confidence = jnp.max(probabilities, axis=-1)
    # Of a soft label the largest class is the right one.
    labels = batch.labels if batch.labels.ndim == 1 else jnp.argmax(batch.labels, axis=-1)
    counted = (batch.valid & batch.label_valid).astype(logits.dtype)
    right = (jnp.argmax(logits, axis=-1) == labels) * counted
    # Bins are open on the left, so a confidence of exactly 1 falls into the last one.
    bins = jnp.clip(
        jnp.ceil(confidence * CALIBRATION_BINS).astype(jnp.int32) - 1, 0, CALIBRATION_BINS - 1
    )
    columns = jnp.stack([counted, confidence * counted, right], axis=-1)
    return jax.ops.segment_sum(columns, bins, num_segments=CALIBRATION_BINS)


def calibration_error(sums: np.ndarray) -> float:
    """Computes the expected calibration error in 0..1 from `calibration_sums` added up over a
    split.
    """
    examples = sums[:, 0].sum()
    return float(np.abs(sums[:, 1] - sums[:, 2]).sum() / examples) if examples else 0.0
