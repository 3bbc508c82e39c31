"""Who judges which rows, by what, and what of it survives an interruption."""

import copy
import gc
import json
import logging
import weakref

import numpy as np
import pytest
from planted_labels import (
    TRAIN,
    WRONG,
    fingerprint,
    of_the_set,
    open_train,
    picture_config,
    planted_rows,
    quarantine,
    write_pictures,
)

from kd_jax.experiments.filtered_sets import cross_validate
from kd_jax.experiments.run import run_experiment
from kd_jax.explain.run import open_run
from kd_jax.teachers.ensemble import knows_labels
from kd_jax.training import trained_model
from kd_jax.training.interruption import Interrupted

pytestmark = pytest.mark.slow


def test_no_row_is_judged_by_a_model_that_learned_from_it(judged, pictures, monkeypatch, tmp_path):
    """Every fold's model is given the other rows, each row is asked about once, by the model that
    wasn't given it."""
    config, results, _ = judged
    given, asked = [], []
    obtain, outputs = cross_validate.obtain, cross_validate.compute.outputs

    def watched_obtain(plans, teachers, context):
        source = context.datasets.training_source(plans[0].data)
        given.append({image.tobytes() for image in np.asarray(source.inputs)})
        return obtain(plans, teachers, context)

    def watched_outputs(model, source, context, **options):
        if "fold" in source.name:
            asked.append({image.tobytes() for image in np.asarray(source.inputs)})
        return outputs(model, source, context, **options)

    monkeypatch.setattr(cross_validate, "obtain", watched_obtain)
    monkeypatch.setattr(cross_validate.compute, "outputs", watched_outputs)
    found = run_experiment(config, tmp_path)
    assert found["trusted_sets"] == results["trusted_sets"]
    everything = {image.tobytes() for image in np.asarray(open_train(pictures).inputs)}
    assert len(given) == len(asked) == config["trusted_sets"]["trusted"]["folds"]
    assert set.union(*asked) == everything
    assert sum(map(len, asked)) == len(everything)
    assert all(
        learned == everything - held_out for learned, held_out in zip(given, asked, strict=True)
    )


def test_an_interrupted_judgement_goes_on_where_it_was(judged, monkeypatch, tmp_path):
    """What the second start finds finished isn't trained again, and the end is the same."""
    config, results, _ = judged
    obtain, trained = cross_validate.obtain, []

    def stops_at_the_second(plans, teachers, context):
        if trained:
            raise Interrupted("stopped")
        trained.append(context.workdir)
        return obtain(plans, teachers, context)

    monkeypatch.setattr(cross_validate, "obtain", stops_at_the_second)
    with pytest.raises(Interrupted):
        run_experiment(config, tmp_path)
    monkeypatch.setattr(cross_validate, "obtain", obtain)
    first = trained[0] / "judge" / "finished.json"
    before = json.loads(first.read_text())
    (trained[0] / "judge" / "checkpoints").rename(tmp_path / "out_of_reach")
    seen = []
    outputs = cross_validate.compute.outputs

    def watched(model, *rest, **options):
        seen.append(model.description["fingerprint"])
        return outputs(model, *rest, **options)

    monkeypatch.setattr(cross_validate.compute, "outputs", watched)
    again = run_experiment(config, tmp_path)
    assert before["fingerprint"] in seen
    assert fingerprint(again) == fingerprint(results)
    assert again["trusted_sets"] == results["trusted_sets"]


def test_poison_is_the_share_of_each_class_that_stands_out_in_the_judge_s_features(
    pictures, tmp_path
):
    """The light pictures among the dark ones do; of the other class as many rows are doubted."""
    options = {"label_errors": False, "label_share": None, "poison": 0.075, "folds": 0}
    results = run_experiment(picture_config(pictures, **options), tmp_path)
    told = results["trusted_sets"]["trusted"]
    assert told["doubted"] == {"poison": 2 * WRONG}
    assert told["kept"] == 2 * TRAIN - 2 * WRONG
    assert planted_rows(pictures) <= of_the_set(tmp_path, "poison")


def test_sentences_are_judged_like_pictures_and_shown_where_they_are_listed(tmp_path):
    """Two sentences of praise are labelled bad; the row is the line of the file."""
    subjects = (
        "film",
        "plot",
        "cast",
        "score",
        "script",
        "scene",
        "joke",
        "ending",
        "hero",
        "villain",
    )
    said = ("wonderful and warm,good", "dreadful and dull,bad")
    rows = [
        f"{where} {subject} was {words}"
        for where in ("the", "its")
        for subject in subjects
        for words in said
    ]
    planted = [8, 22]
    for line in planted:
        assert "good" in rows[line - 2]
        rows[line - 2] = rows[line - 2].replace(",good", ",bad")
    for split, lines in (("train", rows), ("test", rows[1::2] + rows[0:1])):
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    config = picture_config(tmp_path, label_share=len(planted) / len(rows), folds=4)
    config["data"] |= {"inputs": "text", "cleaning": config["data"]["cleaning"] | {"mode": "off"}}
    view = {"tokenizer": "trained", "vocabulary_size": 200, "max_length": 48}
    for model in config["models"].values():
        model["model"] = {"name": "bag_of_embeddings", "width": 16, "hidden": (), "dropout": 0.0}
        model["view"], model["training"]["epochs"] = view, 60.0
    run_experiment(config | {"view": view}, tmp_path / "run")
    assert of_the_set(tmp_path / "run", "label_error") == set(planted)
    assert quarantine(tmp_path / "run")[0]["value"] == repr(
        rows[planted[0] - 2].removesuffix(",bad")
    )


