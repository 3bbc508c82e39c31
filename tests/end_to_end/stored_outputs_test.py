"""Students of a teacher that is only a file of outputs."""

import functools
import json
import logging
import re

import numpy as np
import pytest
from starting import make_pictures

import kd_jax as kd
from kd_jax.config.load import resolve
from kd_jax.data.run_datasets import Datasets
from kd_jax.experiments.run import run_experiment
from kd_jax.explain import explain_members
from kd_jax.export import export
from kd_jax.export.predict import predict_to_file
from kd_jax.tasks import make_task
from kd_jax.teachers.store import map_file

SMALL = dict(name="encoder", max_positions=16, type_vocabulary=2, pooling="mean", dropout=0.0)
SMALL |= dict(width=8, heads=2, layers=1, intermediate=8)
KINDS = dict(classification="logits", multilabel="logits", tagging="logits", regression="values")
KINDS |= dict(embedding="embeddings")
WORDS = ("red", "green", "blue")


def table(folder, task):
    """Texts of colours and letters, and what each task reads of them."""
    rng, path = np.random.default_rng(0), folder / "table.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(160):
            words = rng.choice([*WORDS, *"abcdefgh"], rng.integers(2, 12)).tolist()
            there = [word for word in WORDS if word in words]
            row = dict(key=f"k{number}", text=" ".join(words), label="red" in words)
            row |= dict(label=("yes" if there else "no") if task == "classification" else there)
            row |= dict(
                score=100.0 + len(there), tags=["B-x" if w in WORDS else "O" for w in words]
            )
            file.write(json.dumps(row) + "\n")
    return path


LABELS = dict(classification="label", multilabel="label", regression="score", tagging="tags")


def config_of(path, task, teacher, **changes):
    config = kd.experiment(
        "stored",
        task=task,
        primary="teacher_cosine" if task == "embedding" else None,
        data=dict(
            name=str(path),
            inputs="text",
            label=LABELS.get(task),
            id="key",
            cleaning=dict(mode="off"),
        ),
        view=dict(tokenizer="trained", vocabulary_size=60, max_length=16),
        training=dict(
            epochs=1.0,
            batch_size=16,
            optimizer=dict(learning_rate=3e-3),
            schedule=dict(warmup_steps=1),
        ),
        parallel=dict(data=1),
        checkpoint=dict(use="latest"),
        teacher=teacher,
        student=dict(model=SMALL, cached=() if "outputs" in teacher["model"] else ("teacher",)),
    )
    for name in ("teacher", "baseline"):
        config.models[name].allow_weak = True
    config.update_from_flattened_dict(changes)
    return resolve(config)


def run_of_its_own(folder, task):
    """A run with a teacher that is there, and the ids of its training rows with its outputs."""
    path = table(folder, task)
    config = config_of(path, task, dict(model=SMALL | dict(intermediate=16)))
    results = run_experiment(config, folder / "first", show=False)
    datasets = Datasets(config["data"], {}, make_task(task, config["primary"]))
    (kept,) = (folder / "first" / "teacher").glob("outputs-*/rows-*.safetensors")
    arrays, about = map_file(kept)
    logits, shape = np.array(arrays["logits"]), json.loads(about["shapes"])["logits"]
    if "sizes of logits" in arrays:
        ends = np.cumsum(arrays["sizes of logits"])
        logits = np.split(logits.reshape(-1, shape[1]), ends[:-1])
    if (units := datasets.task.into_units()) is not None:
        logits = logits.astype(np.float64) * units[0] + units[1]
    return path, results, datasets, logits


def write(path, kind, ids, outputs, lengths=None):
    """Writes outputs in another order than the data's."""
    order = np.random.default_rng(1).permutation(len(ids))
    if lengths is None:
        np.savez(path, ids=np.array(ids)[order], **{kind: outputs[order]})
        return
    with path.open("w", encoding="utf-8") as file:
        for i in order:
            row = {"id": ids[i], kind: outputs[i][: lengths[i]].tolist()}
            file.write(json.dumps(row) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted({*KINDS} - {"embedding"}))
