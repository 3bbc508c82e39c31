r"""What confident learning and spectral signatures find on digits, beside removing rows at random.

  uv run benchmarks/cleaning_quality.py [--seeds=3]

Labels: 10 % of the labels of scikit-learn's digits are flipped to another class at random;
  probabilities come from
logistic regression in 5-fold cross-validation. Poison: 5 or 10 % of the rows of one class are those
of another with a trigger, a bright corner of 2x2 pixels; features are the hidden units of a small
network trained on all rows.
The budget, how many rows are removed, is fixed beforehand: as many as labels were flipped; of the
class that was attacked 1.5 times the poison, as in the paper."""

import argparse
import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.neural_network import MLPClassifier

from kd_jax.data.cleaning import find_label_errors, highest_in_class, spectral_signatures

FLIPPED, POISONED = 0.1, (0.05, 0.1)
SOURCE, TARGET, FEARED = 3, 7, 1.5
"""Class that is poisoned, class it is labelled as, and the budget in multiples of the poison."""


def flip_labels(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images [N, 64] in 0..1, labels [N] of which some are wrong, and which [N]."""
    rng = np.random.default_rng(seed)
    images, labels = load_digits(return_X_y=True)
    wrong = np.zeros(len(labels), bool)
    wrong[rng.choice(len(labels), round(FLIPPED * len(labels)), replace=False)] = True
    return (
        images / 16,
        np.where(wrong, (labels + rng.integers(1, 10, len(labels))) % 10, labels),
        wrong,
    )


def poison(seed: int, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same with a backdoor: the poisoned rows are added to class `TARGET`."""
    rng = np.random.default_rng(seed)
    images, labels = load_digits(return_X_y=True)
    count = round(share * (labels == TARGET).sum() / (1 - share))
    chosen = rng.choice(np.flatnonzero(labels == SOURCE), count, replace=False)
    bad = images[chosen].reshape(-1, 8, 8)
    bad[:, -2:, -2:] = 16
    kept = np.setdiff1d(np.arange(len(labels)), chosen)
    images = np.concatenate([images[kept], bad.reshape(-1, 64)]) / 16
    return (
        images,
        np.append(labels[kept], np.full(count, TARGET)),
        np.arange(len(images)) >= len(kept),
    )


def hidden_units(images: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """[N, 64] activations of a network that was trained on these rows."""
    network = MLPClassifier(
        (64,),
        max_iter=100,
        alpha=1e-3,
        random_state=seed,
        early_stopping=False,
        tol=0.0,
        n_iter_no_change=100,
        learning_rate_init=3e-3,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That it stops after 100 epochs is meant.
        network.fit(images, labels)
    return np.maximum(images @ network.coefs_[0] + network.intercepts_[0], 0)


def rate(chosen: np.ndarray, scores: np.ndarray | None, bad: np.ndarray) -> list[float]:
    """Precision, recall, AUROC in percent; the AUROC of no scores is a half."""
    hits = (chosen & bad).sum()
    auroc = 0.5 if scores is None else roc_auc_score(bad, scores)
    return [100 * hits / chosen.sum(), 100 * hits / bad.sum(), 100 * float(auroc)]


def choose_at_random(among: np.ndarray, count: int, seed: int) -> np.ndarray:
    chosen = np.zeros(len(among), bool)
    chosen[
        np.random.default_rng(1_000 + seed).choice(np.flatnonzero(among), count, replace=False)
    ] = True
    return chosen


def try_labels(seed: int) -> dict[str, list[float]]:
    images, labels, wrong = flip_labels(seed)
    probabilities = cross_val_predict(
        LogisticRegression(max_iter=1_000), images, labels, cv=5, method="predict_proba"
    )
    scores, suspects = find_label_errors(probabilities, labels)
    budget = np.zeros(len(labels), bool)
    budget[np.argsort(-scores, kind="stable")[: wrong.sum()]] = True
    return {
        "labels, highest scores": rate(budget, scores, wrong),
        "labels, off the confident joint": rate(suspects, scores, wrong),
        "labels, at random": rate(
            choose_at_random(np.ones(len(labels), bool), wrong.sum(), seed), None, wrong
        ),
    }


def try_poison(seed: int, share: float) -> dict[str, list[float]]:
    images, labels, bad = poison(seed, share)
    scores = spectral_signatures(hidden_units(images, labels, seed), labels)
    members = labels == TARGET
    chosen = highest_in_class(scores, labels, FEARED * bad.sum() / members.sum()) & members
    random = choose_at_random(members, chosen.sum(), seed)
    return {
        f"{share:.0%} poison, highest in the class": rate(
            chosen[members], scores[members], bad[members]
        ),
        f"{share:.0%} poison, at random": rate(random[members], None, bad[members]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    trials = [try_labels(seed) for seed in range(parser.parse_args().seeds)]
    for seed, trial in enumerate(trials):
        for share in POISONED:
            trial |= try_poison(seed, share)
    title = f"mean ± standard deviation of {len(trials)} seeds, %"
    print(f"{title:44}{'precision':>16}{'recall':>16}{'AUROC':>16}")
    for name in trials[0]:
        values = np.array([trial[name] for trial in trials])
        cells = "".join(
            f"{f'{mean:.1f} ± {std:.1f}':>16}"
            for mean, std in zip(values.mean(0), values.std(0), strict=True)
        )
        print(f"{name:44}{cells}")


if __name__ == "__main__":
    main()
