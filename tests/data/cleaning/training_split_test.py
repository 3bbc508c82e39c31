import numpy as np
import pytest

from kd_jax.data.cleaning.training_split import choose_mode, clean_training
from kd_jax.data.open import is_own
from kd_jax.data.run_datasets import Datasets
from kd_jax.data.source import Source, fingerprint, text_contents

SPEC = dict(
    mode="repair", prepared="report", max_characters=1_000, max_pixels=10_000, near_duplicate=0.8
)
TEXTS = ["one good film", "a bad\x00 film", "one good film", "a third one", "what is evaluated"]


def texts(inputs, labels=None, **options):
    labels = np.array([0] * len(inputs) if labels is None else labels, np.int32)
    digest = fingerprint(text_contents(inputs), labels, ("a", "b"))
    return Source("reviews train", "text", list(inputs), labels, ("a", "b"), digest, **options)


def clean_texts(mode, source=None, **options):
    return clean_training(
        source or texts(TEXTS), [texts(["What is evaluated"])], mode, SPEC | options
    )


def test_training_loses_what_is_bad_and_what_is_evaluated():
    source, cleaned = clean_texts("drop", texts([*TEXTS, "six"], [0, 1, 0, 1, 0, 1]))
    assert source.inputs == ["one good film", "a third one", "six"]
    assert source.labels.tolist() == [0, 1, 1]
    assert source.rows.tolist() == [1, 4, 6]
    assert cleaned.counts == {"control_character": 1, "duplicate": 1, "duplicate_of_evaluation": 1}


def test_the_fingerprint_is_that_of_what_is_left():
    source, _ = clean_texts("repair")
    assert source.inputs == ["one good film", "a bad film", "a third one"]
    assert source.fingerprint == texts(source.inputs).fingerprint != texts(TEXTS).fingerprint


def test_soft_labels_go_with_their_rows_and_are_part_of_what_is_left():
    soft = np.random.default_rng(0).dirichlet(np.ones(2), 6).astype(np.float32)
    labels = soft.argmax(axis=1)
    source, _ = clean_texts(
        "drop", texts([*TEXTS[:2], *TEXTS[3:], "six", "seven"], labels, soft_labels=soft)
    )
    np.testing.assert_array_equal(source.soft_labels, soft[[0, 2, 4, 5]])
    surer = (soft + np.eye(2, dtype=np.float32)[labels]) / 2
    other, _ = clean_texts(
        "drop", texts([*TEXTS[:2], *TEXTS[3:], "six", "seven"], labels, soft_labels=surer)
    )
    assert other.labels.tolist() == source.labels.tolist()
    assert other.fingerprint != source.fingerprint


@pytest.mark.parametrize("mode", ["off", "report"])
def test_where_nothing_is_taken_out_the_source_is_the_same(mode):
    source = texts(TEXTS)
    assert clean_texts(mode, source)[0] is source


def test_an_entry_names_the_users_own_row():
    _, cleaned = clean_texts("report", texts(TEXTS, rows=[12, 7, 30, 4, 5]))
    assert [(entry["row"], entry.get("repeats")) for entry in cleaned.quarantined] == [
        (7, None),
        (30, 12),
        (5, None),
    ]


def test_a_near_duplicate_of_zero_means_equal_texts_only():
    source = texts(
        [
            "a sentence that is long enough to be compared",
            "a sentence that is long enough to be compared.",
        ]
    )
    assert len(clean_texts("drop", source)[0]) == 1
    assert len(clean_texts("drop", source, near_duplicate=0.0)[0]) == 2


def test_too_much_to_set_aside_names_the_dataset():
    with pytest.raises(
        ValueError,
        match=r"^'reviews train': cleaning would set aside 3 rows, more than the 2 that are left",
    ):
        clean_texts("drop")


@pytest.mark.parametrize("stacked", [True, False])
def test_pictures_are_picked_out_and_their_fingerprint_tells_which(stacked):
    pictures = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), np.uint8)
    pictures[1], pictures[3] = 0, pictures[0]
    inputs = pictures if stacked else list(pictures)
    source = Source("photos", "image", inputs, np.zeros(6, np.int32), ("a",), "sha256:0")
    kept, cleaned = clean_training(source, [], "repair", SPEC)
    assert cleaned.counts == {"constant": 1, "duplicate": 1}
    np.testing.assert_array_equal(np.stack(list(kept.inputs)), pictures[[0, 2, 4, 5]])
    np.testing.assert_array_equal(np.stack(list(kept.inputs[1:])), pictures[[2, 4, 5]])
    others, _ = clean_training(source, [], "repair", SPEC | {"max_pixels": 16})
    assert kept.fingerprint == others.fingerprint != source.fingerprint
    inputs[4][...] = 0
    assert clean_training(source, [], "drop", SPEC)[0].fingerprint not in (
        kept.fingerprint,
        source.fingerprint,
    )


