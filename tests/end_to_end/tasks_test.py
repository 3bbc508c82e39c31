"""Every task from a table of one's own to predictions, on any devices."""

import csv
import itertools
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import kd_jax as kd
from kd_jax.config.load import resolve
from kd_jax.experiments.run import run_experiment
from kd_jax.experiments.transfer_sets import storage
from kd_jax.export import export
from kd_jax.export.predict import predict_to_file
from kd_jax.training.interruption import Interrupted, StopSignal

ENCODER = dict(
    name="encoder",
    max_positions=16,
    type_vocabulary=2,
    pooling="mean",
    width=8,
    heads=2,
    dropout=0.0,
)
WORDS = ("red", "green", "blue")


def table(folder, task):
    """Sentences of three words; their sets, or their numbers, are a function of the words."""
    if task in ("tagging", "embedding", "masked_language_model"):
        return sentences(folder) if task == "tagging" else pairs(folder)
    rng = np.random.default_rng(0)
    path = folder / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", *(WORDS if task == "multilabel" else ("score",))])
        for number in range(160):
            there = rng.random(3) < 0.5
            fill = " ".join(rng.choice([*"abcdefghijklmnopqrstuvwxyz"], 6))
            text = " ".join([*np.array(WORDS)[there], fill])
            score = 100 + 10 * (there @ [1, 2, 4])
            rows.writerow([number, text, *(there.astype(int) if task == "multilabel" else [score])])
    return path


def sentences(folder):
    """Sentences in which the colours are entities, two in a row one of two words."""
    rng = np.random.default_rng(0)
    path = folder / "sentences.conll"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(160):
            before = "O"
            for word in rng.choice([*WORDS, *"abcdefgh"], rng.integers(2, 20)):
                tag = "O" if word not in WORDS else "B-colour" if before == "O" else "I-colour"
                file.write(f"{word}\t{tag}\n")
                before = tag
            file.write("\n")
    return path


def pairs(folder):
    """Pairs of short texts; the score is how many words both have."""
    rng = np.random.default_rng(0)
    path = folder / "pairs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["first", "second", "score"])
        for _ in range(80):
            both = [rng.choice([*WORDS, *"abcdefghijk"], 4, replace=False) for _ in range(2)]
            rows.writerow([*map(" ".join, both), len({*both[0]} & {*both[1]})])
    return path


LABELS = {
    "embedding": "score",
    "masked_language_model": None,
    "multilabel": WORDS,
    "regression": "score",
    "tagging": "tags",
}


INPUTS = {
    "embedding": ("first", "second"),
    "masked_language_model": "first",
    "tagging": "words",
}


def config_of(path, task, **changes):
    inputs, label = INPUTS.get(task, "text"), LABELS[task]
    config = kd.experiment(
        "tasks",
        task=task,
        data=dict(name=str(path), inputs=inputs, label=label, cleaning=dict(mode="off")),
        view=dict(tokenizer="trained", vocabulary_size=120, max_length=16),
        training=dict(
            epochs=1.0,
            batch_size=16,
            optimizer=dict(learning_rate=3e-3),
            schedule=dict(warmup_steps=1),
        ),
        parallel=dict(data=1),
        checkpoint=dict(use="latest"),
        teacher=dict(model=dict(**ENCODER, layers=1, intermediate=16)),
        student=dict(model=dict(**ENCODER, layers=1, intermediate=8)),
    )
    if task == "embedding":
        # Nothing learns from labels: a teacher at random is as good as any.
        for model in ("teacher", "baseline"):
            config.models[model].allow_weak = True
    config.update_from_flattened_dict(changes)
    return resolve(config)


TASKS = pytest.mark.parametrize("task", sorted(LABELS))
# Landings try these on tasks that differ most.
EVERY_TIME = ("embedding", "masked_language_model")
FEWER = pytest.mark.parametrize(
    "task",
    [pytest.param(t, marks=() if t in EVERY_TIME else pytest.mark.soak) for t in sorted(LABELS)],
)
SLOW = [pytest.param(task, marks=pytest.mark.slow) for task in sorted({*LABELS} - {"regression"})]


