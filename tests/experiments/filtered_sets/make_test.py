"""Trusted sets made in whole experiments: planted rows are set aside, and nobody who trusts the
rest learns them."""

import copy
import logging
from dataclasses import replace

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
)

from kd_jax.experiments.filtered_sets import make
from kd_jax.experiments.plan import make_plan
from kd_jax.experiments.run import run_experiment
from kd_jax.explain.run import open_run

pytestmark = pytest.mark.slow

MORE = dict(
    teacher="teacher",
    source=dict(name="mixes", rounds=1, kind="mixup", concentration=1.0),
    labels="soft",
    temperature=1.0,
    confidence=0.0,
    per_class=None,
    near_duplicate=0.0,
    max_overlap=0.0,
)


def test_planted_labels_are_set_aside_with_row_and_reason_and_counted(judged, pictures):
    _, results, folder = judged
    planted = planted_rows(pictures)
    assert len(planted) == WRONG
    assert of_the_set(folder, "label_error") == planted
    told = results["trusted_sets"]["trusted"]
    assert (told["rows"], told["kept"]) == (2 * TRAIN, 2 * TRAIN - WRONG)
    assert told["doubted"] == {"label_error": WRONG}
    assert told["judge_fingerprint"] == fingerprint(results, "judge")
    assert results["models"]["student"]["data"] == ["trusted"]


def test_those_who_trust_the_rest_learn_as_if_the_planted_pictures_had_never_been(judged, pictures):
    """The training source that a model gets has exactly the other rows, with their own numbers."""
    _, _, folder = judged
    run = open_run(folder)
    trusted, train = run.context.datasets.training_source(("trusted",)), open_train(pictures)
    kept = [row not in planted_rows(pictures) for row in train.rows]
    np.testing.assert_array_equal(trusted.inputs, np.asarray(train.inputs)[kept])
    np.testing.assert_array_equal(trusted.labels, train.labels[kept])
    assert list(trusted.rows) == [row for row, keep in zip(train.rows, kept, strict=True) if keep]
    assert trusted.fingerprint != train.fingerprint


def test_report_lists_the_same_rows_and_keeps_them(judged, pictures, tmp_path):
    config, results, folder = judged
    results_of = run_experiment(picture_config(pictures, mode="report"), tmp_path)
    assert quarantine(tmp_path) == quarantine(folder)
    told = results_of["trusted_sets"]["trusted"]
    assert (told["kept"], told["doubted"]) == (2 * TRAIN, {"label_error": WRONG})
    assert fingerprint(results_of, "judge") == fingerprint(results, "judge")
    assert fingerprint(results_of) != fingerprint(results)
    config = copy.deepcopy(config)
    config["models"]["teacher"]["data"] = config["models"]["student"]["data"] = ("train",)
    config["models"]["baseline"]["data"] = ("train",)
    del config["trusted_sets"]
    assert fingerprint(run_experiment(config, tmp_path / "train")) == fingerprint(results_of)


def test_a_set_that_is_there_is_not_judged_again_unless_the_judge_is_another(
    judged, monkeypatch, caplog
):
    config, results, folder = judged
    monkeypatch.setattr("kd_jax.experiments.filtered_sets.make.ask_held_out", None)
    (folder / "results.json").unlink()
    assert fingerprint(run_experiment(config, folder)) == fingerprint(results)
    monkeypatch.undo()
    record = folder / "trusted_sets" / "trusted" / "doubts.json"
    record.write_text(record.read_text().replace(fingerprint(results, "judge"), "sha256:other"))
    (folder / "results.json").unlink()
    with caplog.at_level(logging.WARNING):
        again = run_experiment(config, folder)
    assert "trusted_sets.trusted was made from something else; it is made again" in caplog.text
    assert again["trusted_sets"] == results["trusted_sets"]


