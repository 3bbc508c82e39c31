"""Every task from a table of one's own to predictions, on any devices."""

import csv
import importlib.util
import itertools
import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from task_experiments import LABELS, WORDS, config_of, require_equal_on_all_devices, table

import kd_jax as kd
from kd_jax.experiments.run import run_experiment
from kd_jax.export import export
from kd_jax.export.predict import predict_to_file
from kd_jax.training.interruption import Interrupted, StopSignal

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
def test_a_new_head_of_sets_begins_at_the_frequencies_of_the_classes(tmp_path):
    path = table(tmp_path, "multilabel")
    # Every other example has the first class, hardly any the second, nearly all the third.
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split(",")[:2] for line in lines[1:]]
    sets = [[n % 2, n % 16 == 0, n % 16 != 0] for n in range(len(rows))]
    labelled = [
        ",".join([*row, *(str(int(x)) for x in y)]) for row, y in zip(rows, sets, strict=True)
    ]
    path.write_text("\n".join([lines[0], *labelled]), encoding="utf-8")
    still = {"training.optimizer.learning_rate": 1e-12, "training.epochs": 0.1}
    run_experiment(config_of(path, "multilabel", **still), tmp_path / "run")
    for name in ("teacher", "student"):
        bias = load_file(tmp_path / "run" / name / "model.safetensors")["params/classifier/bias"]
        np.testing.assert_allclose(1 / (1 + np.exp(-bias)), [0.5, 0.0625, 0.9375], atol=0.02)


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
    require_equal_on_all_devices(tmp_path, lambda changes: config_of(path, task, **changes))


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

    def in_windows(changes):
        config = config_of(path, task, **changes)
        for section in (config, *config["models"].values()):
            section["view"] |= {"max_length": 8, "long": "windows"}
        # One of the runs looks the teacher's outputs up.
        one = changes["parallel.data"] == 1
        config["models"]["student"]["cached"] = ("teacher",) if one else ()
        return config

    require_equal_on_all_devices(tmp_path, in_windows)
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


@pytest.mark.slow
@TASKS
def test_an_export_is_verified_without_pytorch_too(task, tmp_path, monkeypatch):
    config = config_of(table(tmp_path, task), task, **{"training.epochs": 0.2})
    run_experiment(config, tmp_path / "run")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "torch" else find(name, *rest),
    )
    folder = export(tmp_path / "run", None, ("huggingface",))
    assert (folder / "huggingface" / "model.safetensors").is_file()