def test_a_student_of_stored_outputs_is_the_one_of_the_teacher_that_gave_them(task, tmp_path):
    path, first, datasets, logits = run_of_its_own(tmp_path, task)
    train = datasets.splits["train"]
    words = [len(text.split()) for text in train.inputs] if task == "tagging" else None
    file = tmp_path / ("outputs.npz" if words is None else "outputs.jsonl")
    write(file, KINDS[task], train.ids, logits, words)
    teacher = dict(model=dict(outputs=str(file)))
    second = run_experiment(config_of(path, task, teacher), tmp_path / "second", show=True)
    student = [each["models"]["student"] for each in (first, second)]
    metrics = [each["metrics"] for each in student]
    if task == "regression":
        # There numbers went through the user's units.
        assert metrics[0] == pytest.approx(metrics[1], rel=1e-4)
    else:
        assert student[0]["fingerprint"] == student[1]["fingerprint"]
    # The file says nothing of other rows than those to learn from.
    entry = second["models"]["teacher"]
    assert entry["origin"] == "stored outputs"
    assert entry["parameters"] is None
    assert set(entry["metrics"].values()) == {None}
    assert second["compression"] is None
    assert second["speedup"] == {}


def test_vectors_teach_where_they_are_of_all_rows(tmp_path):
    path = table(tmp_path, "embedding")
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    vectors = np.random.default_rng(0).normal(size=(160, 8)).astype(np.float32)
    write(tmp_path / "v.npz", "embeddings", keys, vectors)
    teacher = dict(model=dict(outputs=str(tmp_path / "v.npz")))
    results = run_experiment(config_of(path, "embedding", teacher), tmp_path / "run", show=False)
    assert results["models"]["student"]["metrics"]["teacher_cosine"] is not None
    config = config_of(path, "embedding", teacher)
    learned = Datasets(config["data"], {}, make_task("embedding", "teacher_cosine")).splits["train"]
    write(tmp_path / "v.npz", "embeddings", learned.ids, vectors[: len(learned)])
    with pytest.raises(ValueError, match="compares models with their teachers there"):
        run_experiment(config, tmp_path / "other", show=False)


def test_outputs_of_another_number_of_words_than_the_text_has_are_refused(tmp_path):
    path = table(tmp_path, "tagging")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    answers = [{"id": r["key"], "logits": [[1.0, 2.0]] * len(r["tags"])} for r in rows]
    answers[7]["logits"].pop()
    (tmp_path / "o.jsonl").write_text("\n".join(map(json.dumps, answers)))
    config = config_of(path, "tagging", dict(model=dict(outputs=str(tmp_path / "o.jsonl"))))
    with pytest.raises(ValueError, match=r"models.teacher: .* words for id 'k7', whose text in"):
        run_experiment(config, tmp_path / "run", show=False)


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """A table, its keys and probabilities that know the class."""
    folder = tmp_path_factory.mktemp("classes")
    path = table(folder, "classification")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    known = np.array([[0.1, 0.9] if row["label"] == "yes" else [0.9, 0.1] for row in rows])
    return path, [row["key"] for row in rows], known


def npz(path, classes, names=("no", "yes"), kind="probabilities", **changes):
    _, keys, known = classes
    arrays = {"ids": np.array(keys), kind: known, "class_names": np.array(names)} | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return dict(model=dict(outputs=str(path)))


def test_classes_are_found_by_name_and_the_teacher_is_told_before_anyone_learns(
    classes, tmp_path, caplog
):
    swapped = npz(tmp_path / "o.npz", classes, ("YES", "no"), probabilities=classes[2][:, ::-1])
    config = config_of(classes[0], "classification", swapped)
    with caplog.at_level(logging.INFO):
        results = run_experiment(config, tmp_path / "run", show=True)
    assert "its outputs are brought into the data's order" in caplog.text
    assert "teacher is not trained here; selection split: accuracy 100.00 %" in caplog.text
    teacher, student = (results["models"][name] for name in ("teacher", "student"))
    assert teacher["accuracy"] == 1.0
    assert teacher["loss"] == pytest.approx(-np.log(0.9), rel=1e-5)
    assert 0 <= student["agreement"]["teacher"] <= 1
    # The same start finds it finished; other outputs under the same name are not the run's.
    assert run_experiment(config, tmp_path / "run", show=False) == results
    npz(tmp_path / "o.npz", classes)
    with pytest.raises(ValueError, match="stored outputs changed since this run began"):
        run_experiment(config, tmp_path / "run", show=False)


def refused(classes, teacher, message, folder, **changes):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        run_experiment(
            config_of(classes[0], "classification", teacher, **changes), folder / "run", show=False
        )
    assert "\n" not in str(caught.value)
    assert not [*(folder / "run").glob("*/checkpoints")]


