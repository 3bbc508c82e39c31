"""Finds labels that a model's predictions contradict, by confident learning."""

import numpy as np


def find_label_errors(
    probabilities: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores how suspect each label is and picks those that the class thresholds contradict.

    The threshold of a class is the mean probability of that class among the rows labelled with it.
    A row belongs to the likeliest of the classes whose threshold its probability reaches; where
    that is not the label, the row stands off the diagonal of the paper's confident joint.

    Args:
      probabilities: [N, K] of a model that wasn't trained on these labels: held out in
        cross-validation, or a teacher from elsewhere. Rows sum to 1.
      labels: [N] class numbers, -1 where unlabelled.

    Returns:
      Scores [N] float64 in [0, 1], larger for more suspect labels: half of 1 plus the likeliest
      other class's probability minus the label's (0 where unlabelled); and [N] bool, the rows off
      the diagonal.

    Raises:
      ValueError: for shapes that don't fit, rows that are no distribution, or labels outside the
        classes.

    References:
      Northcutt, Jiang, Chuang. `Confident Learning: Estimating Uncertainty in Dataset Labels
      <https://arxiv.org/abs/1911.00068>`_, 2021.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    _check(probabilities, labels)
    # Unlabelled rows borrow class 0 as their index, so that all rows index at once; `labelled`
    # keeps them out of every result.
    labelled, own = labels >= 0, np.maximum(labels, 0)
    classes = probabilities.shape[1]
    rows = np.arange(len(labels))
    totals = np.bincount(labels[labelled], probabilities[rows, own][labelled], classes)
    counts = np.bincount(labels[labelled], minlength=classes)
    # No row can belong to a class without labels. And if all rows of a class have one probability,
    # rounding must not lift its mean above them, hence the 1e-9.
    thresholds = np.where(counts > 0, totals / np.maximum(counts, 1) - 1e-9, np.inf)
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    suspects = (
        labelled & (reached.max(axis=1, initial=-1.0) >= 0) & (reached.argmax(axis=1) != labels)
    )
    others = probabilities.copy()
    others[rows, own] = -1.0
    scores = (1 + others.max(axis=1) - probabilities[rows, own]) / 2
    return np.where(labelled, scores, 0.0), suspects


def _check(probabilities: np.ndarray, labels: np.ndarray) -> None:
    if (
        probabilities.ndim != 2
        or labels.shape != probabilities.shape[:1]
        or probabilities.shape[1] < 2
    ):
        raise ValueError(
            "probabilities are [N, K] of at least two classes and labels [N],"
            f" got {probabilities.shape} and {labels.shape}"
        )
    if labels.dtype.kind not in "iu" or (
        len(labels) and not -1 <= labels.min() <= labels.max() < probabilities.shape[1]
    ):
        raise ValueError(f"labels are class numbers from 0 to {probabilities.shape[1] - 1}, or -1")
    if not (np.all(probabilities >= 0) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)):
        raise ValueError(
            "probabilities must not be negative and must sum to 1 in each row; logits need a"
            " softmax"
        )
