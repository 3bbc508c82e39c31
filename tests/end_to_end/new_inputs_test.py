"""Every task learns from more than its training rows: transfer sets, mixed examples, and what a
teacher says of an example as a part of it."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from task_experiments import LABELS, config_of, table

import kd_jax as kd
from kd_jax.experiments.run import run_experiment
from kd_jax.experiments.transfer_sets import storage

TASKS = pytest.mark.parametrize("task", sorted(LABELS))

AUGMENTED = dict(name="augmented", rounds=2, mask=0.2, swap=0.1, ngram=0.2, mask_token="[MASK]")
GIVEN = {"multilabel": "soft", "regression": "soft", "tagging": "hard"}


def with_set(config, labels, **options):
    """Returns a config whose student learns from new inputs too."""
    config["transfer_sets"] = {
        "more": dict(
            teacher="teacher",
            source=AUGMENTED,
            labels=labels,
            temperature=1.0,
            confidence=0.0,
            per_class=None,
            near_duplicate=0.0,
            max_overlap=1.0,
        )
        | options
    }
    config["models"]["student"]["data"] = ("train", "more")
    return config


@pytest.mark.slow
@TASKS
def test_a_transfer_set_holds_what_the_teacher_says_of_new_inputs(task, tmp_path):
    path = table(tmp_path, task)
    config = with_set(config_of(path, task), GIVEN.get(task, "none"))
    cached = task != "masked_language_model"
    config["models"]["student"]["cached"] = ("teacher",) if cached else ()
    run_experiment(config, tmp_path / "run")
    run = tmp_path / "run"
    facts = json.loads((run / "results.json").read_text())["transfer_sets"]["more"]
    assert facts["kept"] > 50
    assert ("labels" in facts) == (task in GIVEN)
    found = kd.load(run)
    source = storage.read(
        run / "transfer_sets", "more", "text", False, found.student.class_names, found.student.task
    )
    assert len(source) == facts["kept"]
    live = np.asarray(kd.load(run).teacher(list(source.inputs)))
    if task not in GIVEN:
        assert not source.labelled.any()
    elif task == "multilabel":
        np.testing.assert_allclose(source.labels, 1 / (1 + np.exp(-live)), atol=1e-6)
    elif task == "regression":
        np.testing.assert_allclose(source.labels, live, atol=1e-5)
    else:
        for text, labels, logits in zip(source.inputs, source.labels, live, strict=True):
            words = len(text.split(" "))
            read = ~np.isnan(logits[:words]).any(axis=-1)
            np.testing.assert_array_equal(labels[:words][read], logits[:words][read].argmax(-1))
            assert (labels[:words][~read] == -1).all()
            assert (labels[words:] == -1).all()
    # Nothing is made twice, and a run that goes on reads what is there.
    (run / "results.json").unlink()
    again = run_experiment(config, run)
    assert again["transfer_sets"]["more"] == facts


@pytest.mark.slow
def test_a_set_of_words_may_be_longer_than_the_training_sentences(tmp_path):
    path = table(tmp_path, "tagging")
    new = tmp_path / "new.jsonl"
    lines = [{"words": ["red", *"abcdefgh"] * count} for count in range(1, 8)]
    new.write_text("\n".join(map(json.dumps, lines)))
    source = dict(name="unlabelled", dataset=str(new), split=None, dir=None, label=None)
    config = with_set(config_of(path, "tagging"), "hard", source=source | {"inputs": "words"})
    config["models"]["student"]["cached"] = ("teacher",)
    run_experiment(config, tmp_path / "run")
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["transfer_sets"]["more"]["kept"] == len(lines)


@pytest.mark.slow
def test_a_set_keeps_what_the_teacher_is_sure_of(tmp_path):
    path = table(tmp_path, "multilabel")
    config = with_set(config_of(path, "multilabel"), "hard", confidence=0.6)
    config["training"]["epochs"] = config["models"]["teacher"]["training"]["epochs"] = 20.0
    run_experiment(config, tmp_path / "run")
    run = tmp_path / "run"
    facts = json.loads((run / "results.json").read_text())["transfer_sets"]["more"]
    assert facts["not_chosen"] > 0
    found = kd.load(run).student
    root = run / "transfer_sets"
    source = storage.read(root, "more", "text", False, found.class_names, found.task)
    live = np.asarray(kd.load(run).teacher(list(source.inputs)))
    np.testing.assert_array_equal(source.labels, live >= 0)
    assert (1 / (1 + np.exp(-np.abs(live)))).min() >= 0.6


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("tagging", dict(labels="soft"), "labels of task 'tagging' can be 'hard' or 'none', got"),
        ("regression", dict(labels="hard"), "labels of task 'regression' can be 'soft' or 'none'"),
        ("embedding", dict(labels="soft"), "labels of task 'embedding' can be 'none', got 'soft'"),
        ("regression", dict(temperature=2.0), "temperature must be 1, as there are no prob"),
        ("multilabel", dict(per_class=5), "per_class must be None: an example of task 'multi"),
        ("regression", dict(confidence=0.5), "confidence must be 0: a teacher of task 'regre"),
    ],
)
def test_labels_that_a_teacher_does_not_give_are_refused(task, options, message, tmp_path):
    path = table(tmp_path, task)
    config = with_set(config_of(path, task), **dict(labels=GIVEN.get(task, "none")) | options)
    with pytest.raises(ValueError, match=rf"transfer_sets\.more\.{message}"):
        run_experiment(config, tmp_path / "run")


# After many other tests in one process, eight devices on few cores may wait for one another for
# longer than XLA allows; so landings leave it out.
@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("task", ["embedding", "multilabel", "regression"])
def test_examples_are_mixed_alike_on_any_devices(task, tmp_path):
    path = table(tmp_path, task)
    how = dict(kind="mixup", probability=1.0, share=0.7, concentration=1.0, candidates=1)
    weights = []
    for number, devices in enumerate((0, 1, 8)):
        config = config_of(path, task, **{"parallel.data": devices or 1, "dtype": "float64"})
        for name in ("student", "baseline"):
            config["models"][name]["training"]["mixing"] = how if devices else None
        folder = tmp_path / f"{number}"
        run_experiment(config, folder)
        weights.append(load_file(folder / "student" / "model.safetensors"))
    plain, one, eight = weights
    for name, leaf in one.items():
        np.testing.assert_allclose(eight[name], leaf, rtol=1e-9, atol=1e-9, err_msg=name)
    assert any(np.abs(leaf - plain[name]).max() > 1e-6 for name, leaf in one.items())


@pytest.mark.parametrize("task", ["masked_language_model", "tagging"])
def test_several_predictions_an_example_are_not_mixed(task, tmp_path):
    path = table(tmp_path, task)
    config = config_of(path, task)
    how = dict(kind="mixup", probability=1.0, share=1.0, concentration=1.0, candidates=1)
    config["models"]["student"]["training"]["mixing"] = how
    with pytest.raises(ValueError, match=r"mixing must be None: an example of task .* has several"):
        run_experiment(config, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["embedding", "multilabel", "regression"])
def test_a_student_is_conditioned_on_what_its_teacher_says(task, tmp_path):
    path = table(tmp_path, task)
    config = config_of(path, task)
    output = "pooled" if task == "embedding" else "logits"
    config["models"]["student"]["condition"] = dict(
        on="teacher", output=output, map="linear", drop=0.0
    )
    entry = run_experiment(config, tmp_path / "run")["models"]["student"]
    assert entry["with_teacher"]["teacher"] == "teacher"
    metrics = kd.tasks.make_task(task).metrics
    # Little training decides no class otherwise, but says it less or more surely.
    names = [*metrics, "loss"] if "loss" in entry["with_teacher"] else metrics
    with_and_without = [(entry["with_teacher"][each], entry["metrics"][each]) for each in names]
    assert any(one != other for one, other in with_and_without)


def unlabelled(file, inputs=None):
    return dict(
        name="unlabelled", dataset=str(file), split=None, dir=None, inputs=inputs, label=None
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(source=AUGMENTED | dict(rounds=0)), "more: rounds must be a whole number from 1 on"),
        (dict(source=AUGMENTED | dict(mask=2.0)), "more: mask lies between 0 and 1, got 2"),
        (
            dict(source=dict(name="mixes", rounds=1, kind="mixup", concentration=1.0)),
            "more: source 'mixes' is of images",
        ),
        (dict(source=unlabelled("nowhere.csv", "text")), "more: there is no file or folder"),
        (dict(source=unlabelled("table.csv")), "more: source.inputs must name a column of"),
        (dict(source=unlabelled("table.csv", "body")), "more: .* has no column 'body'"),
        (dict(source=unlabelled("table.csv", ("text", "id"))), "more: its source holds pairs"),
        (dict(source=unlabelled("empty.txt")), "more: its source holds nothing that can be read"),
    ],
)
def test_a_source_that_gives_nothing_is_refused_before_anything_is_trained(
    change, message, tmp_path, monkeypatch
):
    path = table(tmp_path, "regression")
    (tmp_path / "empty.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    config = with_set(config_of(path, "regression"), **dict(labels="none") | change)
    with pytest.raises(ValueError, match=rf"transfer_sets\.{message}"):
        run_experiment(config, tmp_path / "run")
    assert not [*(tmp_path / "run").glob("*/finished.json")]


def test_labels_are_asked_for_before_anything_is_trained_where_no_set_has_any(tmp_path):
    config = with_set(config_of(table(tmp_path, "regression"), "regression"), "none")
    config["models"]["student"]["data"] = ("more",)
    with pytest.raises(ValueError, match=r"models\.student\.objective\.hard learns from labels"):
        run_experiment(config, tmp_path / "run")
    assert not [*(tmp_path / "run").glob("*/finished.json")]