# The config's section


def test_files_of_the_users_own_have_their_own_mode(tmp_path):
    table = tmp_path / "reviews.csv"
    table.write_text("text,label\n")
    assert [is_own(name) for name in (str(table), str(tmp_path), "digits", "glue/sst2")] == [
        True,
        True,
        False,
        False,
    ]
    assert choose_mode(SPEC, own=True) == "repair"
    assert choose_mode(SPEC, own=False) == "report"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "mend"}, "data.cleaning.mode is one of off, report, drop, repair, got 'mend'"),
        ({"prepared": True}, "data.cleaning.prepared is one of"),
        ({"max_characters": 0}, "data.cleaning.max_characters is a positive number, got 0"),
        ({"max_pixels": 1.5}, r"data.cleaning.max_pixels is a positive number, got 1\.5"),
        ({"near_duplicate": 1.5}, r"data.cleaning.near_duplicate lies between 0 and 1, got 1\.5"),
        ({"near": 1}, "data.cleaning has no option 'near'"),
    ],
)
def test_a_bad_section_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        choose_mode(SPEC | change, own=True)


def test_every_option_is_asked_for():
    for key in SPEC:
        with pytest.raises(ValueError, match=f"data.cleaning needs option '{key}'"):
            choose_mode({name: value for name, value in SPEC.items() if name != key}, own=True)


# The splits of an experiment


@pytest.fixture
def reviews(tmp_path):
    """A section that reads three tables; two rows of training stand in `selection` and, nearly, in
    `evaluation`."""
    sentence = "this is a sentence of the evaluation"
    content = {
        "train": [
            "good film",
            "bad\u200b film",
            "the one that selects",
            f"{sentence}!",
            "fine",
            "poor",
            "so so",
        ],
        "selection": ["The one that selects", "<b>other</b>"],
        "evaluation": [sentence, sentence, "\u202eodd"],
    }
    for split, rows in content.items():
        lines = [f"{text},{number % 2}\n" for number, text in enumerate(rows)]
        (tmp_path / f"{split}.csv").write_text("text,label\n" + "".join(lines))
    return dict(
        name=str(tmp_path),
        dir=None,
        train="train",
        selection="selection",
        evaluation="evaluation",
        inputs="text",
        label="label",
        max_rejected=0,
        augmentation=dict(crop=0, flip=0.0),
        cleaning=SPEC,
    )


def test_evaluation_stays_whole_and_training_gives_way(reviews):
    datasets = Datasets(reviews, {})
    assert sorted(datasets.splits["train"].inputs) == [
        "bad film",
        "fine",
        "good film",
        "poor",
        "so so",
    ]
    assert [len(datasets.splits[role]) for role in ("selection", "evaluation")] == [2, 3]
    assert "\u202eodd" in datasets.splits["evaluation"].inputs
    assert datasets.cleaning == {
        "mode": "repair",
        "rows": 7,
        "kept": 5,
        "quarantined": {"duplicate_of_evaluation": 1, "near_duplicate_of_evaluation": 1},
        "repaired": {"zero_width": 1},
    }
    assert {(entry["row"], *entry["reasons"]) for entry in datasets.quarantined()} == {
        (4, "duplicate_of_evaluation"),
        (5, "near_duplicate_of_evaluation"),
    }


def test_the_fingerprint_of_the_data_follows_what_is_trained_on(reviews):
    prints = {
        mode: Datasets(reviews | {"cleaning": SPEC | {"mode": mode}}, {}).fingerprint()
        for mode in ("off", "report", "drop", "repair")
    }
    assert prints["off"] == prints["report"]
    assert len(set(prints.values())) == 3


def test_further_evaluations_have_no_say_in_what_is_trained_on(reviews):
    more = {"again": {"evaluation": "train"}}
    assert Datasets(reviews, more).fingerprint() == Datasets(reviews, {}).fingerprint()