@pytest.mark.parametrize("task", [*SLOW, "regression"])
def test_a_run_reports_the_tasks_metrics_and_its_terms_are_the_tasks(task, tmp_path):
    path = table(tmp_path, task)
    results = run_experiment(config_of(path, task), tmp_path / "run", show=True)
    metrics = {
        "embedding": {"spearman", "pearson", "teacher_cosine", "recall_at_1"},
        "masked_language_model": {"perplexity", "token_accuracy"},
        "multilabel": {"macro_f1", "micro_f1", "mean_average_precision", "exact_set_accuracy"},
        "regression": {"spearman", "pearson", "rmse"},
        "tagging": {"entity_f1", "token_accuracy"},
    }[task]
    entry = results["models"]["student"]
    assert entry["metrics"].keys() == metrics | {"loss"}
    assert entry["selection"].keys() == metrics | {"loss"}
    assert results["task"]["name"] == task
    logged = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert any("soft" in line and line["model"] == "student" for line in logged)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    terms = {n: t["term"] for n, t in config["models"]["student"]["objective"].items()}
    wanted = {
        "embedding": {"soft": "cosine_distance"},
        "masked_language_model": {"hard": "cross_entropy", "soft": "soft_target_kl"},
        "multilabel": {"hard": "binary_cross_entropy", "soft": "binary_soft_target_kl"},
        "regression": {"hard": "squared_error", "soft": "logit_mse"},
        "tagging": {"hard": "cross_entropy", "soft": "soft_target_kl"},
    }
    assert terms == wanted[task]
    # The same call finds it finished, and prints the same table.
    again = run_experiment(config_of(path, task), tmp_path / "run")
    assert again["models"] == results["models"]


@pytest.mark.slow
@FEWER
def test_a_run_that_is_stopped_ends_as_if_it_had_not_been(task, tmp_path, monkeypatch):
    path = table(tmp_path, task)
    changes = {"checkpoint.every_steps": 3, "training.epochs": 2.0}
    whole = run_experiment(config_of(path, task, **changes), tmp_path / "whole")
    # Stopped between two checkpoints, by every model anew.
    asked = StopSignal.asked
    counts = itertools.count(1)
    monkeypatch.setattr(
        StopSignal,
        "asked",
        lambda self, *, agree: next(counts) % 8 == 0 or asked(self, agree=agree),
    )
    stops = 0
    while True:
        try:
            parts = run_experiment(config_of(path, task, **changes), tmp_path / "parts")
            break
        except Interrupted:
            stops += 1
    assert stops >= 1
    for name, entry in whole["models"].items():
        assert parts["models"][name]["fingerprint"] == entry["fingerprint"]
        assert parts["models"][name]["metrics"] == entry["metrics"]


@pytest.mark.slow
def test_thresholds_are_found_for_each_model_and_go_with_it(tmp_path):
    path = table(tmp_path, "multilabel")
    tuned = {"task": {"name": "multilabel", "threshold": "tuned"}}
    config = config_of(path, "multilabel") | tuned
    results = run_experiment(config, tmp_path / "run", show=False)
    found = {name: model["thresholds"] for name, model in results["models"].items()}
    assert [*found["student"]] == [*WORDS]
    assert found["student"] != found["teacher"]
    told = json.loads((tmp_path / "run" / "student" / "finished.json").read_text())
    assert told["task"]["thresholds"] == [*found["student"].values()]
    export(tmp_path / "run", None, ("kd_jax",))
    answers = tmp_path / "answers.jsonl"
    predict_to_file(tmp_path / "run", path, answers)
    for line in answers.read_text().splitlines():
        answer = json.loads(line)
        likely = [n for n, p in answer["probabilities"].items() if p >= found["student"][n]]
        assert answer["labels"] == likely
    # Found again where the models are there already.
    (tmp_path / "run" / "results.json").unlink()
    assert run_experiment(config, tmp_path / "run")["models"] == results["models"]


@pytest.mark.slow
@TASKS
def test_devices_train_what_one_does(task, tmp_path):
    path = table(tmp_path, task)
    found = {}
    for backend, devices in (("jit", 1), ("jit", 8), ("pmap", 8)):
        changes = {"parallel.backend": backend, "parallel.data": devices, "dtype": "float64"}
        folder = tmp_path / f"{backend}{devices}"
        results = run_experiment(config_of(path, task, **changes), folder)
        found[backend, devices] = (
            results["models"]["student"]["metrics"],
            load_file(folder / "student" / "model.safetensors"),
        )
    metrics, weights = found["jit", 1]
    for others, theirs in found.values():
        for name, leaf in weights.items():
            np.testing.assert_allclose(theirs[name], leaf, rtol=1e-9, atol=1e-9, err_msg=name)
        for name, value in metrics.items():
            if value is None:
                assert others[name] is None
                continue
            np.testing.assert_allclose(others[name], value, rtol=1e-9, err_msg=name)


