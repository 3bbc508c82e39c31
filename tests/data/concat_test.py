"""Several sources as one: their rows in order, soft labels where one has them, the parts still
known."""

import numpy as np
import pytest

from kd_jax.data.concat import concatenate
from kd_jax.data.source import Source


def source(name, inputs, labels, soft=None, classes=("a", "b"), modality="text"):
    return Source(
        name,
        modality,
        inputs,
        np.array(labels, np.int32),
        classes,
        f"sha256:{name}",
        soft_labels=soft,
    )


SOFT = np.array([[0.25, 0.75]], np.float32)
ONE = source("one", ["x", "y"], [1, -1])
TWO = source("two", ["z"], [1], SOFT)


def test_rows_in_order_and_labels_one_hot_beside_soft_ones():
    both = concatenate([ONE, TWO])
    assert both.inputs == ["x", "y", "z"]
    assert both.labels.tolist() == [1, -1, 1]
    assert both.soft_labels is not None
    assert both.soft_labels.tolist() == [[0, 1], [0, 0], [0.25, 0.75]]
    assert both.parts == (ONE, TWO)
    assert both.name == "one + two"


def test_labels_of_words_get_the_room_of_the_longest_text():
    both = concatenate([source("one", ["x"], [[0]]), source("two", ["y z"], [[1, 0]])])
    assert both.labels.tolist() == [[0, -1], [1, 0]]


def test_without_soft_labels_there_are_none():
    assert concatenate([ONE, ONE]).soft_labels is None


def test_one_source_is_itself():
    assert concatenate([TWO]) is TWO


def test_the_fingerprint_is_that_of_parts_and_order():
    prints = {concatenate(parts).fingerprint for parts in ([ONE, TWO], [TWO, ONE], [ONE, TWO, TWO])}
    assert len(prints) == 3
    assert concatenate([ONE, TWO]).fingerprint == concatenate([ONE, TWO]).fingerprint


def test_images_of_one_size_are_one_array_and_others_are_looked_up():
    small, large = np.zeros((2, 4, 4, 1), np.uint8), np.ones((3, 6, 6, 1), np.uint8)
    same = concatenate(
        [source("s", small, [0, 1], modality="image"), source("t", small, [0, 1], modality="image")]
    )
    assert isinstance(same.inputs, np.ndarray)
    assert same.inputs.shape == (4, 4, 4, 1)
    mixed = concatenate(
        [
            source("s", small, [0, 1], modality="image"),
            source("l", large, [0] * 3, modality="image"),
        ]
    ).inputs
    assert [image.shape[0] for image in mixed] == [4, 4, 6, 6, 6]
    assert [image.shape[0] for image in mixed[1:3]] == [4, 6]
    with pytest.raises(IndexError):
        mixed[5]


@pytest.mark.parametrize("other", [dict(classes=("a", "c")), dict(modality="image")])
def test_sources_that_differ_are_refused(other):
    with pytest.raises(ValueError, match=r"'one' has .*, and 'other'"):
        concatenate([ONE, source("other", ["z"], [0], **other)])
