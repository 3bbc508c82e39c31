"""What terms are worth: every subset trained once, kept, resumed, all else equal."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from finished_runs import copy, images, texts

from kd_jax import cli
from kd_jax.core.processes import RESUMABLE
from kd_jax.explain import explain_members, explain_training, retrain_subsets
from kd_jax.explain.pieces_of_training import Pieces
from kd_jax.explain.retrain_subsets import folder_of, value_training
from kd_jax.explain.run import open_run
from kd_jax.training.interruption import Interrupted, StopSignal

pytestmark = pytest.mark.slow

SEVEN = tuple("abcdefg")


def explained(run):
    return json.loads((run / "explain" / "explain.json").read_text())


@pytest.fixture(scope="module")
def valued(tmp_path_factory):
    run = copy(images(), tmp_path_factory.mktemp("terms") / "run")
    explain_training(run, None, "terms", None)
    return run


def fingerprint(folder):
    return json.loads((folder / "finished.json").read_text())["fingerprint"]


# Exact


def test_values_are_those_of_the_accuracies_of_all_subsets(valued):
    found, results = explained(valued)["terms"], json.loads((valued / "results.json").read_text())
    worth = found["subsets"]
    assert set(worth) == {"", "hard", "soft", "hard+soft"}
    assert worth[""] == found["empty"] == 0.1
    assert worth["hard+soft"] == found["all"] == results["models"]["student"]["accuracy"]
    first = (worth["hard"] - worth[""] + worth["hard+soft"] - worth["soft"]) / 2
    assert found["values"]["hard"] == pytest.approx(first)
    assert sum(found["values"].values()) == pytest.approx(found["all"] - found["empty"])
    assert found["standard_errors"] == {"hard": 0.0, "soft": 0.0}
    assert (valued / "explain" / "terms.png").is_file()


def test_all_else_is_equal_the_labels_alone_train_the_baseline_again(valued):
    """The run's baseline learns from the same term, from the same weights on the same batches."""
    results = json.loads((valued / "results.json").read_text())["models"]
    home = valued / "explain" / "terms"
    assert fingerprint(home / "hard" / "student") == results["baseline"]["fingerprint"]
    assert explained(valued)["terms"]["subsets"]["hard"] == results["baseline"]["accuracy"]
    assert fingerprint(home / "soft" / "student") not in {
        model["fingerprint"] for model in results.values()
    }
    assert not (home / "hard+soft").exists()


def test_a_second_call_trains_nothing_and_other_sections_stay(valued, monkeypatch):
    before = explained(valued)["terms"]
    monkeypatch.setattr(
        retrain_subsets, "obtain", lambda *_: pytest.fail("a subset was trained again")
    )
    explain_training(valued, None, "terms", None)
    explain_members(valued, None, 1, 4)
    explain_training(valued, None, "terms", 4)
    found = explained(valued)
    assert set(found) == {"experiment", "terms", "members", "attributions"}
    # Of two players every pair of permutations is both orders.
    for key in ("values", "standard_errors", "subsets"):
        assert found["terms"][key] == pytest.approx(before[key], abs=1e-12)
    assert found["terms"]["permutations"] == 4


def test_a_cached_ensemble_of_texts_teaches_every_subset(tmp_path):
    run = copy(texts(), tmp_path / "run")
    explain_training(run, None, "terms", None)
    assert set(explained(run)["terms"]["values"]) == {"hard", "soft"}
    lines = (run / "explain" / "terms" / "soft" / "metrics.jsonl").read_text().splitlines()
    logged = [line for line in map(json.loads, lines) if "loss" in line]
    assert logged
    assert all("soft" in line and "hard" not in line for line in logged)


