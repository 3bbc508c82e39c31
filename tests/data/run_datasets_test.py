"""What a config's data section makes of the training split, before any model sees it."""

import copy
import csv

import numpy as np
import pytest
from task_experiments import table

from kd_jax.config.load import load_config, plain
from kd_jax.data.run_datasets import Datasets
from kd_jax.data.subsets import choose_labelled
from kd_jax.tasks import make_task

DATA = plain(load_config("docstrings"))["data"]


@pytest.fixture
def repeated(tmp_path):
    """200 texts of three classes, 60 of them there twice with the same label."""
    path = tmp_path / "texts.csv"
    rows = [
        (f"text number {n} of some", ("good", "bad", "rare")[(n % 2) * (n > 2) or 2 * (n == 1)])
        for n in range(200)
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows, *rows[:60]])
    return path


def section(path, **changes):
    found = copy.deepcopy(DATA) | dict(
        name=str(path), train="train[:80%]", selection="train[80%:90%]", evaluation="train[90%:]"
    )
    return found | changes


def whole(path, **changes):
    """All rows train; those that select and are reported are another file's."""
    other = path.with_name("held_out.csv")
    other.write_text("text,label\nanother one,good\nand another,bad\nthird,rare\n")
    folder = path.with_name("folder")
    folder.mkdir(exist_ok=True)
    (folder / "train.csv").write_bytes(path.read_bytes())
    (folder / "dev.csv").write_bytes(other.read_bytes())
    splits = dict(train="train", selection="dev", evaluation="dev")
    return section(folder, **splits | changes)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_hidden_labels_change_no_row(repeated, share):
    everything = Datasets(whole(repeated), {})
    few = Datasets(whole(repeated, labelled=share), {})
    assert few.splits["train"].inputs == everything.splits["train"].inputs
    assert few.cleaning == everything.cleaning
    assert few.cleaning["rows"] == 260
    train = few.splits["train"]
    assert train.labelled.sum() == pytest.approx(share * 200, abs=25)
    labels = everything.splits["train"].labels[train.labelled]
    np.testing.assert_array_equal(train.labels[train.labelled], labels)
    assert few.splits["evaluation"].labelled.all()


def test_rows_that_are_set_aside_move_no_label_to_another_row(tmp_path):
    path = tmp_path / "texts.csv"
    texts = [f"text number {n} of some" for n in range(100)]
    # What is set aside stands before what stays, so that positions differ after cleaning.
    texts[:0] = texts[:30]
    rows = "".join(f"{text},{('good', 'bad', 'rare')[n % 3]}\n" for n, text in enumerate(texts))
    path.write_text("text,label\n" + rows)
    data = whole(path, labelled=0.3)
    found = Datasets(data, {}).splits["train"]
    data["cleaning"] = data["cleaning"] | dict(mode="off")
    whole_source = Datasets(data | dict(labelled=1.0), {}).splits["train"]
    shown = dict(zip(whole_source.rows, choose_labelled(whole_source, 0.3), strict=True))
    assert len(found) == 100
    assert len(whole_source) == 130
    np.testing.assert_array_equal(found.labelled, [shown[row] for row in found.rows])


def test_a_class_of_which_no_label_is_left_is_named(repeated, caplog):
    Datasets(whole(repeated, labelled=0.05), {})
    assert "no label is left of 'rare'" in caplog.text


def test_hidden_numbers_do_not_set_the_units(tmp_path):
    path = table(tmp_path, "regression")
    data = section(path, label="score")
    few = Datasets(data | {"labelled": 0.1}, {}, make_task("regression"))
    known = few.splits["train"].labels[few.splits["train"].labelled]
    assert known.mean() == pytest.approx(0, abs=1e-5)
    assert known.std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("masked_language_model", dict(labelled=0.5), "data.labelled hides labels, and task 'mask"),
        ("embedding", dict(labelled=0.5), "data.labelled hides labels, and task 'embedding'"),
        (
            "embedding",
            dict(selection=dict(whole_texts=3)),
            "data.selection.whole_texts takes single texts, and task 'embedding' selects by pairs",
        ),
    ],
)
def test_what_a_task_has_no_use_for_is_refused(task, changes, message, tmp_path):
    path = table(tmp_path, task)
    columns = dict(inputs=("one", "two"), label="score") if task == "embedding" else {}
    with path.open(encoding="utf-8") as file:
        header = next(csv.reader(file))
    columns = dict(inputs=tuple(header[:2]) if task == "embedding" else header[0], label=header[-1])
    with pytest.raises(ValueError, match=message):
        Datasets(section(path, **columns | changes), {}, make_task(task))
