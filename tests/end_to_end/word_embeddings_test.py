"""A student on its teacher's word embeddings, from a config to an export."""

import itertools

import numpy as np
import pytest
from safetensors.numpy import load_file
from task_experiments import config_of, table

import kd_jax as kd
from kd_jax.data.views.cut_vocabulary import old_ids
from kd_jax.data.views.text import load_tokenizer
from kd_jax.experiments.run import run_experiment
from kd_jax.export import export
from kd_jax.models.word_embeddings import reduce
from kd_jax.training.interruption import Interrupted, StopSignal

STUDENT = dict(name="bilstm", state=4, layers=1, head=(), dropout=0.0)
WORDS = "params/word_embeddings/embedding"


def config(folder, embeddings, **changes):
    found = config_of(table(folder, "regression"), "regression", **changes)
    for name in ("student", "baseline"):
        found["models"][name]["model"] = STUDENT | {"embeddings": embeddings}
    return found


@pytest.mark.slow
def test_a_student_keeps_what_its_teacher_knows_of_words(tmp_path):
    options = dict(from_model="teacher", rank=3, trainable=False)
    results = run_experiment(config(tmp_path, options), tmp_path / "run")
    # Whoever starts from another model comes after it.
    assert results["order"][0] == "teacher"
    weights = {
        name: load_file(tmp_path / "run" / name / "model.safetensors")
        for name in ("teacher", "student", "baseline")
    }
    wanted = reduce(weights["teacher"][WORDS], 3)
    for name in ("student", "baseline"):
        np.testing.assert_array_equal(weights[name][WORDS], wanted)
    assert not np.array_equal(
        weights["student"]["params/classifier/kernel"],
        weights["baseline"]["params/classifier/kernel"],
    )
    folder = export(tmp_path / "run", None, ("kd_jax",))
    module, variables = kd.load_pretrained(folder)
    assert module.width == 3
    np.testing.assert_array_equal(variables["params"]["word_embeddings"]["embedding"], wanted)


@pytest.mark.slow
def test_a_run_on_kept_embeddings_that_is_stopped_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    options = dict(from_model="teacher", trainable=False)
    often = {"checkpoint.every_steps": 3}
    whole = run_experiment(config(tmp_path, options, **often), tmp_path / "whole")
    asked, counts = StopSignal.asked, itertools.count(1)
    monkeypatch.setattr(
        StopSignal,
        "asked",
        lambda self, *, agree: next(counts) % 8 == 0 or asked(self, agree=agree),
    )
    for _ in range(9):
        try:
            parts = run_experiment(config(tmp_path, options, **often), tmp_path / "parts")
            break
        except Interrupted:
            continue
    assert next(counts) > 8
    for name, entry in whole["models"].items():
        assert parts["models"][name]["fingerprint"] == entry["fingerprint"]


@pytest.mark.slow
def test_trained_embeddings_begin_as_the_teachers_and_a_stopped_run_goes_on(tmp_path):
    options = dict(from_model="teacher", trainable=True)
    still = {"training.optimizer.learning_rate": 1e-9, "training.epochs": 0.2}
    run_experiment(config(tmp_path, options, **still), tmp_path / "run")
    weights = {
        name: load_file(tmp_path / "run" / name / "model.safetensors")[WORDS]
        for name in ("teacher", "student")
    }
    np.testing.assert_allclose(weights["student"], weights["teacher"], atol=1e-6)
    assert not np.array_equal(weights["student"], weights["teacher"])
    # Of another folder the same begins alike.
    other = dict(pretrained=str(tmp_path / "run" / "teacher"), trainable=False)
    run_experiment(config(tmp_path, other, **still), tmp_path / "other")
    kept = load_file(tmp_path / "other" / "student" / "model.safetensors")[WORDS]
    np.testing.assert_array_equal(kept, weights["teacher"])


@pytest.mark.slow
def test_a_cut_vocabulary_has_the_rows_of_its_words_and_is_exported_with_them(tmp_path):
    options = dict(from_model="teacher", trainable=False)
    found = config(tmp_path, options)
    # Most words of this tokenizer are of other texts.
    (tmp_path / "whole").mkdir()
    others = [f"other{number}" for number in range(50)]
    rows = (tmp_path / "table.csv").read_text().splitlines()
    texts = [*others, *(row.split(",")[1] for row in rows)]
    whole = load_tokenizer("trained", texts=texts, vocabulary_size=1_000)
    whole.save(str(tmp_path / "whole" / "tokenizer.json"))
    view = dict(tokenizer=str(tmp_path / "whole"), max_length=16)
    found["models"]["teacher"]["view"] = view
    for name in ("student", "baseline"):
        found["models"][name]["view"] = view | {"vocabulary": "training"}
    run_experiment(found, tmp_path / "run")
    teacher, student = (
        load_file(tmp_path / "run" / name / "model.safetensors")[WORDS]
        for name in ("teacher", "student")
    )
    cut = load_tokenizer(str(tmp_path / "run" / "student"))
    assert len(student) == cut.get_vocab_size() <= whole.get_vocab_size() - len(others)
    np.testing.assert_array_equal(student, teacher[old_ids(cut, whole)])
    folder = export(tmp_path / "run", None, ("kd_jax",))
    assert load_tokenizer(str(folder)).get_vocab() == cut.get_vocab()


def test_a_cut_vocabulary_is_no_source_and_no_place_for_all_rows(tmp_path):
    found = config(tmp_path, dict(from_model="teacher"))
    for model in found["models"].values():
        model["view"] = model["view"] | {"vocabulary": "training"}
    with pytest.raises(ValueError, match=r"'teacher', whose view\.vocabulary is cut"):
        run_experiment(found, tmp_path / "run")
    for name in ("student", "baseline"):
        found["models"][name]["model"] = STUDENT | {"width": 4}
    found["models"]["teacher"]["model"] = {"pretrained": "minilm"}
    with pytest.raises(ValueError, match=r"models\.teacher\.view\.vocabulary is cut, and its pre"):
        run_experiment(found, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("embeddings", dict(from_model="tutor")), "from_model names 'tutor'"),
        (("embeddings", dict(from_model="teacher", rank=9)), "rank is 9, and the embeddings are 8"),
        (("width", 5), "model.width is 5, and the embeddings that it takes over are 8 wide"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused_before_anything_is_trained(change, words, tmp_path):
    found = config(tmp_path, dict(from_model="teacher"))
    for name in ("student", "baseline"):
        found["models"][name]["model"][change[0]] = change[1]
    with pytest.raises(ValueError, match=words):
        run_experiment(found, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*/model.safetensors"))


def test_another_tokenizer_is_refused(tmp_path):
    found = config(tmp_path, dict(from_model="teacher"))
    for name in ("student", "baseline"):
        found["models"][name]["view"] = found["models"][name]["view"] | {"vocabulary_size": 100}
    with pytest.raises(ValueError, match=r"view\.vocabulary_size is 120, and this model's is 100"):
        run_experiment(found, tmp_path / "run")
