"""Classes of published classifiers, brought into the order of the data's by their names."""

import json
import logging

import numpy as np
import pytest
from models.weights.load_test import IDS, MASK, bert_tensors, write

from kd_jax.models.weights import load

pytestmark = pytest.mark.slow

NAMES = ("NEGATIVE", "NEUTRAL", "POSITIVE")
ALL = dict.fromkeys(NAMES)


def folder_of(path, order, names=None):
    """Writes one classifier with its rows and names in this order: a sound folder."""
    path.mkdir()
    tensors = bert_tensors()
    for key in ("classifier.weight", "classifier.bias"):
        tensors[key] = tensors[key][list(order)]
    names = names or [NAMES[number] for number in order]
    return write(path, tensors, id2label={str(i): name for i, name in enumerate(names)})


def logits(folder, names, **options):
    module, variables = load.load(folder, class_names=names, **options)
    return np.asarray(module.apply(variables, IDS, MASK).logits)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_data_says_the_order_and_the_names_say_which_is_which(tmp_path, order):
    plain = logits(folder_of(tmp_path / "plain", (0, 1, 2)), NAMES)
    assert np.array_equal(logits(folder_of(tmp_path / "other", order), NAMES), plain)
    mixed = ("positive", "Negative", "neutral")
    assert np.array_equal(logits(tmp_path / "other", mixed), plain[:, [2, 0, 1]])


def test_other_names_are_refused_with_both_lists(tmp_path):
    folder = folder_of(tmp_path / "other", (0, 1, 2))
    with pytest.raises(ValueError, match=r"'NEGATIVE', 'NEUTRAL', 'POSITIVE', the data has 'a'"):
        load.load(folder, class_names=("a", "b", "c"))


def test_a_label_map_says_how_by_name_or_number(tmp_path):
    plain = logits(folder_of(tmp_path / "plain", (0, 1, 2)), NAMES)
    folder = folder_of(tmp_path / "other", (2, 0, 1))
    by_name = {"POSITIVE": "good", "NEGATIVE": "bad", "NEUTRAL": "so so"}
    by_number = {0: "good", 1: "bad", 2: "so so"}
    ours = ("bad", "so so", "good")
    for label_map in (by_name, by_number):
        assert np.array_equal(logits(folder, ours, label_map=label_map), plain)


def test_a_label_map_may_leave_classes_out(tmp_path):
    plain = logits(folder_of(tmp_path / "plain", (0, 1, 2)), NAMES)
    label_map = {"POSITIVE": "good", "NEGATIVE": "bad", "NEUTRAL": None}
    found = logits(tmp_path / "plain", ("good", "bad"), label_map=label_map)
    assert np.array_equal(found, plain[:, [2, 0]])


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        ({"POSTIVE": "good"}, r"label_map names 'POSTIVE'; .* has the classes 'NEGATIVE'"),
        (
            ALL | {"POSITIVE": "great"},
            r"label_map asks for 'great'; the data has the classes 'bad'",
        ),
        (
            ALL | {"POSITIVE": "good", "NEGATIVE": "good"},
            r"gives 'NEGATIVE', 'POSITIVE' to the class",
        ),
        ({"POSITIVE": "good"}, r"label_map misses 'NEGATIVE', 'NEUTRAL'; give None"),
        (ALL | {"POSITIVE": "good"}, r"label_map gives nothing to the class 'bad'"),
        ({"POSITIVE": "good", 0: "bad"}, r"label_map names '0'"),
    ],
)
def test_a_label_map_that_does_not_fit_is_refused(tmp_path, label_map, message):
    folder = folder_of(tmp_path / "plain", (0, 1, 2))
    with pytest.raises(ValueError, match=message):
        load.load(folder, class_names=("bad", "good"), label_map=label_map)


def test_classes_that_nobody_named_go_by_number_with_a_warning(tmp_path, caplog):
    folder = folder_of(tmp_path / "plain", (0, 1, 2), ["LABEL_0", "LABEL_1", "LABEL_2"])
    with caplog.at_level(logging.WARNING):
        found = logits(folder, NAMES)
    assert "doesn't name its classes: they are taken in the order 'NEGATIVE'" in caplog.text
    assert np.array_equal(found, logits(folder, ("a", "b", "c")))


def test_half_a_list_of_names_is_none(tmp_path, caplog):
    folder = folder_of(tmp_path / "plain", (0, 1, 2), ["x", "y"])
    with caplog.at_level(logging.WARNING):
        logits(folder, NAMES)
    assert "doesn't name its classes" in caplog.text


def test_names_that_differ_by_case_alone_must_be_exact(tmp_path):
    folder = folder_of(tmp_path / "plain", (0, 1, 2), ["a", "A", "b"])
    plain = logits(folder, ("a", "A", "b"))
    assert np.array_equal(logits(folder, ("A", "a", "b")), plain[:, [1, 0, 2]])
    with pytest.raises(ValueError, match="has a classifier of"):
        load.load(folder, class_names=("a", "B", "b"))


def test_a_new_head_asks_nobody_for_names(tmp_path, caplog):
    folder = folder_of(tmp_path / "plain", (0, 1, 2))
    with caplog.at_level(logging.WARNING):
        found = logits(folder, ("a", "b", "c"), new_head=True)
    assert "has no classifier" not in caplog.text or "random" in caplog.text
    assert not np.allclose(found, logits(folder, NAMES))


def test_no_new_head_where_nothing_would_train_it(tmp_path):
    folder = folder_of(tmp_path / "plain", (0, 1, 2))
    load.load(folder, class_names=NAMES, new_head=False)
    message = "has no classifier for 2 classes, and nothing trains one here"
    with pytest.raises(ValueError, match=message):
        load.load(folder, class_names=("a", "b"), new_head=False)
    (tmp_path / "bare").mkdir()
    bare = write(tmp_path / "bare", bert_tensors(classes=0), id2label=None)
    with pytest.raises(ValueError, match="has no classifier for 3 classes"):
        load.load(bare, class_names=NAMES, new_head=False)


def test_class_names_are_needed_by_a_map_and_agree_with_a_number(tmp_path):
    folder = folder_of(tmp_path / "plain", (0, 1, 2))
    with pytest.raises(ValueError, match="label_map maps to class_names"):
        load.load(folder, label_map={"POSITIVE": "good"})
    with pytest.raises(ValueError, match="num_classes is 2 and class_names has 3"):
        load.load(folder, 2, class_names=NAMES)


def test_an_export_of_ours_is_read_by_its_names(tmp_path):
    from export.finished_run import BAG, make_run

    from kd_jax.export import export

    folder = export(make_run(tmp_path / "run", BAG), formats=["kd_jax"])
    assert json.loads((folder / "architecture.json").read_text())["class_names"][0] == "bad"
    plain = logits(folder, ("bad", "fair", "good"))
    assert np.array_equal(logits(folder, ("good", "bad", "fair")), plain[:, [2, 0, 1]])
    with pytest.raises(ValueError, match="has a classifier of 'bad', 'fair', 'good'"):
        load.load(folder, class_names=("x", "y", "z"))
