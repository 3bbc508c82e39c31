"""Metrics of a whole split, as scikit-learn and scipy define them; None where one is undefined.

The libraries are imported where they are used: a refusal shall not wait for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from scipy import special

from kd_jax.core.types import Mean


def mean(sums: Mean) -> float:
    """Computes a mean; a split without labels gives 0 instead of a division by zero."""
    return float(sums.total / max(float(sums.count), 1))


UNDEFINED_IS_ZERO: Any = {"zero_division": 0}
"""Of a precision, recall or F1 without positives."""

# Of one class an example: labels and predicted are [N] int.


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float | None:
    """Computes the mean F1 of the classes that are a label or a prediction somewhere."""
    from sklearn.metrics import f1_score

    if not len(labels):
        return None
    return float(f1_score(labels, predicted, average="macro", **UNDEFINED_IS_ZERO))


def positive_f1(labels: np.ndarray, predicted: np.ndarray, classes: int) -> float | None:
    """Computes the F1 of the second of two classes; without positives it is 0."""
    from sklearn.metrics import f1_score

    if classes != 2 or not len(labels):
        return None
    return float(f1_score(labels == 1, predicted == 1, **UNDEFINED_IS_ZERO))


def mcc(labels: np.ndarray, predicted: np.ndarray) -> float | None:
    """Computes Matthews' correlation coefficient; 0 where labels or predictions are constant."""
    from sklearn.metrics import matthews_corrcoef

    # scikit-learn warns of a single class before it returns 0 as well.
    if not len(labels):
        return None
    if len(np.unique(labels)) == 1 or len(np.unique(predicted)) == 1:
        return 0.0
    return float(matthews_corrcoef(labels, predicted))


@dataclass(frozen=True)
class ClassCounts:
    """What `macro_f1` and `mcc` are made of, a hundred times faster to count than they are: for
    the thousands of draws of a bootstrap.

    Attributes:
      labels: [K], examples of each class.
      predicted: [K], how often each class is predicted.
      right: [K], and rightly so.
    """

    labels: np.ndarray
    predicted: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, predicted: np.ndarray, classes: int) -> "ClassCounts":
        """Counts labels and predictions, both [N] int below K."""
        every = (labels, predicted, labels[labels == predicted])
        return cls(*(np.bincount(each, minlength=classes) for each in every))

    def macro_f1(self) -> float:
        """Computes `macro_f1`."""
        seen = (self.labels + self.predicted) > 0
        return float(np.mean((2 * self.right / (self.labels + self.predicted).clip(1))[seen]))

    def mcc(self) -> float:
        """Computes `mcc`, for K classes by Gorodkin (Comput. Biol. Chem. 28, 2004)."""
        labels, predicted, rows = self.labels / 1.0, self.predicted / 1.0, self.labels.sum()
        spread = (rows**2 - labels @ labels) * (rows**2 - predicted @ predicted)
        covariance = self.right.sum() * rows - labels @ predicted
        return float(covariance / sqrt(spread)) if spread else 0.0


def auroc(labels: np.ndarray, logits: np.ndarray) -> float | None:
    """Computes the area under the ROC curve, for K > 2 the mean over one class against the rest.

    Undefined where a class has no example, or logits rule classes out.
    """
    from sklearn.metrics import roc_auc_score

    classes = logits.shape[-1]
    if len(np.unique(labels)) < max(classes, 2) or not np.isfinite(logits).all():
        return None
    if classes == 2:
        return float(roc_auc_score(labels, logits[:, 1] - logits[:, 0]))
    probabilities = special.softmax(logits, axis=-1)
    scores = [roc_auc_score(labels == k, probabilities[:, k]) for k in range(classes)]
    return float(np.mean(scores))


def log_loss(labels: np.ndarray, logits: np.ndarray) -> float | None:
    """Computes the mean negative log-likelihood of the labels, in nats."""
    if not len(labels):
        return None
    found = -special.log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]
    # A class that was ruled out and is the label costs infinitely much, which no JSON can hold.
    return float(found.mean()) if np.isfinite(found).all() else None