def test_outputs_that_are_not_the_datas_are_refused_before_anything_is_trained(classes, tmp_path):
    path, keys, known = classes
    file = tmp_path / "o.npz"
    refused(classes, npz(file, classes, ("no", "maybe")), "outputs of 'no', 'maybe'", tmp_path)
    wide = npz(file, classes, None, probabilities=np.full((160, 3), 1 / 3), class_names=None)
    refused(classes, wide, "has 3 outputs a row, the data has 'no', 'yes'", tmp_path)
    lacking = npz(file, classes, ids=np.array([*keys[1:], "other"]))
    refused(classes, lacking, "has no outputs for 1 of the", tmp_path)
    data = config_of(path, "classification", lacking)["data"]
    (held_out,) = Datasets(data, {}).splits["selection"].ids[:1]
    partial = npz(file, classes, ids=np.array([k if k != held_out else "other" for k in keys]))
    refused(classes, partial, "models.teacher: ", tmp_path)
    refused(classes, partial, "has no outputs for 1 of the 16 rows of", tmp_path)
    strangers = npz(file, classes, ids=np.array([f"x{key}" for key in keys]))
    refused(classes, strangers, "it has outputs for no row of", tmp_path)
    scores = npz(file, classes, probabilities=3 * known)
    refused(classes, scores, "probabilities that aren't between 0 and 1 for id 'k0'", tmp_path)
    halves = npz(file, classes, probabilities=known / 2)
    refused(classes, halves, "probabilities that don't sum to 1 for id 'k0'", tmp_path)
    vectors = npz(file, classes, kind="embeddings")
    refused(classes, vectors, "needs logits or probabilities, not embeddings", tmp_path)
    wrong = npz(file, classes, probabilities=known[:, ::-1])
    weak = {"models.teacher.allow_weak": False}
    refused(classes, wrong, "worse than a guess", tmp_path, **weak)
    refused(classes, dict(model=dict(outputs="none.npz")), "there is no file 'none.npz'", tmp_path)
    refused(classes, dict(model=dict(outputs="o.npz", knd=1)), "has no option 'knd'", tmp_path)
    refused(
        classes, dict(model=dict(outputs="o.npz", kind="scores")), "unknown kind 'scores'", tmp_path
    )


def test_teaching_asks_no_file_about_rows_that_it_need_not_have(classes, tmp_path):
    path, keys, _ = classes
    data = config_of(path, "classification", npz(tmp_path / "o.npz", classes))["data"]
    reported = {*Datasets(data, {}).splits["evaluation"].ids}
    ids = np.array([f"x{key}" if key in reported else key for key in keys])
    config = config_of(path, "classification", npz(tmp_path / "o.npz", classes, ids=ids))
    config["models"]["student"]["cached"] = ("teacher",)
    assert run_experiment(config, tmp_path / "run", show=False, teach=True) == {}


@pytest.mark.parametrize("repeated", [None, 2])
def test_mixed_examples_are_not_those_that_a_file_knows(classes, repeated, tmp_path):
    mixing = dict(kind="mixup", probability=1.0, share=1.0, concentration=1.0, candidates=1)
    config = config_of(classes[0], "classification", npz(tmp_path / "o.npz", classes))
    for model in ("student", "baseline"):
        config["models"][model]["training"] |= dict(mixing=mixing, augmented_epochs=repeated)
    message = r"\(teacher\) know each example as it is: training.mixing must be None$"
    with pytest.raises(ValueError, match=message):
        run_experiment(config, tmp_path / "run", show=False)


def test_only_what_is_known_of_such_a_teacher_may_be_asked_of_it(classes, tmp_path):
    teacher = npz(tmp_path / "o.npz", classes)
    for message, changes in {
        "compare.student names 'teacher', of which only outputs": {"compare.student": "teacher"},
        "models.teacher is a file of outputs: it has no objective": {
            "models.teacher.objective": {"hard": {"term": "cross_entropy", "weight": 1.0}}
        },
        "models.teacher.model has 'name' and 'outputs'": {"models.teacher.model.name": "encoder"},
    }.items():
        config = config_of(classes[0], "classification", teacher)
        for key, value in changes.items():
            *above, last = key.split(".")
            functools.reduce(dict.__getitem__, above, config)[last] = value
        with pytest.raises(ValueError, match=re.escape(message)):
            run_experiment(config, tmp_path / "run", show=False)


