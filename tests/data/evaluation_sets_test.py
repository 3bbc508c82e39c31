"""Further datasets: expanded, opened, given the experiment's classes, or refused before anything is
trained."""

import logging

import numpy as np
import pytest
from PIL import Image

from kd_jax.data.corruption import Corruption
from kd_jax.data.evaluation_sets import expand, open_evaluations
from kd_jax.data.open import open_source
from kd_jax.data.run_datasets import Datasets, view_name
from kd_jax.data.source import Source

pytestmark = pytest.mark.slow

UNCLEANED = dict(
    mode="off", prepared="off", max_characters=1000, max_pixels=1000, near_duplicate=0.0
)

VIEW = dict(size=None, channels=None, mean=(0.0,), std=(1 / 255,))


def table(folder, name, rows, columns="text,label"):
    path = folder / name
    path.write_text("\n".join([columns, *rows]) + "\n")
    return str(path)


@pytest.fixture
def texts(tmp_path):
    """The config's `data`: a table of ten positive and ten negative texts."""
    rows = [f"text {number},{'positive' if number % 2 else 'negative'}" for number in range(20)]
    return dict(
        name=table(tmp_path, "own.csv", rows),
        dir=None,
        train="train[:50%]",
        selection="train[50%:70%]",
        evaluation="train[70%:]",
        inputs="text",
        label="label",
        max_rejected=0,
        augmentation=dict(crop=0, flip=0.0),
        cleaning=UNCLEANED,
    )


@pytest.fixture
def pictures(tmp_path):
    """The config's `data`: a folder of bright and dark grey pictures of 6 x 4."""
    save_pictures(tmp_path / "own", ("bright", "dark"), (6, 4), count=4)
    return dict(
        name=str(tmp_path / "own"),
        dir=None,
        train="train[:50%]",
        selection="train[50%:]",
        evaluation="train[50%:]",
        inputs="image",
        label="label",
        max_rejected=0,
        augmentation=dict(crop=0, flip=0.0),
        cleaning=UNCLEANED,
    )


def save_pictures(folder, classes, size, count, mode="L"):
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            shape = (*size, 3) if mode == "RGB" else size
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode).save(
                folder / name / f"{number}.png"
            )


def evaluations(data, sections):
    return Datasets(data, sections).evaluations


def labelled(evaluation):
    source = evaluation.source
    return {
        (text, source.class_names[label])
        for text, label in zip(source.inputs, source.labels, strict=True)
    }


# Lists of corruptions


def test_a_section_without_lists_stays_as_it_is():
    sections = {
        "whole": {"evaluation": "test"},
        "one": {"corruption": {"kind": "blur", "severity": 2}},
    }
    assert expand(sections) == sections
    assert expand({"none": {"corruption": None, "dir": None}}).keys() == {"none"}


@pytest.mark.parametrize("sequence", [tuple, list])
def test_lists_of_kinds_and_severities_become_a_dataset_each(sequence):
    corruption = {"kind": sequence(("blur", "contrast")), "severity": sequence((1, 5))}
    expanded = expand({"c": {"evaluation": "test", "corruption": corruption}})
    assert list(expanded) == ["c_blur_1", "c_blur_5", "c_contrast_1", "c_contrast_5"]
    assert expanded["c_blur_5"] == {
        "evaluation": "test",
        "corruption": {"kind": "blur", "severity": 5},
    }


def test_one_list_is_enough():
    assert list(expand({"c": {"corruption": {"kind": "blur", "severity": (3,)}}})) == ["c_blur_3"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"c": {"corruption": {"kind": ("blur", "fog"), "severity": 1}}},
            r"^unknown evaluations\.c\.corruption\.kind",
        ),
        (
            {"c": {"corruption": {"kind": "blur"}}},
            r"^evaluations\.c\.corruption needs option 'severity'",
        ),
        (
            {"c": {"corruption": {"kind": "blur", "severity": ()}}},
            r"^evaluations\.c\.corruption has an empty list$",
        ),
        (
            {"c": {"corruption": {"kind": "blur", "severity": (1,)}}, "c_blur_1": {}},
            r"^evaluations has two datasets named 'c_blur_1'$",
        ),
        (
            {"c": {"label_map": {"a": "b"}, "label_ranges": {"a": (0, 1)}}},
            r"^evaluations\.c has both label_map and",
        ),
    ],
)
def test_what_can_not_be_expanded_is_refused(sections, message):
    with pytest.raises(ValueError, match=message):
        expand(sections)


# Classes