def longer(path):
    """Makes every third text of a table six times as long."""
    rows = list(csv.reader(path.read_text().splitlines()))
    for number, row in enumerate(rows[1:]):
        row[1] = " ".join([row[1]] * (6 if number % 3 == 0 else 1))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("task", ["embedding", "multilabel", "regression"])
def test_long_texts_are_read_in_windows_on_any_devices_and_when_predicted(task, tmp_path):
    path = longer(table(tmp_path, task))
    found = {}
    for backend, devices in (("jit", 1), ("jit", 8), ("pmap", 8)):
        changes = {"parallel.backend": backend, "parallel.data": devices, "dtype": "float64"}
        config = config_of(path, task, **changes)
        for section in (config, *config["models"].values()):
            section["view"] |= {"max_length": 8, "long": "windows"}
        config["models"]["student"]["cached"] = ("teacher",) if devices == 1 else ()
        folder = tmp_path / f"{backend}{devices}"
        results = run_experiment(config, folder)
        found[backend, devices] = (
            results["models"]["student"]["metrics"],
            load_file(folder / "student" / "model.safetensors"),
        )
    metrics, weights = found["jit", 1]
    for others, theirs in found.values():
        for name, leaf in weights.items():
            np.testing.assert_allclose(theirs[name], leaf, rtol=1e-9, atol=1e-9, err_msg=name)
        for name, value in metrics.items():
            assert (value is None) == (others[name] is None)
            if value is not None:
                np.testing.assert_allclose(others[name], value, rtol=1e-9, err_msg=name)
    folder = export(tmp_path / "jit1")
    assert not (folder / "model.onnx").exists()
    text = " ".join(["red", *"abcdef", "blue", *"ghij"])
    student = kd.load(tmp_path / "jit1").student
    one = np.asarray(student([text]))[0]
    # Six words beside two special tokens: two windows, whose outputs are averaged.
    apart = np.asarray(student([" ".join(text.split()[:6]), " ".join(text.split()[6:])]))
    np.testing.assert_allclose(one, apart.mean(axis=0), rtol=1e-5, atol=1e-6)
    (tmp_path / "in.csv").write_text(f"id,text,first,second\n0,{text},{text},{text}\n")
    predict_to_file(tmp_path / "jit1", tmp_path / "in.csv", tmp_path / "out.jsonl")
    answer = json.loads((tmp_path / "out.jsonl").read_text())
    if task == "multilabel":
        wanted = dict(zip(WORDS, (1 / (1 + np.exp(-one))).tolist(), strict=True))
        assert answer["probabilities"] == pytest.approx(wanted, abs=1e-5)
    if task == "embedding":
        np.testing.assert_allclose(answer["embedding"], one, rtol=1e-5, atol=1e-6)
    assert "read in up to 8 parts of 8 tokens" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_tags_are_predicted_word_by_word_as_by_the_live_model(tmp_path):
    path = table(tmp_path, "tagging")
    config = config_of(path, "tagging", **{"training.epochs": 20.0})
    # The teacher's outputs a word are stored as well.
    config["models"]["student"]["cached"] = ("teacher",)
    results = run_experiment(config, tmp_path / "run")
    assert results["models"]["student"]["metrics"]["entity_f1"] > 0.6
    folder = export(tmp_path / "run")
    assert json.loads((folder / "huggingface" / "config.json").read_text())["architectures"] == [
        "BertForTokenClassification"
    ]
    predict_to_file(tmp_path / "run", path, tmp_path / "out.jsonl")
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    texts = [
        " ".join(line.split("\t")[0] for line in sentence.splitlines())
        for sentence in path.read_text().strip().split("\n\n")
    ]
    student = kd.load(tmp_path / "run").student
    live = np.asarray(student(texts))
    assert len(answers) == len(texts) == len(live)
    for text, answer, logits in zip(texts, answers, live, strict=True):
        words = len(text.split(" "))
        assert np.isnan(logits[words:]).all()
        # Sixteen tokens are read, two of which are special; later words have no tag.
        wanted = [student.class_names[int(k)] for k in logits[: min(words, 14)].argmax(-1)]
        assert answer["tags"] == wanted + [None] * (words - len(wanted))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_an_export_predicts_what_the_live_model_says(task, tmp_path):
    path = table(tmp_path, task)
    run_experiment(config_of(path, task), tmp_path / "run")
    folder = export(tmp_path / "run")
    kinds = {"multilabel": "multi_label_classification", "regression": "regression"}
    said = json.loads((folder / "huggingface" / "config.json").read_text())
    assert said["problem_type"] == kinds[task]
    predict_to_file(tmp_path / "run", path, tmp_path / "out.jsonl", keep={"id": "id"})
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert [answer["id"] for answer in answers] == [row["id"] for row in rows]
    live = np.asarray(kd.load(tmp_path / "run").student([row["text"] for row in rows]))
    if task == "multilabel":
        wanted = [[w for w, z in zip(WORDS, line, strict=True) if z >= 0] for line in live]
        assert [answer["labels"] for answer in answers] == wanted
        return
    found = np.array([answer["values"]["score"] for answer in answers])
    facts = json.loads((tmp_path / "run" / "student" / "finished.json").read_text())["task"]
    np.testing.assert_allclose(found, live[:, 0] * facts["scale"][0] + facts["mean"][0], rtol=1e-5)
    assert 100 < found.mean() < 170


