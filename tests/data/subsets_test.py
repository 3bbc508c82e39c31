from collections.abc import Sequence

import numpy as np
import pytest

from kd_jax.data.corruption import Corruption
from kd_jax.data.source import Source
from kd_jax.data.subsets import choose_labelled, corrupt, hide_labels, only_labelled, relabel

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 1), dtype=np.uint8)
ROWS, LABELS = np.array([1, 3]), np.array([0, 1], np.int32)


class Lazy(Sequence):
    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        return IMAGES[index]


KINDS = {"array": IMAGES, "list": list(IMAGES), "lazy": Lazy()}


def source(inputs):
    return Source(
        "photos test",
        "image",
        inputs,
        np.array([2, 0, -1, 1], np.int32),
        ("a", "b", "c"),
        "sha256:0",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_some_rows_under_other_classes(kind):
    found = relabel(source(KINDS[kind]), ROWS, LABELS, ("x", "y"))
    assert (len(found), len(found.inputs), found.class_names) == (2, 2, ("x", "y"))
    np.testing.assert_array_equal(found.labels, LABELS)
    np.testing.assert_array_equal(np.stack([found.inputs[i] for i in range(2)]), IMAGES[[1, 3]])


def test_the_fingerprint_tells_rows_and_labels_apart():
    original = source(IMAGES)
    prints = {
        relabel(original, rows, labels, ("x", "y")).fingerprint
        for rows in (ROWS, ROWS - 1)
        for labels in (LABELS, 1 - LABELS)
    }
    assert len(prints | {original.fingerprint}) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_corrupted_by_their_position_in_the_split(kind):
    corruption = Corruption("gaussian_noise", 3)
    kept = relabel(source(KINDS[kind]), ROWS, LABELS, ("x", "y"))
    found = corrupt(kept, corruption, ROWS)
    assert isinstance(found.inputs, np.ndarray) == (kind == "array")
    for position, row in enumerate(ROWS):
        np.testing.assert_array_equal(found.inputs[position], corruption(IMAGES[row], int(row)))
    assert found.name == "photos test gaussian_noise 3"
    assert found.fingerprint != kept.fingerprint


def test_soft_labels_go_with_their_rows_and_mean_nothing_under_other_classes():
    soft = np.random.default_rng(0).dirichlet(np.ones(2), 4).astype(np.float32)
    source = Source(
        "made up",
        "text",
        list("abcd"),
        np.array([0, 1, 0, 1], np.int32),
        ("x", "y"),
        "sha256:0",
        soft_labels=soft,
    )
    rows = np.array([1, 3])
    np.testing.assert_array_equal(
        relabel(source, rows, source.labels[rows], ("x", "y")).soft_labels, soft[rows]
    )
    assert relabel(source, rows, source.labels[rows], ("one", "two")).soft_labels is None


def numbered(labels):
    count = len(labels)
    return Source("made up", "text", [str(i) for i in range(count)], labels, ("x", "y"), "sha256:0")


@pytest.mark.parametrize(
    "labels",
    [
        np.where(np.arange(100) < 40, -1, np.arange(100) % 2).astype(np.int32),
        np.where(np.arange(100) < 40, np.nan, np.arange(100))[:, None].astype(np.float32),
        np.where(np.arange(100)[:, None] < 40, -1, [[1, -1]]).astype(np.int32),
    ],
    ids=["class", "number", "words"],
)
def test_a_smaller_share_of_labels_is_a_part_of_a_larger_one(labels):
    source = numbered(labels)
    few, more, all_of_them = (choose_labelled(source, share) for share in (0.1, 0.5, 1.0))
    assert [each.sum() for each in (few, more)] == [6, 30]
    assert not (few & ~more).any()
    np.testing.assert_array_equal(all_of_them, source.labelled)
    shown = numbered(hide_labels(labels, more))
    np.testing.assert_array_equal(shown.labelled, more)
    np.testing.assert_array_equal(shown.labels[more], labels[more])
    np.testing.assert_array_equal(source.labels, labels)


def test_no_label_left_is_refused():
    with pytest.raises(ValueError, match=r"data\.labelled=0\.01 of 4 labels leaves none"):
        choose_labelled(numbered(np.zeros(4, np.int32)), 0.01)


def test_rows_with_a_label_are_a_source_of_their_own_unless_they_are_all():
    source = numbered(np.array([1, -1, 0, -1], np.int32))
    found = only_labelled(source)
    assert found.inputs == ["0", "2"]
    assert list(found.rows) == [1, 3]
    assert found.name == "made up, labelled"
    assert only_labelled(found) is found
    with pytest.raises(ValueError, match="'made up' has no row with a label"):
        only_labelled(numbered(np.full(3, -1, np.int32)))
