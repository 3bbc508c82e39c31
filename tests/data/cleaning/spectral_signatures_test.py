import numpy as np
import pytest

from kd_jax.data.cleaning.spectral_signatures import highest_in_class, spectral_signatures


def test_scores_are_squared_projections_on_the_first_singular_vector():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 5)), np.arange(60) % 3
    scores = spectral_signatures(features, labels)
    for label in range(3):
        centred = features[labels == label] - features[labels == label].mean(axis=0)
        _, _, right = np.linalg.svd(centred)
        np.testing.assert_allclose(scores[labels == label], (centred @ right[0]) ** 2, rtol=1e-9)


def test_poisoned_rows_of_one_class_stand_out_in_it():
    rng = np.random.default_rng(1)
    labels = np.arange(1_000) % 2
    features = rng.normal(size=(1_000, 32)) + 50 * labels[:, None]
    poisoned = np.flatnonzero(labels == 1)[:40]
    features[poisoned] += 12 * rng.normal(size=32) / np.sqrt(32)
    scores = spectral_signatures(features, labels)
    chosen = highest_in_class(scores, labels, 1.5 * 40 / 500)
    assert chosen[poisoned].mean() > 0.95
    assert chosen.sum() == 120


def test_a_shift_or_another_order_of_columns_changes_nothing():
    rng = np.random.default_rng(2)
    features, labels = rng.normal(size=(40, 4)), np.arange(40) % 2
    scores = spectral_signatures(features, labels)
    np.testing.assert_allclose(
        spectral_signatures(features[:, ::-1] + 7, labels), scores, rtol=1e-8
    )


def test_unlabelled_rows_score_zero_and_are_not_chosen():
    features = np.random.default_rng(3).normal(size=(10, 3))
    labels = np.array([0] * 5 + [-1] * 5)
    scores = spectral_signatures(features, labels)
    assert (scores[5:] == 0).all()
    np.testing.assert_array_equal(scores[:5], spectral_signatures(features[:5], labels[:5]))
    assert highest_in_class(scores, labels, 1.0).tolist() == [True] * 5 + [False] * 5


def test_a_share_is_of_each_class_rounded_up_and_keeps_the_order_of_equals():
    scores, labels = np.array([5.0, 1, 9, 3, 3, 3]), np.array([0, 0, 0, 1, 1, 1])
    assert highest_in_class(scores, labels, 0.34).tolist() == [True, False, True, True, True, False]
    assert not highest_in_class(scores, labels, 0.0).any()


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.ones(3), [0] * 3, r"\[N, D\] and labels \[N\], got \(3,\) and \(3,\)"),
        (np.ones((3, 2)), [0], r"got \(3, 2\) and \(1,\)"),
        (np.array([[np.nan]]), [0], "must be finite"),
    ],
)
def test_bad_features_are_refused(features, labels, message):
    with pytest.raises(ValueError, match=message):
        spectral_signatures(features, np.array(labels))


def test_a_bad_share_is_refused():
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        highest_in_class(np.ones(2), np.zeros(2, int), 1.5)
