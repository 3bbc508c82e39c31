"""Metrics of a whole split, as scikit-learn and scipy define them; None where one is undefined.

The libraries are imported where they are used: a refusal shall not wait for them."""

from collections.abc import Sequence
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


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> list[list[int]]:
    """Counts examples by label and prediction."""
    from sklearn.metrics import confusion_matrix as count

    return count(labels, predicted, labels=range(classes)).tolist()
