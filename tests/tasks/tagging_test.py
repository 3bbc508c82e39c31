"""A tag a word: how rows say it, what is counted, and what a prediction says."""

import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.core.types import Batch
from kd_jax.tasks import Rows, make_task

TASK = make_task("tagging")
NAMES = ("B-x", "I-x", "O")
FITTED = TASK.fitted(np.zeros((1, 1), np.int32), NAMES)


def batch_of(labels, positions):
    """A batch whose last row only fills it up."""
    labels = np.asarray(labels, np.int32)
    valid = np.arange(len(labels)) < len(labels) - 1
    known = (labels >= 0).any(axis=-1) & valid
    there = np.asarray(positions, bool)
    return Batch(np.arange(len(labels)), {}, labels, known, valid, there)


# Rows


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(["O", "B-x"], ("O", "B-x")), ("O  B-x", ("O", "B-x")), ([" O "], ("O",))],
)
def test_tags_are_a_list_or_stand_between_spaces(value, wanted):
    assert TASK.read_label({"tags": value}, ("tags",)) == wanted


@pytest.mark.parametrize("value", [None, "", [], [1], ["O", ""], 3, {"O": 1}])
def test_what_are_no_tags_is_refused(value):
    with pytest.raises(ValueError, match="tag"):
        TASK.read_label({"tags": value}, ("tags",))


def test_a_row_has_as_many_tags_as_words():
    TASK.check_row("two words", ("O", "O"))
    TASK.check_row("two words", None)
    with pytest.raises(ValueError, match="3 tags for 2 words"):
        TASK.check_row("two words", ("O", "O", "O"))


def test_tags_are_numbered_by_name_and_short_rows_filled_up():
    given = [("O", "B-x"), ("O",), None]
    labels, names = TASK.number(given, given[:2], None, ("tags",), (1, 2, 3))
    assert names == ("B-x", "O")
    assert labels.tolist() == [[1, 0], [1, -1], [-1, -1]]
    with pytest.raises(ValueError, match=r"label 'I-y' \(row 7\) is not among the classes"):
        TASK.number([("I-y",)], (), NAMES, ("tags",), (7,))


def test_equal_words_with_other_tags_contradict_each_other():
    groups = TASK.groups(np.array([[0, 1], [0, 2], [0, 1], [-1, -1]], np.int32))
    assert groups[0] == groups[2] != groups[1]
    assert groups[3] == -1


# Metrics


def test_words_that_were_cut_off_count_as_outside_and_padding_nowhere():
    labels = [[0, 1, 2, 0], [2, -1, -1, -1], [0, 0, 0, 0]]
    # The last two words of the first row have no prediction.
    batch = batch_of(labels, [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    outputs = jnp.eye(3)[jnp.array([[0, 1, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0]])]
    rows = [np.asarray(each)[:2] for each in FITTED.rows(outputs, batch)]
    found = FITTED.summarize(FITTED.sums(outputs, batch), Rows(*rows))
    # Of two entities one is found; of five words the fourth, cut off, is wrong.
    assert found["entity_f1"] == pytest.approx(2 * 1 / (1 + 2))
    assert found["token_accuracy"] == pytest.approx(4 / 5)
    assert FITTED.counted(batch).tolist() == [
        [True, True, False, False],
        [True, False, False, False],
        [False] * 4,
    ]
    details = FITTED.details(Rows(*rows), NAMES)["by_class"]
    assert details["x"] == {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "rows": 2}


def test_without_entities_f1_is_zero_and_of_no_rows_undefined():
    outside = Rows(np.full((2, 3), 2), np.full((2, 3), 2))
    sums = {"token_accuracy": FITTED.training_metrics(jnp.zeros((1, 1, 3)), _empty())}
    sums = {"token_accuracy": sums["token_accuracy"]["token_accuracy"]}
    assert FITTED.summarize(sums, outside)["entity_f1"] == 0.0
    nothing = Rows(np.zeros((0, 3)), np.zeros((0, 3)))
    assert FITTED.summarize(sums, nothing) == {"entity_f1": None, "token_accuracy": None}


def _empty():
    return batch_of([[-1]], [[0]])


# Predictions


def test_a_prediction_names_each_words_tag_and_none_where_it_was_cut_off():
    outputs = np.array([[9.0, 0, 0], [0, 0, 9.0], [np.nan] * 3])
    answer = TASK.predict_row(outputs, NAMES)
    assert answer["tags"] == ["B-x", "O", None]
    assert answer["probabilities"][2] is None
    assert answer["probabilities"][0] > 0.99


def test_a_teacher_gives_each_word_it_has_read_a_tag_and_is_as_sure_as_of_the_least_sure_one():
    task = make_task("tagging")
    outputs = np.array([[[3.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [np.nan, np.nan]]])
    assert task.teach(outputs, "hard", 1.0).tolist() == [[0, 1], [1, -1]]
    one, two = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(task.sureness(outputs), [one, two])