def by_class(
    labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Computes precision, recall, F1 and support of each class; 0 where one is undefined."""
    from sklearn.metrics import precision_recall_fscore_support

    columns: Any = precision_recall_fscore_support(
        labels, predicted, labels=range(len(names)), **UNDEFINED_IS_ZERO
    )
    keys = ("precision", "recall", "f1", "rows")
    return {
        name: {key: column[k].item() for key, column in zip(keys, columns, strict=True)}
        for k, name in enumerate(names)
    }


def calibration(labels: np.ndarray, logits: np.ndarray, bins: int = 10) -> list[dict[str, Any]]:
    """Computes how sure a model is and how often it is right, in bins of equal width.

    Args:
      labels: [N] int.
      logits: [N, K].
      bins: of the probability of the predicted class; those without rows are left out.

    Returns:
      "confidence" and "accuracy", means over the "rows" of each bin.
    """
    sure = special.softmax(logits, axis=-1).max(axis=-1)
    right = logits.argmax(axis=-1) == labels
    place = np.minimum((sure * bins).astype(int), bins - 1)
    return [
        {
            "confidence": float(sure[there].mean()),
            "accuracy": float(right[there].mean()),
            "rows": int(there.sum()),
        }
        for there in (place == number for number in range(bins))
        if there.any()
    ]


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> list[list[int]]:
    """Counts examples by label and prediction."""
    from sklearn.metrics import confusion_matrix as count

    return count(labels, predicted, labels=range(classes)).tolist()


# Of a set of classes an example: labels and predicted are [N, K] bool.


def f1_of_sets(labels: np.ndarray, predicted: np.ndarray, average: str) -> float | None:
    """Computes F1, the mean over the classes ("macro") or over all decisions ("micro")."""
    from sklearn.metrics import f1_score

    if not len(labels):
        return None
    return float(_unweighted(f1_score)(labels, predicted, average=average))


def _unweighted(function: Any) -> Any:
    """Returns scikit-learn's function of [N, K], also of a single class."""

    def call(labels: np.ndarray, predicted: np.ndarray, average: str) -> Any:
        # Of one column scikit-learn would take 0 and 1 for two classes and average over both.
        if labels.shape[-1] == 1:
            return function(labels[:, 0], predicted[:, 0], **UNDEFINED_IS_ZERO)
        return function(labels, predicted, average=average, **UNDEFINED_IS_ZERO)

    return call


def mean_average_precision(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Computes the mean over the classes with an example of their average precision."""
    from sklearn.metrics import average_precision_score

    found = [
        average_precision_score(labels[:, k], scores[:, k])
        for k in range(labels.shape[-1])
        if labels[:, k].any()
    ]
    return float(np.mean(found)) if found and np.isfinite(scores).all() else None


def exact_set_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float | None:
    """Computes how often all classes are right."""
    return float((labels == predicted).all(axis=-1).mean()) if len(labels) else None


# Of numbers: labels and outputs are [N, R] float64.


def _mean_over_columns(labels: np.ndarray, outputs: np.ndarray, function: Any) -> float | None:
    pairs = list(zip(labels.T, outputs.T, strict=True))
    # Nothing is correlated with a constant, nor a single row with anything.
    if len(labels) < 2 or any(np.ptp(each) == 0 for pair in pairs for each in pair):
        return None
    found = float(np.mean([function(ours, theirs).statistic for theirs, ours in pairs]))
    return found if np.isfinite(found) else None


def spearman(labels: np.ndarray, outputs: np.ndarray) -> float | None:
    """Computes Spearman's rank correlation; undefined where one side is constant."""
    from scipy.stats import spearmanr

    return _mean_over_columns(labels, outputs, spearmanr)


def pearson(labels: np.ndarray, outputs: np.ndarray) -> float | None:
    """Computes Pearson's correlation; undefined where one side is constant."""
    from scipy.stats import pearsonr

    return _mean_over_columns(labels, outputs, pearsonr)


def rmse(labels: np.ndarray, outputs: np.ndarray) -> float | None:
    """Computes the root of the mean squared error, in the user's units."""
    if not len(labels):
        return None
    return float(np.mean(np.sqrt(np.mean((labels - outputs) ** 2, axis=0))))
