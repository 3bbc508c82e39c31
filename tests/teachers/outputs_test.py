"""Outputs by example: looked up on the host, of one shape or of many, in one piece or in several."""

from types import SimpleNamespace

import numpy as np
import pytest

from kd_jax.core.types import LOGITS, POSITIONS
from kd_jax.teachers.outputs import Outputs, StoredTeacher, Varying, column, join, view_of

RNG = np.random.default_rng(0)


def texts(count, sizes=None, width=3):
    """Outputs of texts: logits, and a vector a token."""
    sizes = RNG.integers(1, 9, count) if sizes is None else np.asarray(sizes)
    vectors = [RNG.normal(size=(size, width)).astype(np.float32) for size in sizes]
    flat = np.concatenate([vector.reshape(-1) for vector in vectors])
    part = {
        LOGITS: column(RNG.normal(size=(count, 2)).astype(np.float32)),
        "block_0": Varying(flat, (None, width), sizes),
    }
    return Outputs([part], longest=8), vectors


def test_rows_come_in_any_order_and_more_than_once():
    values = RNG.normal(size=(5, 3))
    found = Outputs([{LOGITS: column(values)}]).gather(np.array([4, 0, 4]))
    np.testing.assert_array_equal(found[LOGITS], values[[4, 0, 4]])


def test_an_example_has_as_many_vectors_as_tokens_and_zeros_after():
    outputs, vectors = texts(20)
    found = outputs.gather(np.array([3, 17]), length=8)["block_0"]
    assert found.shape == (2, 8, 3)
    for row, example in enumerate((3, 17)):
        np.testing.assert_array_equal(found[row, : len(vectors[example])], vectors[example])
        assert not found[row, len(vectors[example]) :].any()


@pytest.mark.parametrize(("length", "room"), [(4, 4), (8, 8), (16, 8), (None, 8)])
def test_texts_get_the_room_that_a_live_teacher_would_give_them(length, room):
    outputs, _ = texts(6, sizes=[4, 2, 1, 4, 3, 4])
    assert outputs.gather(np.arange(6), length)["block_0"].shape == (6, room, 3)


@pytest.mark.parametrize("counts", [[2, 3, 1], [3, 3, 3]])
def test_positions_say_which_words_a_teacher_has_read(counts):
    there = [np.arange(count) != 1 for count in counts]
    part = {
        LOGITS: column([RNG.normal(size=(count, 2)) for count in counts]),
        POSITIONS: column(there if len({*counts}) > 1 else np.stack(there)),
    }
    found = Outputs([part]).gather(np.array([1, 2]))[POSITIONS]
    assert found.dtype == np.int32
    wanted = np.full((2, 3), -1)
    for row, example in enumerate((1, 2)):
        wanted[row, : counts[example]] = np.where(there[example], 0, -1)
    np.testing.assert_array_equal(found, wanted)
    teacher = StoredTeacher("v")
    batch = SimpleNamespace(views={"v": {LOGITS: np.zeros((2, 3, 2)), POSITIONS: found}})
    assert teacher({}, batch).features == {}


def test_scores_of_pairs_of_tokens_keep_their_rows_and_columns():
    scores = [RNG.normal(size=(2, size, size)) for size in (3, 1, 4)]
    part = {
        LOGITS: column(np.zeros((3, 2))),
        "attention_0": Varying(
            np.concatenate([each.reshape(-1) for each in scores]), (2, None, None), [3, 1, 4]
        ),
    }
    found = Outputs([part], longest=5).gather(np.array([2, 0, 1]))["attention_0"]
    assert found.shape == (3, 2, 5, 5)
    for row, example in enumerate((2, 0, 1)):
        size = scores[example].shape[1]
        np.testing.assert_array_equal(found[row, :, :size, :size], scores[example])
        assert np.abs(found[row]).sum() == pytest.approx(np.abs(scores[example]).sum())


def test_sources_are_joined_in_their_order():
    (first, ours), (second, theirs) = texts(4), texts(3)
    both = join([first, second])
    assert len(both) == 7
    found = both.gather(np.array([5, 2]), length=8)
    np.testing.assert_array_equal(found[LOGITS][0], second.gather(np.array([1]))[LOGITS][0])
    np.testing.assert_array_equal(found["block_0"][0, : len(theirs[1])], theirs[1])
    np.testing.assert_array_equal(found["block_0"][1, : len(ours[2])], ours[2])
    np.testing.assert_array_equal(both.lengths, [len(each) for each in (*ours, *theirs)])


def test_predictions_of_words_are_as_wide_as_the_widest_row_and_no_text_length():
    words = column([RNG.normal(size=(count, 3)) for count in (2, 5, 1)])
    outputs = Outputs([{LOGITS: words}])
    assert outputs.lengths is None
    assert outputs.gather(np.array([0, 2]))[LOGITS].shape == (2, 2, 3)
    # All of another source may be of one width.
    even = Outputs([{LOGITS: column(np.ones((2, 4, 3)))}])
    found = join([outputs, even]).gather(np.array([0, 4]))[LOGITS]
    assert found.shape == (2, 4, 3)
    np.testing.assert_array_equal(found[0, 2:], 0)
    np.testing.assert_array_equal(found[1], 1)


def test_the_teacher_reads_what_the_batch_brings_along(batch_of_outputs):
    made = StoredTeacher(view_of("big"))({}, batch_of_outputs)
    np.testing.assert_array_equal(made.logits, [[1.0, 2.0]])
    np.testing.assert_array_equal(made.features["pooled"], [[3.0]])
    assert {*made.features} == {"pooled"}


@pytest.fixture
def batch_of_outputs():
    from kd_jax.core.types import Batch

    one = np.ones(1, bool)
    known = {"logits": np.array([[1.0, 2.0]]), "pooled": np.array([[3.0]])}
    return Batch(np.zeros(1, np.int32), {view_of("big"): known}, np.zeros(1, np.int32), one, one)
