import numpy as np
import pytest

from kd_jax.data.cleaning.confident_learning import find_label_errors


def test_rows_off_the_confident_joint_by_hand():
    probabilities = np.array(
        [[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9], [0.9, 0.1]]
    )
    labels = np.array([0, 0, 0, 1, 1, 1])
    # Thresholds: (0.9 + 0.7 + 0.2) / 3 = 0.6 for class 0, (0.6 + 0.9 + 0.1) / 3 = 0.533 for class
    # 1.
    scores, suspects = find_label_errors(probabilities, labels)
    assert suspects.tolist() == [False, False, True, False, False, True]
    np.testing.assert_allclose(scores, [0.1, 0.3, 0.8, 0.4, 0.1, 0.9])


def test_the_threshold_is_the_class_own_so_a_shy_class_is_not_suspected():
    # Class 1 gets 0.4 at most even where it is right; the likeliest class would be 0 everywhere.
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 4)
    labels = np.array([0] * 4 + [1] * 4)
    _, suspects = find_label_errors(probabilities, labels)
    assert not suspects.any()
    labels[4] = (
        0  # Now that row looks like class 1 and reaches its threshold, but not that of class 0.
    )
    _, suspects = find_label_errors(probabilities, labels)
    assert suspects.tolist() == [False] * 4 + [True] + [False] * 3


def test_flipped_labels_are_found_among_uncertain_ones():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 2_000)
    logits = rng.normal(size=(2_000, 5)) + 4 * np.eye(5)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    flipped = rng.random(2_000) < 0.1
    labels = np.where(flipped, (truth + rng.integers(1, 5, 2_000)) % 5, truth)
    scores, suspects = find_label_errors(probabilities, labels)
    assert (suspects & flipped).sum() >= 0.8 * flipped.sum()
    assert (suspects & flipped).sum() >= 0.8 * suspects.sum()
    assert (scores[flipped][:, None] > scores[~flipped]).mean() > 0.98


def test_unlabelled_rows_neither_count_nor_are_suspected():
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [1.0, 0.0]])
    scores, suspects = find_label_errors(probabilities, np.array([0, 1, -1]))
    assert not suspects.any()
    np.testing.assert_allclose(scores, [0.1, 0.1, 0])


def test_a_class_without_labels_claims_no_row():
    _, suspects = find_label_errors(np.array([[0.1, 0.9], [0.2, 0.8]]), np.array([0, 0]))
    assert not suspects.any()


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (
            np.ones((2, 1)),
            [0, 0],
            r"\[N, K\] of at least two classes and labels \[N\], got \(2, 1\) and \(2,\)",
        ),
        (np.full((2, 2), 0.5), [0], r"got \(2, 2\) and \(1,\)"),
        (np.full((2, 2), 0.5), [0, 2], "class numbers from 0 to 1"),
        (np.full((2, 2), 0.5), [0.0, 1.0], "class numbers from 0 to 1"),
        (np.array([[2.0, -1.0]]), [0], "logits need a softmax"),
        (np.array([[np.nan, 1.0]]), [0], "sum to 1"),
    ],
)
def test_bad_arguments_are_refused(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        find_label_errors(probabilities, np.array(labels))