def test_a_section_takes_over_what_it_does_not_say(texts):
    found = evaluations(
        texts, {"same": {"name": None, "label_map": None}, "all": {"evaluation": "train"}}
    )
    assert found["same"].source.inputs == Datasets(texts, {}).splits["evaluation"].inputs
    assert (len(found["all"].source), found["all"].left_out) == (20, 0)


def test_equal_classes_are_matched_by_name(texts, tmp_path):
    other = table(tmp_path, "other.tsv", ["good\tpositive", "bad\tnegative"], "sentence\tmood")
    section = {"name": other, "evaluation": "train", "inputs": "sentence", "label": "mood"}
    assert labelled(evaluations(texts, {"x": section})["x"]) == {
        ("good", "positive"),
        ("bad", "negative"),
    }


def test_the_number_of_a_class_may_differ_from_the_experiments(texts, tmp_path):
    trained_on = Source(
        "own", "text", ["a"], np.zeros(1, np.int32), ("positive", "negative"), "sha256:0"
    )
    other = table(tmp_path, "other.csv", ["good,positive", "bad,negative"])
    found = open_evaluations(texts, {"x": {"name": other, "evaluation": "train"}}, trained_on)["x"]
    assert labelled(found) == {("good", "positive"), ("bad", "negative")}


def test_rows_that_a_map_leaves_out_are_counted_and_said(texts, tmp_path, caplog):
    other = table(tmp_path, "other.csv", ["good,1", "bad,0", "so so,2", "level,2"])
    section = {
        "name": other,
        "evaluation": "train",
        "label_map": {0: "negative", 1: "positive", 2: None},
    }
    with caplog.at_level(logging.INFO, "kd_jax"):
        found = evaluations(texts, {"x": section})["x"]
    assert labelled(found) == {("good", "positive"), ("bad", "negative")}
    assert found.left_out == 2
    assert (
        "evaluations.x: 2 of 4 rows have no class of the experiment and are left out" in caplog.text
    )


def test_scores_become_classes_by_their_range(texts, tmp_path):
    other = table(tmp_path, "other.csv", ["good,2.5", "bad,-1", "so so,0.1"], "text,score")
    ranges = {"negative": (None, -1.0), "positive": (1.0, None)}
    section = {"name": other, "evaluation": "train", "label": "score", "label_ranges": ranges}
    found = evaluations(texts, {"x": section})["x"]
    assert labelled(found) == {("good", "positive"), ("bad", "negative")}
    assert found.left_out == 1


def test_rows_without_a_label_are_left_out(texts, monkeypatch):
    own = open_source(
        texts["name"], "train", dir=None, inputs="text", label="label", max_rejected=0
    )
    blank = Source(
        "blank",
        "text",
        ["a", "b", "c"],
        np.array([-1, 1, -1], np.int32),
        own.class_names,
        "sha256:0",
    )
    monkeypatch.setattr("kd_jax.data.evaluation_sets.open_source", lambda **_: blank)
    found = open_evaluations(texts, {"x": {}}, own)["x"]
    assert (found.source.inputs, found.left_out) == (["b"], 2)


def test_evaluations_of_one_split_are_prepared_apart(texts):
    half = {"label_map": {"negative": "negative", "positive": None}}
    datasets = Datasets(texts, {"all": {}, "half": half})
    view = dict(tokenizer="trained", vocabulary_size=20, max_length=8)
    sources = [
        datasets.splits["evaluation"],
        *(found.open() for found in datasets.evaluations.values()),
    ]
    lengths = [len(datasets.prepared(source, view).lengths) for source in sources]
    assert lengths == [len(source) for source in sources]
    assert lengths[0] == lengths[1] > lengths[2] > 0


