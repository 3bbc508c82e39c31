"""Whole texts that select: none is a part of another, and nothing of them is trained on."""

import numpy as np
import pytest

from kd_jax.data.source import Source
from kd_jax.data.whole_texts import take_whole_texts

TEXTS = [
    "a fine film",
    "fine",
    "fine film",
    "not a fine film at all",
    "dull and long",
    "and long",
    "long",
    "dull and long",
    "",
]
WHOLE = {"not a fine film at all", "dull and long"}


def source(texts=TEXTS, labels=None):
    labels = np.arange(len(texts)) % 2 if labels is None else np.array(labels)
    return Source(
        name="reviews train",
        modality="text",
        inputs=texts,
        labels=labels.astype(np.int32),
        class_names=("bad", "good"),
        fingerprint="sha256:0",
        rows=[10 + number for number in range(len(texts))],
    )


def test_a_text_that_stands_in_no_other_is_whole_and_takes_its_parts_and_repetitions_along():
    train, taken = take_whole_texts(source(), 3)
    assert {*taken.inputs} == WHOLE
    assert list(train.inputs) == [""]
    assert taken.name == "reviews train, 3 whole texts"
    assert train.name == "reviews train"
    assert taken.fingerprint != train.fingerprint


def test_what_is_no_part_of_those_taken_stays_with_its_label_and_row():
    texts = ["one two three four", "two three", "two four", "five six", "six", "three four five"]
    for count in (1, 2):
        train, taken = take_whole_texts(source(texts), count)
        for found in (train, taken):
            places = [texts.index(text) for text in found.inputs]
            np.testing.assert_array_equal(found.labels, source(texts).labels[places])
            assert [int(row) for row in found.rows] == [10 + place for place in places]
        for text in train.inputs:
            assert not any(f" {text} " in f" {whole} " for whole in taken.inputs)
        left = [text for text in texts if text not in {*train.inputs, *taken.inputs}]
        assert all(any(f" {text} " in f" {whole} " for whole in taken.inputs) for text in left)


def test_which_are_taken_depends_on_the_texts_and_not_on_their_order():
    texts = [f"film number {number} is fine" for number in range(40)]
    first = take_whole_texts(source(texts), 5)[1].inputs
    assert {*first} == {*take_whole_texts(source(texts[::-1]), 5)[1].inputs}
    assert {*first} != {*texts[:5]}


def test_a_text_without_a_label_selects_nothing():
    texts = ["one two", "three four", "five"]
    _, taken = take_whole_texts(source(texts, [-1, 1, -1]), 1)
    assert list(taken.inputs) == ["three four"]


@pytest.mark.parametrize(
    ("texts", "count", "message"),
    [
        (TEXTS, 4, "is 4, and of the 9 texts of 'reviews train' 3 have a label"),
        (["one two", "two"], 1, "leaves nothing of 'reviews train' to train on"),
        ([("one", "two"), ("three", "four")], 1, "takes single texts .* has pairs"),
    ],
)
def test_what_can_not_be_taken_is_refused(texts, count, message):
    with pytest.raises(ValueError, match=rf"data\.selection\.whole_texts.*{message}"):
        take_whole_texts(source(texts), count)


def test_where_labels_are_not_needed_a_text_without_one_selects_too():
    three = source(["one two", "two", "six"], [-1, -1, -1])
    train, taken = take_whole_texts(three, 1, labelled=False)
    assert len(taken) == 1
    assert taken.labels.tolist() == [-1]
    assert set(train.inputs) < {"one two", "two", "six"}


def test_many_alike_take_no_longer_than_many_others():
    """Compared one with another, these would take minutes."""
    alike = [f"what is the capital of country {number}" for number in range(20_000)]
    again = ["one two three"] * 20_000
    long = " ".join(["ha"] * 50_000)
    train, taken = take_whole_texts(source([*alike, *again, long]), 3)
    assert len(taken) == 3
    assert len(train) >= 20_000