@pytest.mark.slow
def test_vectors_need_no_labels_and_are_predicted_as_by_the_live_model(tmp_path):
    path = table(tmp_path, "embedding")
    config = config_of(path, "embedding", primary="teacher_cosine")
    config["data"] |= {"inputs": "first", "label": None}
    results = run_experiment(config, tmp_path / "run")
    entry = results["models"]["student"]
    assert entry["metrics"]["spearman"] is None
    assert entry["selection"]["teacher_cosine"] > 0
    folder = export(tmp_path / "run")
    assert not (folder / "huggingface" / "head.safetensors").exists()
    assert (folder / "huggingface" / "1_Pooling" / "config.json").is_file()
    predict_to_file(tmp_path / "run", path, tmp_path / "out.jsonl")
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    live = np.asarray(kd.load(tmp_path / "run").student([row["first"] for row in rows]))
    found = np.array([answer["embedding"] for answer in answers])
    np.testing.assert_allclose(found, live, rtol=1e-5, atol=1e-5)
    # The folder is a teacher like any other.
    again, variables = kd.load_pretrained(folder / "huggingface", 1, predicts="embedding")
    assert again.predicts == "embedding"
    assert "classifier" not in variables["params"]


@pytest.mark.slow
def test_a_masked_language_model_opens_in_transformers_and_fills_masks_in(tmp_path):
    path = table(tmp_path, "masked_language_model")
    results = run_experiment(config_of(path, "masked_language_model"), tmp_path / "run")
    metrics = results["models"]["student"]["metrics"]
    # The same tokens are hidden in every evaluation.
    assert results["models"]["student"]["selection"]["perplexity"] > 1
    assert metrics["perplexity"] == pytest.approx(np.exp(metrics["loss"]), rel=1e-6)
    folder = export(tmp_path / "run")
    said = json.loads((folder / "huggingface" / "config.json").read_text())
    assert said["architectures"] == ["BertForMaskedLM"]
    assert "token" not in said.get("id2label", {}).values()
    # More inputs than are predicted at a time, with masks in some of them.
    many = kd.load(tmp_path / "run").student(["a", *["[MASK] " * 9] * 100])
    assert many.shape[0] == 101
    assert np.isnan(many[0]).all()
    (tmp_path / "in.txt").write_text("red [MASK] blue [MASK]\nno mask\n")
    predict_to_file(tmp_path / "run", tmp_path / "in.txt", tmp_path / "out.jsonl")
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert [len(tokens) for tokens in first["masks"]] == [5, 5]
    assert second["masks"] == []
    _, variables = kd.load_pretrained(folder / "huggingface", 1, predicts="vocabulary")
    assert {"language_dense", "language_norm", "language_bias"} <= variables["params"].keys()


def test_scores_are_asked_for_where_they_choose_models(tmp_path):
    config = config_of(table(tmp_path, "embedding"), "embedding")
    config["data"]["label"] = None
    with pytest.raises(ValueError, match=r"data\.label is None, and task 'embedding' needs labels"):
        run_experiment(config, tmp_path / "run")


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
    with_and_without = [(entry["with_teacher"][each], entry["metrics"][each]) for each in metrics]
    assert any(one != other for one, other in with_and_without)