@pytest.mark.parametrize(
    ("rows", "section", "message"),
    [
        (
            ["a,up", "b,down"],
            {},
            r"^evaluations\.x has the classes down, up, the experiment negative, positive; give ",
        ),
        (
            ["a,positive"],
            {},
            r"^evaluations\.x has the classes positive, the experiment negative, positive; give it"
            r" a",
        ),
        (
            ["a,0", "b,1"],
            {},
            r"^evaluations\.x has the classes 0, 1, the experiment negative, positive; give it a"
            r" lab",
        ),
        (
            ["a,up", "b,down"],
            {"label_map": {"up": "positive"}},
            r"^evaluations\.x\.label_map misses down; the datas",
        ),
        (
            ["a,up"],
            {"label_map": {"up": None}},
            r"^evaluations\.x: none of the 1 rows of .*other\.csv train' has a cl",
        ),
        (
            ["a,up"],
            {"label_ranges": {"positive": (0, 1)}},
            r"^evaluations\.x\.label_ranges asks for numbers as labels",
        ),
        (
            ["a,positive"],
            {"inputs": ("text", "label")},
            r"^evaluations\.x: .* holds pairs of texts, the training data ",
        ),
        (
            ["a,positive"],
            {"label": "mood"},
            r"^evaluations\.x: .* has no column 'mood'; it has label, text$",
        ),
        (
            ["a,positive"],
            {"evaluation": "test"},
            r"^evaluations\.x: .* has no split 'test'; it has train$",
        ),
        (
            ["a,positive", "b,negative"],
            {"corruption": {"kind": "blur", "severity": 1}},
            r"^evaluations\.x\.corruption is for images; '.*other\.csv train' holds text$",
        ),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused(texts, tmp_path, rows, section, message):
    other = table(tmp_path, "other.csv", rows)
    with pytest.raises(ValueError, match=message):
        evaluations(texts, {"x": {"name": other, "evaluation": "train"} | section})


def test_pictures_are_no_evaluation_of_a_text_experiment(texts, pictures):
    message = r"^evaluations\.x: '.*own train' holds images, the training data texts$"
    with pytest.raises(ValueError, match=message):
        evaluations(texts, {"x": {"name": pictures["name"], "evaluation": "train"}})


# Images


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(3, 9), (6, 4)])
def test_images_of_another_shape_come_out_like_the_training_images(pictures, tmp_path, mode, size):
    save_pictures(tmp_path / "other", ("bright", "dark"), size, count=2, mode=mode)
    section = {"name": str(tmp_path / "other"), "evaluation": "train"}
    datasets = Datasets(pictures, {"x": section})
    batch = next(iter(datasets.evaluation_batches(datasets.evaluations["x"].source, [VIEW], 4)))
    assert batch.views[view_name(VIEW)]["images"].shape == (4, 6, 4, 1)


def test_images_of_several_sizes_come_out_like_the_training_images(pictures, tmp_path):
    save_pictures(tmp_path / "other", ("bright",), (3, 9), count=2)
    save_pictures(tmp_path / "other", ("dark",), (7, 5), count=2)
    section = {
        "name": str(tmp_path / "other"),
        "evaluation": "train",
        "corruption": {"kind": "blur", "severity": 1},
    }
    datasets = Datasets(pictures, {"x": section})
    source = datasets.evaluations["x"].open()
    batch = next(iter(datasets.evaluation_batches(source, [VIEW], 4)))
    assert batch.views[view_name(VIEW)]["images"].shape == (4, 6, 4, 1)


def test_channels_that_do_not_convert_are_refused(pictures, monkeypatch):
    deep = Source(
        "deep",
        "image",
        np.zeros((2, 6, 4, 4), np.uint8),
        np.arange(2, dtype=np.int32),
        ("bright", "dark"),
        "sha256:0",
    )
    own = Datasets(pictures, {}).splits["train"]
    monkeypatch.setattr("kd_jax.data.evaluation_sets.open_source", lambda **_: deep)
    with pytest.raises(
        ValueError, match=r"^evaluations\.x: images of 4 channels can't be turned into 1$"
    ):
        open_evaluations(pictures, {"x": {}}, own)


def test_corrupted_copies_share_their_origin_and_are_made_when_asked_for(pictures):
    datasets = Datasets(pictures, {"c": {"corruption": {"kind": "contrast", "severity": (1, 5)}}})
    light, heavy = datasets.evaluations.values()
    assert light.source.inputs is heavy.source.inputs
    clean = datasets.splits["evaluation"].inputs
    np.testing.assert_array_equal(light.source.inputs, clean)
    np.testing.assert_array_equal(heavy.open().inputs[1], Corruption("contrast", 5)(clean[1], 1))


def test_a_row_keeps_its_noise_whatever_else_is_left_out(pictures):
    noisy = {"corruption": {"kind": "gaussian_noise", "severity": 3}}
    sections = {"all": noisy, "dark": noisy | {"label_map": {"bright": None, "dark": "dark"}}}
    found = evaluations(pictures, sections)
    dark = found["all"].source.labels == 1
    assert 0 < dark.sum() < len(dark)
    np.testing.assert_array_equal(found["dark"].open().inputs, found["all"].open().inputs[dark])


def test_what_was_prepared_of_a_dataset_is_forgotten_with_it(pictures):
    datasets = Datasets(pictures, {"c": {"corruption": {"kind": "blur", "severity": (1, 2)}}})
    for _, _, source in datasets.open_evaluations():
        first = datasets.prepared(source, VIEW)
        assert datasets.prepared(source, VIEW) is first
        kept = [name for name, _ in datasets._prepared]
        assert kept == [source.name]
