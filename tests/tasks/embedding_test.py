"""A vector a text: pairs and their scores, and what is measured against a teacher."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics.pairwise import cosine_similarity

from kd_jax.data.source import each_apart
from kd_jax.tasks import Rows, make_task

TASK = make_task("embedding")


def rows_of(pairs=12, width=5, seed=0, teacher=None):
    """Texts of pairs, the two of a pair side by side."""
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(2 * pairs, width))
    scores = np.repeat(rng.normal(size=pairs), 2)[:, None]
    teachers = {} if teacher is None else {"t": teacher}
    return Rows(outputs, scores, np.arange(2 * pairs), teachers), outputs, scores


def test_a_pairs_cosine_is_compared_with_its_score():
    rows, outputs, scores = rows_of()
    cosines = [cosine_similarity(outputs[[i]], outputs[[i + 1]]).item() for i in range(0, 24, 2)]
    found = TASK.summarize({}, rows)
    assert found["spearman"] == pytest.approx(stats.spearmanr(scores[::2, 0], cosines).statistic)
    assert found["pearson"] == pytest.approx(stats.pearsonr(scores[::2, 0], cosines).statistic)
    assert found["teacher_cosine"] is None
    assert found["recall_at_1"] is None


def test_a_teacher_is_compared_text_by_text_and_neighbour_by_neighbour():
    _, outputs, _ = rows_of()
    # A rotation and any lengths leave all neighbours as they are.
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    for teacher, cosine in ((3 * outputs, 1.0), (outputs @ rotation, None)):
        found = TASK.summarize({}, rows_of(teacher=teacher)[0])
        assert found["recall_at_1"] == 1.0
        wanted = np.mean(np.diag(cosine_similarity(outputs, teacher))) if cosine is None else cosine
        assert found["teacher_cosine"] == pytest.approx(wanted)


def test_neighbours_are_those_of_all_other_texts():
    rng = np.random.default_rng(2)
    teacher = rng.normal(size=(24, 7))
    found = TASK.summarize({}, rows_of(teacher=teacher)[0])
    _, outputs, _ = rows_of()
    nearest = []
    for vectors in (outputs, teacher):
        cosines = cosine_similarity(vectors)
        np.fill_diagonal(cosines, -np.inf)
        nearest.append(cosines.argmax(axis=1))
    assert found["recall_at_1"] == pytest.approx(np.mean(nearest[0] == nearest[1]))
    # Of vectors of two widths no cosine is defined.
    assert found["teacher_cosine"] is None


def test_equal_texts_are_no_neighbours_of_one_another():
    teacher = np.repeat(np.eye(3)[:, :2] + 0.1, 2, axis=0)
    rows = Rows(teacher, np.full((6, 1), np.nan), np.arange(6), {"t": teacher})
    found = TASK.summarize({}, rows)
    assert found["recall_at_1"] == 1.0
    assert found["spearman"] is None


def test_vectors_of_zeros_and_constant_cosines_give_no_numbers_that_are_none():
    rows = Rows(np.zeros((4, 3)), np.array([[0.0], [0], [1], [1]]), np.arange(4), {})
    assert TASK.summarize({}, rows)["spearman"] is None


def test_each_text_of_a_pair_is_an_example_and_a_text_alone_has_no_score():
    inputs, labels, rows = each_apart([("a", "b"), ("c", "d")], [(1.0,), None], [2, 5])
    assert (inputs, rows) == (["a", "b", "c", "d"], [2, 2, 5, 5])
    numbers, names = TASK.number(labels, labels, None, ("score",), rows)
    np.testing.assert_array_equal(numbers[:, 0], [1, 1, np.nan, np.nan])
    assert names == ("embedding",)
    assert each_apart(["a"], [(1.0,)], [1])[1] == [None]


def test_labels_are_needed_where_they_choose_models():
    assert TASK.needs_labels
    assert not make_task("embedding", "teacher_cosine").needs_labels


def test_scores_that_are_all_equal_are_refused():
    with pytest.raises(ValueError, match="all pairs have the same score"):
        TASK.check_labels(np.ones((4, 1), np.float32), (), None)
    TASK.check_labels(np.full((4, 1), np.nan, np.float32), (), None)


def test_a_prediction_is_the_vector():
    assert TASK.predict_row(np.array([0.25, -1.0]), ()) == {"embedding": [0.25, -1.0]}