@pytest.mark.parametrize("damage", ["{", "{}", "[1]", None])
def test_an_explanation_refuses_a_damaged_set(judged, damage):
    _, results, folder = judged
    record = folder / "trusted_sets" / "trusted" / "doubts.json"
    whole = record.read_text()
    if damage is None:
        record.unlink()
    else:
        record.write_text(damage)
    with pytest.raises(ValueError, match="has no whole trusted set 'trusted'"):
        open_run(folder)
    record.write_text(whole)
    assert open_run(folder).results["trusted_sets"] == results["trusted_sets"]


def test_a_row_may_be_doubted_for_two_reasons_and_is_listed_once(pictures, tmp_path):
    results = run_experiment(picture_config(pictures, poison=0.075), tmp_path)
    assert results["trusted_sets"]["trusted"]["doubted"] == {
        "label_error": WRONG,
        "poison": 2 * WRONG,
    }
    both = [
        entry for entry in quarantine(tmp_path) if entry["reasons"] == ["label_error", "poison"]
    ]
    assert {entry["row"] for entry in both} == planted_rows(pictures)
    assert (
        len(quarantine(tmp_path))
        == results["trusted_sets"]["trusted"]["rows"] - 2 * TRAIN + 2 * WRONG
    )


def test_more_doubted_than_left_is_refused_with_both_numbers(pictures, tmp_path):
    config = picture_config(pictures, label_errors=False, label_share=None, poison=0.6)
    with pytest.raises(
        ValueError,
        match=r"trusted_sets.trusted would set aside 48 rows, more than the 32 .*look at the judge",
    ):
        run_experiment(config, tmp_path)


def test_a_set_of_other_training_rows_is_not_opened(judged):
    _, _, folder = judged
    run = open_run(folder)
    spec = run.plan.trusted_sets["trusted"]
    train = run.context.datasets.splits["train"]
    with pytest.raises(ValueError, match="has no whole trusted set 'trusted'"):
        make.load("trusted", spec, folder, replace(train, fingerprint="sha256:other"))


def test_of_the_models_that_judged_nothing_is_left_but_what_they_said(judged):
    _, _, folder = judged
    assert [path.name for path in (folder / "trusted_sets" / "trusted").iterdir()] == [
        "doubts.json"
    ]


def test_a_set_that_nobody_learns_from_is_judged_and_reported_all_the_same(
    judged, pictures, tmp_path, caplog
):
    """A transfer set that nobody names is not made, and a line says so."""
    _, _, folder = judged
    config = picture_config(pictures, mode="report")
    for model in config["models"].values():
        model["data"] = ("train",)
    config["transfer_sets"] = {"more": MORE}
    results = run_experiment(config, tmp_path)
    assert quarantine(tmp_path) == quarantine(folder)
    assert results["trusted_sets"]["trusted"]["doubted"] == {"label_error": WRONG}
    assert results["transfer_sets"] == {}
    assert "transfer_sets.more is named by no model's data, and isn't made" in caplog.text


@pytest.mark.parametrize("base", ["train", "trusted"])
def test_a_transfer_set_is_made_from_the_rows_that_are_trusted_if_it_is_asked_to(
    pictures, base, tmp_path
):
    config = picture_config(pictures)
    config["transfer_sets"] = {"more": MORE | ({} if base == "train" else {"base": base})}
    for name, data in (("teacher", ("train",)), ("baseline", ("train",)), ("student", ("more",))):
        config["models"][name]["data"] = data
    results = run_experiment(config, tmp_path)
    assert results["transfer_sets"]["more"]["candidates"] == 2 * TRAIN - (
        0 if base == "train" else WRONG
    )


def test_a_peer_that_writes_out_what_the_other_takes_by_default_learns_from_the_same(pictures):
    config = picture_config(pictures)
    config["models"]["baseline"] |= {"data": ("train",), "teachers": ("peer:other",)}
    other = {
        key: value
        for key, value in config["models"]["baseline"].items()
        if key not in ("data", "like")
    }
    config["models"]["other"] = other | {"teachers": ("peer:baseline",)}
    assert make_plan(config)["other"].data == ("train",)