@pytest.mark.slow
@FEWER
def test_an_ensemble_teaches_and_is_evaluated_like_any_model(task, tmp_path):
    path = table(tmp_path, task)
    config = config_of(path, task)
    models = config["models"]
    models["other"] = {k: v for k, v in models["teacher"].items() if k != "like"}
    combine = "mean_logits" if task in ("regression", "embedding") else "mean_probabilities"
    section = dict(name="ensemble", members=("teacher", "other"), combine=combine)
    models["both"] = models["teacher"] | {"model": section | dict(weights=None, temperatures=None)}
    models["both"]["objective"] = {}
    models["student"]["teachers"] = ("both",)
    config["compare"]["teacher"] = "both"
    entries = run_experiment(config, tmp_path / "run")["models"]
    primary = kd.tasks.make_task(task).primary
    assert entries["both"]["origin"] == "ensemble"
    assert entries["both"]["metrics"][primary] is not None
    assert ("shapley" in entries["both"]) == (task in ("multilabel", "regression"))
    if "shapley" in entries["both"]:
        found = entries["both"]["shapley"]
        assert found["all"] == pytest.approx(entries["both"]["metrics"][primary], abs=1e-6)
        assert sum(found["values"].values()) == pytest.approx(found["all"] - found["empty"])
    for wrong in ("least_loss", *(("mean_probabilities",) if combine == "mean_logits" else ())):
        models["both"]["model"]["combine"] = wrong
        with pytest.raises(ValueError, match=rf"combine '{wrong}' isn't for task '{task}'"):
            run_experiment(config, tmp_path / "wrong")


@pytest.mark.slow
def test_weights_of_another_task_or_other_units_are_told_apart(tmp_path):
    path = table(tmp_path, "regression")
    config = config_of(path, "regression")
    run_experiment(config, tmp_path / "run")
    exported = export(tmp_path / "run", "teacher", ["kd_jax", "huggingface"])
    # The same numbers, twice as large.
    lines = path.read_text().splitlines()
    larger = tmp_path / "larger.csv"
    parts = [line.rpartition(",") for line in lines[1:]]
    shifted = [f"{text},{2 * float(score)}" for text, _, score in parts]
    larger.write_text("\n".join([lines[0], *shifted]))
    other = config_of(larger, "regression")
    other["models"]["teacher"] |= {"restore": str(tmp_path / "run" / "teacher")}
    with pytest.raises(ValueError, match="learned numbers of mean"):
        run_experiment(other, tmp_path / "other")
    # An export is converted, and correlates with the doubled numbers as with its own.
    scores = {}
    for name, folder in (("own", exported), ("transformers", exported / "huggingface")):
        config = config_of(larger, "regression")
        config["models"]["teacher"] |= {"model": {"pretrained": str(folder)}, "objective": {}}
        config["view"] = config["models"]["teacher"]["view"] = {
            "tokenizer": str(folder),
            "max_length": 16,
        }
        for model in config["models"].values():
            model["view"] = config["view"]
        results = run_experiment(config, tmp_path / name)
        scores[name] = results["models"]["teacher"]["metrics"]
    assert scores["own"] == pytest.approx(scores["transformers"], rel=1e-5)
    first = json.loads((tmp_path / "run" / "results.json").read_text())["models"]["teacher"]
    assert scores["own"]["pearson"] == pytest.approx(first["metrics"]["pearson"], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"primary": "accuracy"}, "task 'regression' has no metric 'accuracy'; it has spearman"),
        (
            {"models.student.objective.hard.term": "decoupled_kd"},
            "it is for classes, and the task 'regression' predicts numbers; terms for these are",
        ),
        ({"data.label": "id_of"}, "has no column 'id_of'"),
        ({"data.label": "text"}, "holds no number but"),
    ],
)
def test_what_does_not_fit_the_task_is_refused_before_anything_is_trained(
    changes, message, tmp_path
):
    config = config_of(table(tmp_path, "regression"), "regression", **changes)
    with pytest.raises(ValueError, match=message):
        run_experiment(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*/*"))


def test_words_are_of_one_column(tmp_path):
    config = config_of(table(tmp_path, "tagging"), "tagging")
    config["data"]["inputs"] = ("words", "tags")
    with pytest.raises(ValueError, match=r"data\.inputs names 2 columns, and task 'tagging' reads"):
        run_experiment(config, tmp_path / "run")


def test_several_columns_of_one_class_each_are_no_classification(tmp_path):
    config = config_of(table(tmp_path, "multilabel"), "multilabel")
    config["task"] = "classification"
    with pytest.raises(ValueError, match=r"data\.label names 3 columns, and an example has one"):
        run_experiment(config, tmp_path / "run")


def test_what_needs_exclusive_classes_is_refused_by_its_key(tmp_path):
    config = config_of(table(tmp_path, "regression"), "regression")
    config["models"]["student"]["condition"] = dict(
        on="teacher", output="probabilities", map="linear", drop=0.0
    )
    with pytest.raises(ValueError, match=r"student\.condition\.output='probabilities' needs one"):
        run_experiment(config, tmp_path / "run")
