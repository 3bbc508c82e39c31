"""Finds poisoned rows, such as those of a backdoor, by spectral signatures."""

import numpy as np


def spectral_signatures(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores how far each row lies along the direction in which its class varies most.

    A trigger that a model learned moves the poisoned rows of a class along one direction of the
    features, where they stand out.

    Args:
      features: [N, D] of a model trained on these rows, such as its `pooled`.
      labels: [N] class numbers, -1 where unlabelled.

    Returns:
      [N] float64: squared projections of the features, centred in their class, on its top right
      singular vector; 0 where unlabelled. Compare them within a class.

    Raises:
      ValueError: for shapes that don't fit or features that aren't finite.

    References:
      Tran, Li, Madry. `Spectral Signatures in Backdoor Attacks
      <https://arxiv.org/abs/1811.00636>`_, 2018.
    """
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"features are [N, D] and labels [N], got {features.shape} and {labels.shape}"
        )
    if not np.isfinite(features).all():
        raise ValueError("features must be finite")
    scores = np.zeros(len(labels))
    for label in np.unique(labels[labels >= 0]):
        members = labels == label
        centred = features[members] - features[members].mean(axis=0)
        # The eigenvectors of the [D, D] product are the right singular vectors, without a
        # decomposition of all rows.
        _, vectors = np.linalg.eigh(centred.T @ centred)
        scores[members] = (centred @ vectors[:, -1]) ** 2
    return scores


def highest_in_class(scores: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """Picks the rows with the highest scores in each class.

    Args:
      scores: [N].
      labels: [N] class numbers, -1 where unlabelled.
      share: of each class's rows, in [0, 1]; rounded up. The paper takes 1.5 times the share of
        poison that is expected.

    Returns:
      [N] bool; False where unlabelled.

    Raises:
      ValueError: if `share` is out of range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, got {share}")
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == label)
        order = np.argsort(-scores[members], kind="stable")
        chosen[members[order[: int(np.ceil(share * len(members)))]]] = True
    return chosen