def test_confident_learning_picks_by_itself_how_many_labels_it_doubts(pictures, tmp_path):
    """Fewer than are wrong, here; none that is right."""
    results = run_experiment(picture_config(pictures, label_share=None), tmp_path)
    found = of_the_set(tmp_path, "label_error")
    assert found
    assert found < planted_rows(pictures)
    assert results["trusted_sets"]["trusted"]["kept"] == 2 * TRAIN - len(found)


def test_a_judge_from_elsewhere_needs_no_folds_and_one_from_here_is_warned_about(
    pictures, tmp_path, caplog
):
    """The restored one learned from the same pictures with the right labels."""
    clean = tmp_path / "clean"
    write_pictures(clean, flip=False)
    elsewhere = picture_config(clean)
    run_experiment(elsewhere, tmp_path / "elsewhere")
    config = picture_config(pictures, folds=0)
    config["models"]["judge"]["restore"] = str(tmp_path / "elsewhere" / "judge")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        results = run_experiment(config, tmp_path / "run")
    assert of_the_set(tmp_path / "run", "label_error") == planted_rows(pictures)
    assert "will doubt few" not in caplog.text
    assert (
        results["models"]["judge"]["fingerprint"]
        == trained_model.load_required(tmp_path / "elsewhere" / "judge").description["fingerprint"]
    )
    with caplog.at_level(logging.WARNING):
        run_experiment(picture_config(pictures, folds=0), tmp_path / "own")
    assert (
        "judge judges labels that it learned from, and will doubt few: give it folds" in caplog.text
    )


def test_a_restored_judge_is_trained_anew_on_the_folds(judged, pictures, monkeypatch, tmp_path):
    """As a sweep's later runs have it: judged as in the run that trained it, not by the restored
    weights."""
    _, results, folder = judged
    config, obtain, found = picture_config(pictures), cross_validate.obtain, []
    config["models"]["judge"]["restore"] = str(folder / "judge")

    def watched(plans, teachers, context):
        models = obtain(plans, teachers, context)
        found.extend(model.description["fingerprint"] for model in models.values())
        return models

    monkeypatch.setattr(cross_validate, "obtain", watched)
    again = run_experiment(config, tmp_path)
    assert (
        len({*found, fingerprint(results, "judge")})
        == 1 + config["trusted_sets"]["trusted"]["folds"]
    )
    assert again["trusted_sets"] == results["trusted_sets"]


def test_a_judge_that_chooses_by_the_label_is_not_told_it(pictures, tmp_path):
    """An ensemble that always picks the member that is right would find no label hard to
    believe."""
    config = picture_config(pictures, folds=0)
    config["models"]["second"] = copy.deepcopy(config["models"]["judge"])
    config["models"]["both"] = config["models"]["judge"] | {
        "objective": {},
        "training": {},
        "model": {
            "name": "ensemble",
            "members": ("judge", "second"),
            "combine": "least_loss",
            "weights": None,
            "temperatures": None,
        },
    }
    config["trusted_sets"]["trusted"]["judge"] = "both"
    asked, ask = [], cross_validate.compute.outputs

    def watched(model, source, context, *, network=None):
        asked.append((model.plan.name, network))
        return ask(model, source, context, network=network)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_validate.compute, "outputs", watched)
        run_experiment(config, tmp_path)
    (network,) = [network for name, network in asked if name == "both"]
    assert not knows_labels(network)


def test_a_fold_s_rows_are_forgotten_when_its_model_is_trained(judged, pictures):
    """Or pictures would be held in memory once more for every fold."""
    _, _, folder = judged
    run = open_run(folder)
    datasets, part = run.context.datasets, open_train(pictures)
    datasets.add_set("part", part)
    assert datasets.training_source(("part",)) is part
    datasets.remove_set("part")
    gone = weakref.ref(part)
    del part
    gc.collect()
    assert gone() is None


def test_more_folds_than_rows_are_refused_before_anything_is_trained(pictures, tmp_path):
    with pytest.raises(
        ValueError, match=r"trusted_sets.trusted: folds 81 are more than the 80 training rows"
    ):
        run_experiment(picture_config(pictures, folds=81), tmp_path)
    assert not (tmp_path / "judge").exists()


def test_a_judge_without_the_feature_that_shows_poison_is_refused_by_name(
    pictures, monkeypatch, tmp_path
):
    monkeypatch.setattr(
        "kd_jax.experiments.filtered_sets.make.ask", lambda *_: {"logits": np.zeros((2 * TRAIN, 2))}
    )
    config = picture_config(pictures, label_errors=False, label_share=None, poison=0.1)
    with pytest.raises(
        ValueError,
        match=r"trusted_sets.trusted: the judge 'judge' has no feature 'pooled'; it has log",
    ):
        run_experiment(config, tmp_path)
