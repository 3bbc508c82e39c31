"""A transfer set on disk: what was written is read, row by row, whole or in part."""

import json

import numpy as np
import pytest

from kd_jax.data.open import open_source
from kd_jax.experiments.transfer_sets import storage
from kd_jax.tasks import make_task

CLASSES = ("bad", "good", "so_so")
TEXTS = [f"sentence number {number}" for number in range(7)]
PAIRS = [(text, f"and {text}") for text in TEXTS]
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3), dtype=np.uint8)
SOFT = np.random.default_rng(1).dirichlet(np.ones(3), 7).astype(np.float32)


def write(folder, inputs, modality, facts=None):
    labelled = storage.Labelled(inputs, SOFT, CLASSES)
    storage.write(folder, "more", labelled, modality, facts or {})


@pytest.mark.parametrize(
    ("inputs", "modality"),
    [(TEXTS, "text"), (PAIRS, "text"), (IMAGES, "image"), (IMAGES[..., :1], "image")],
    ids=["texts", "pairs", "colour", "grey"],
)
def test_inputs_and_soft_labels_come_back_in_their_order(inputs, modality, tmp_path):
    write(tmp_path, inputs, modality)
    found = storage.read(tmp_path, "more", modality, isinstance(inputs[0], tuple), CLASSES)
    np.testing.assert_array_equal(np.asarray(found.inputs), np.asarray(inputs))
    np.testing.assert_array_equal(found.soft_labels, SOFT)
    np.testing.assert_array_equal(found.labels, SOFT.argmax(axis=1))
    assert (found.class_names, found.modality) == (CLASSES, modality)


def test_a_slice_of_it_under_classes_in_another_order_keeps_rows_and_classes_together(tmp_path):
    write(tmp_path, TEXTS, "text")
    turned = ("so_so", "bad", "good")
    found = open_source(
        "more",
        "train[2:5]",
        dir=str(tmp_path),
        inputs="text",
        label="label",
        max_rejected=0,
        class_names=turned,
    )
    assert list(found.inputs) == TEXTS[2:5]
    np.testing.assert_array_equal(found.soft_labels, SOFT[2:5][:, [2, 0, 1]])
    assert [turned[label] for label in found.labels] == [
        CLASSES[label] for label in SOFT[2:5].argmax(axis=1)
    ]


def test_other_soft_labels_are_another_source(tmp_path):
    write(tmp_path / "one", TEXTS, "text")
    surer = (SOFT + np.eye(3, dtype=np.float32)[SOFT.argmax(axis=1)]) / 2
    labelled = storage.Labelled(TEXTS, surer, CLASSES)
    storage.write(tmp_path / "two", "more", labelled, "text", {})
    one, two = (
        storage.read(tmp_path / name, "more", "text", False, CLASSES) for name in ("one", "two")
    )
    np.testing.assert_array_equal(one.labels, two.labels)
    assert one.fingerprint != two.fingerprint


def test_provenance_lies_beside_the_records_and_damage_is_announced(tmp_path, caplog):
    write(tmp_path, TEXTS, "text", {"teacher": "big", "kept": 7})
    assert storage.provenance(tmp_path, "more") == {"teacher": "big", "kept": 7}
    assert storage.provenance(tmp_path, "less") is None
    assert not caplog.text
    file = tmp_path / "more" / storage.VERSION / storage.PROVENANCE
    file.write_text(json.dumps({"teacher": "big"})[:-3])
    assert storage.provenance(tmp_path, "more") is None
    assert "can't be read" in caplog.text


def test_writing_again_replaces_it(tmp_path):
    write(tmp_path, TEXTS, "text")
    labelled = storage.Labelled(TEXTS[:2], SOFT[:2], CLASSES)
    storage.write(tmp_path, "more", labelled, "text", {"teacher": "big", "kept": 2})
    assert list(storage.read(tmp_path, "more", "text", False, CLASSES).inputs) == TEXTS[:2]
    assert storage.provenance(tmp_path, "more") == {"teacher": "big", "kept": 2}


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("multilabel", SOFT),
        ("regression", SOFT[:, :1]),
        ("tagging", np.array([[0, 1, -1]] * 6 + [[2, 2, 2]], np.int32)),
        ("classification", None),
        ("embedding", None),
        ("masked_language_model", None),
    ],
)
def test_labels_of_every_task_come_back_and_none_where_there_are_none(task, labels, tmp_path):
    labelled = storage.Labelled(TEXTS, labels, CLASSES)
    storage.write(tmp_path, "more", labelled, "text", {}, soft=False)
    found = storage.read(tmp_path, "more", "text", False, CLASSES, make_task(task))
    assert list(found.inputs) == TEXTS
    assert found.soft_labels is None
    if labels is None:
        assert not found.labelled.any()
    else:
        np.testing.assert_array_equal(found.labels, labels)