def test_a_file_among_the_teachers_is_a_model_of_its_own(classes, tmp_path):
    npz(tmp_path / "o.npz", classes)
    config = kd.experiment(
        "short",
        data=dict(name=str(classes[0]), inputs="text", label="label"),
        student=dict(model=SMALL, teachers=(f"file:{tmp_path / 'o.npz'}",)),
    )
    assert config.models.student.teachers == ("teacher",)
    assert config.models.teacher.model.outputs == str(tmp_path / "o.npz")
    # A second one beside it has its file's name.
    config.models.student.teachers = ("teacher", f"file:{tmp_path / 'b-2.npz'}")
    assert resolve(config)["models"]["student"]["teachers"] == ("teacher", "b_2")


@pytest.mark.slow
def test_what_predict_writes_teaches_by_the_rows_numbers(tmp_path):
    """An earlier student's answers on the table are a file of outputs as they are."""
    path = table(tmp_path, "classification")
    first = config_of(path, "classification", dict(model=SMALL | dict(intermediate=16)))
    run_experiment(first, tmp_path / "first", show=False)
    export(tmp_path / "first", None, ("kd_jax",))
    predict_to_file(tmp_path / "first", path, tmp_path / "answers.jsonl")
    teacher = dict(model=dict(outputs=str(tmp_path / "answers.jsonl")))
    config = config_of(path, "classification", teacher, **{"data.id": None})
    results = run_experiment(config, tmp_path / "second", show=False)
    ours, theirs = results["models"]["teacher"], None
    theirs = json.loads((tmp_path / "first" / "results.json").read_text())["models"]["student"]
    assert ours["accuracy"] == theirs["accuracy"]
    # Probabilities are rounded to six digits.
    assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
    # Without the teacher itself nobody can say what it rests on.
    with pytest.raises(ValueError, match="of 'teacher' only outputs on the data are known"):
        explain_members(tmp_path / "second", None, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "pictures", "prepared"])
def test_without_a_column_of_ids_rows_are_known_by_their_place(form, tmp_path):
    if form == "folder":
        rows = table(tmp_path, "classification").read_text().splitlines(keepends=True)
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "train.jsonl").write_text("".join(rows[:120]))
        (tmp_path / "own" / "test.jsonl").write_text("".join(rows[120:]))
        data = dict(name=str(tmp_path / "own"), inputs="text", train="train")
        data |= dict(selection="test[:50%]", evaluation="test[50%:]")
        view = dict(tokenizer="trained", vocabulary_size=60, max_length=16)
        model, known = SMALL, ("train:1", "test:40")
    elif form == "pictures":
        make_pictures(tmp_path / "own")
        data = dict(name=str(tmp_path / "own"), train="train", inputs="image")
        data |= dict(selection="test[:50%]", evaluation="test[50%:]")
        model, view = dict(name="cnn", widths=(2,), batch_norm=False), dict(size=12, channels=3)
        known = ("train/bright/0.png", "test/dark/9.png")
    else:
        data, model, view = "digits", dict(name="cnn", widths=(2,), batch_norm=False), None
        known = ("train:0", "test:358")
    config = kd.experiment(
        "places",
        data=data,
        view=view,
        training=dict(epochs=1.0, batch_size=20),
        parallel=dict(data=1),
        teacher=dict(model=dict(outputs=str(tmp_path / "o.npz"))),
        student=dict(model=model),
    )
    plain = resolve(config)
    datasets = Datasets(plain["data"], {})
    ids = [each for source in datasets.splits.values() for each in source.ids]
    assert {*known} <= {*ids}
    labels = np.concatenate([source.labels for source in datasets.splits.values()])
    logits = 5 * np.eye(datasets.num_classes, dtype=np.float32)[labels]
    np.savez(tmp_path / "o.npz", ids=ids, logits=logits, class_names=datasets.class_names)
    results = run_experiment(plain, tmp_path / "run", show=False)
    assert results["models"]["teacher"]["accuracy"] == 1.0


def test_one_id_of_two_rows_is_refused(tmp_path):
    path = table(tmp_path, "classification")
    path.write_text(path.read_text().replace('"k5"', '"k4"'))
    config = config_of(path, "classification", dict(model=dict(outputs="o.npz")))
    with pytest.raises(ValueError, match="two different rows have the id 'k4'"):
        run_experiment(config, tmp_path / "run", show=False)