def test_an_interrupted_game_goes_on_where_it_was(valued, tmp_path, monkeypatch, caplog):
    run = copy(images(), tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(
        json.dumps(
            config | {"checkpoint": config["checkpoint"] | {"every_steps": 4, "use": "latest"}}
        )
    )
    # Asked before each subset and after each step: once between subsets, once inside the second
    # one.
    answers = iter([True, *[False] * 7, True])
    monkeypatch.setattr(StopSignal, "asked", lambda _self, **_: next(answers, False))
    stops = 0
    with caplog.at_level(logging.INFO, "kd_jax"):
        while True:
            try:
                explain_training(run, None, "terms", None)
                break
            except Interrupted:
                stops += 1
    assert stops == 2
    assert any("resumed at step" in message for message in caplog.messages)
    assert explained(run)["terms"] == explained(valued)["terms"] | {"permutations": None}


def test_sigterm_is_the_status_of_a_run_that_can_be_resumed(capsys):
    def stopped():
        raise Interrupted("stopped; the same command resumes it")

    assert cli._until_stopped(stopped) == RESUMABLE
    assert capsys.readouterr().err == "stopped; the same command resumes it\n"
    assert cli._until_stopped(lambda: 3) == 3


# Limits


def game(names):
    return Pieces("terms", names, lambda _: {})


def test_more_terms_than_can_be_trained_exactly_are_refused_with_the_way_out(valued):
    message = (
        "7 terms have 126 subsets to train, and exact values are limited to 6"
        " terms; sample them with --perm"
    )
    with pytest.raises(ValueError, match=message):
        value_training(open_run(valued), "student", game(SEVEN), None)


def test_sampled_values_have_standard_errors(valued, tmp_path, monkeypatch):
    """Of an accuracy in which two of seven terms matter, together more than alone."""
    worth = {frozenset(): 0.0, frozenset("a"): 0.2, frozenset("b"): 0.1, frozenset("ab"): 0.8}
    asked = []

    def accuracy(_self, subset):
        asked.append(subset)
        return worth[subset & frozenset("ab")] + 0.1

    monkeypatch.setattr(retrain_subsets._Accuracy, "__call__", accuracy)
    run = replace(open_run(valued), path=tmp_path)
    run.results["models"]["student"]["accuracy"] = 0.9
    found = value_training(run, "student", game(SEVEN), 40)
    assert len(asked) == len(set(asked)) < 126
    assert found["values"]["a"] == pytest.approx(0.45, abs=4 * found["standard_errors"]["a"] + 1e-9)
    assert sum(found["values"].values()) == pytest.approx(0.8)
    assert max(abs(found["values"][name]) for name in "cdefg") < 1e-9


def test_an_odd_number_of_permutations_is_refused(valued):
    with pytest.raises(
        ValueError, match="permutations come in pairs, of which an error needs two: got 5"
    ):
        explain_training(valued, None, "terms", 5)


def test_a_model_that_was_not_trained_here_is_refused(valued):
    run = open_run(valued)
    restored = tuple((replace(plan, restore="elsewhere"),) for plan in run.plan.models)
    with pytest.raises(
        ValueError,
        match=r"models\.student wasn't trained in this run: explain the one that trained it",
    ):
        value_training(
            replace(run, plan=replace(run.plan, groups=restored)), "student", game(("a",)), None
        )


def test_a_model_that_was_trained_with_a_peer_is_refused(valued):
    run = open_run(valued)
    groups = ((replace(run.plan["student"], peers=("wide",)),),)
    with pytest.raises(
        ValueError, match=r"^models\.student was trained together with wide, not by itself$"
    ):
        value_training(
            replace(run, plan=replace(run.plan, groups=groups)), "student", game(("a",)), None
        )


def test_sources_of_a_run_without_any_are_refused(valued):
    with pytest.raises(
        ValueError, match=r"models\.student\.data names no source\(s\) of training data"
    ):
        explain_training(valued, None, "sources", None)


# Folders


def test_subsets_have_folders_of_their_own():
    names = [["a"], ["a", "b"], ["a+b"], ["a/b"], ["."], ["x" * 60, "y" * 60], ["x" * 60, "y" * 61]]
    folders = [folder_of(each) for each in names]
    assert folders[:2] == ["a", "a+b"]
    assert len(set(folders)) == len(names)
    assert all(len(folder) <= 100 and "/" not in folder for folder in folders)


def test_a_model_that_began_as_another_of_the_run_begins_as_it_again(valued):
    plan = replace(
        open_run(valued).plan["student"], model={"from_model": "vgg", "keep_layers": (0,)}
    )
    assert retrain_subsets._from_here(plan, valued).model == {
        "pretrained": str(valued / "vgg"),
        "keep_layers": (0,),
    }
    assert np.all(
        retrain_subsets._from_here(replace(plan, model={"name": "cnn"}), valued).model
        == {"name": "cnn"}
    )
