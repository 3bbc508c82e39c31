"""Which trials of a search go on, by what they are chosen, and what it trains only once."""

import json

import pytest
from paths import ROOT, TESTS

from kd_jax.config.load import load_config, plain
from kd_jax.core.json_files import write_json
from kd_jax.experiments.search import run as search
from kd_jax.html_report import write_report
from kd_jax.training.interruption import Diverged

CONFIG = str(TESTS / "configs" / "shared.py") + ":smoke"
TEMPERATURE = "models.student.objective.soft.temperature"
RATE = "models.student.training.optimizer.learning_rate"


@pytest.fixture
def config():
    config = load_config(CONFIG)
    config.parallel.data = 1
    return config


def file_of(tmp_path, **content):
    file = tmp_path / "file.json"
    file.write_text(json.dumps(content))
    return file


@pytest.fixture
def ran(monkeypatch):
    """Runs that say what their temperature is, in place of training."""
    seen = []

    def fake(config, workdir, *, show):
        assert show is False
        models = config["models"]
        t = models["student"]["objective"]["soft"]["temperature"]
        seen.append((t, models["student"]["training"]["epochs"], config))
        (workdir / "teacher").mkdir(parents=True, exist_ok=True)
        (workdir / "teacher" / "finished.json").write_text("{}")
        if t == 5.0:
            raise Diverged("the loss is nan")
        entries = {
            # The student is best at 2, the baseline at 4; the evaluation split says otherwise.
            "student": {"selection": {"accuracy": 1 - abs(t - 2) / 10}, "metrics": t / 10},
            "baseline": {"selection": {"accuracy": 1 - abs(t - 4) / 10}, "metrics": 1 - t / 10},
        }
        for entry in entries.values():
            entry["metrics"] = {"accuracy": entry["metrics"]}
        return {
            "primary": "accuracy",
            "compare": {"student": "student", "baseline": "baseline", "teacher": "teacher"},
            "models": entries,
        }

    monkeypatch.setattr(search, "run_experiment", fake)
    return seen


def test_the_better_half_for_either_goes_on_and_the_selection_split_chooses(config, ran, tmp_path):
    file = file_of(tmp_path, space={TEMPERATURE: [1.0, 2.0, 3.0, 4.0, 5.0]}, fractions=[0.5, 1])
    whole = config.models.student.training.epochs
    found = search.run_search(config, file, tmp_path / "search")
    first, second = found["rounds"]
    assert [t for t, epochs, _ in ran if epochs == whole / 2] == [1.0, 2.0, 3.0, 4.0, 5.0]
    # 1, 2 and 3 are the student's better half, 3 and 4 the baseline's; 5 diverged.
    assert [t for t, epochs, _ in ran if epochs == whole] == [1.0, 2.0, 3.0, 4.0]
    assert first["runs"][4]["diverged"] == "the loss is nan"
    assert [each["name"] for each in second["runs"]] == [f"round2-trial0{n}" for n in (1, 2, 3, 4)]
    assert found["best"]["student"]["setting"] == {TEMPERATURE: 2.0}
    assert found["best"]["baseline"]["setting"] == {TEMPERATURE: 4.0}
    assert found["best"]["student"]["evaluation"] == 0.2
    assert json.loads((tmp_path / "search" / "search.json").read_text()) == found
    for _, epochs, made in ran:
        # Both are trained as long, and the teacher in full; the seed is that for tuning.
        assert made["models"]["baseline"]["training"]["epochs"] == epochs
        assert made["models"]["teacher"]["training"]["epochs"] == whole
        assert made["seed"] == 100


def test_peers_are_shortened_with_the_compared_and_nobody_else_is():
    config = load_config(str(ROOT / "configs" / "digits_peers.py") + ":smoke")
    whole = plain(config)["models"]["student"]["training"]["epochs"]
    search._shorten(config, 0.25)
    found = {n: m["training"]["epochs"] for n, m in plain(config)["models"].items()}
    shorter = {name for name, epochs in found.items() if epochs == whole / 4}
    assert shorter == {"student", "baseline", "wide"}
    assert {found[name] for name in found.keys() - shorter} == {whole}


def test_epochs_that_are_a_whole_number_are_shortened_too(config):
    with config.models.student.training.ignore_type():
        config.models.student.training.epochs = 3
    search._shorten(config, 0.25)
    assert plain(config)["models"]["student"]["training"]["epochs"] == 0.75


def test_a_trial_whose_metric_is_undefined_comes_before_one_that_diverged():
    entries = [
        {"name": "a", "setting": {}, "diverged": "nan"},
        {"name": "b", "setting": {}, **{role: {"selection": None} for role in search.ROLES}},
    ]
    assert search._best(entries, "spearman")["student"]["name"] == "b"
    assert search._better_half(entries, "spearman") == [1]


def test_a_trial_whose_teacher_diverged_in_another_diverged_as_well(config, tmp_path, monkeypatch):
    def explode(config, workdir, *, show):
        raise Diverged("the loss is nan")

    monkeypatch.setattr(search, "run_experiment", explode)
    file = file_of(tmp_path, space={TEMPERATURE: [1.0, 2.0]})
    with pytest.raises(ValueError, match="all trials of round 1 diverged"):
        search.run_search(config, file, tmp_path / "search")
    first, second = json.loads((tmp_path / "search" / "search.json").read_text())["rounds"][0][
        "runs"
    ]
    assert first["diverged"] == "the loss is nan"
    assert "which round1-trial01 was to train, diverged there" in second["diverged"]


def test_where_less_is_better_the_least_goes_on():
    entries = [{role: {"selection": x} for role in search.ROLES} for x in (3.0, 1.0, None, 2.0)]
    assert search._better_half(entries, "rmse") == [1, 3]
    assert search._better_half(entries, "accuracy") == [0, 3]


def test_a_teacher_is_trained_by_the_first_trial_and_restored_by_all_others(config, ran, tmp_path):
    file = file_of(tmp_path, space={TEMPERATURE: [1.0, 2.0, 3.0]})
    search.run_search(config, file, tmp_path / "search")
    restored = [made["models"]["teacher"].get("restore") for _, _, made in ran]
    assert restored[0] is None
    assert {*restored[1:]} == {str(tmp_path / "search" / "round1-trial01" / "teacher")}


def test_all_trials_are_checked_before_the_first(config, ran, tmp_path):
    for space, words in (
        ({"models.student.objective.soft.temprature": [1, 2]}, "did you mean"),
        ({RATE: [0.1, -2.0]}, "trial 2.*learning_rate must be a positive number"),
        ({"seed": [1, 2]}, "seeds are"),
    ):
        with pytest.raises(ValueError, match=words):
            search.run_search(config, file_of(tmp_path, space=space), tmp_path / "search")
    assert not ran


def test_a_search_in_which_all_diverge_says_so(config, ran, tmp_path):
    file = file_of(tmp_path, space={TEMPERATURE: [5.0], RATE: [0.1, 0.2]})
    with pytest.raises(ValueError, match="all trials of round 1 diverged"):
        search.run_search(config, file, tmp_path / "search")


def test_a_folder_of_another_search_is_refused(config, ran, tmp_path):
    search.run_search(config, file_of(tmp_path, space={TEMPERATURE: [1.0, 2.0]}), tmp_path / "s")
    other = file_of(tmp_path, space={TEMPERATURE: [1.0, 3.0]})
    with pytest.raises(ValueError, match="search"):
        search.run_search(config, other, tmp_path / "s")


@pytest.mark.slow
def test_a_search_is_found_finished_and_has_a_report(config, tmp_path):
    file = file_of(tmp_path, space={TEMPERATURE: [1.0, 4.0]}, fractions=[0.5, 1])
    found = search.run_search(config, file, tmp_path / "search")
    fingerprints = {
        json.loads((run / "results.json").read_text())["models"]["teacher"]["fingerprint"]
        for run in (tmp_path / "search").glob("round*")
    }
    assert len(fingerprints) == 1
    # As after a kill between two runs.
    write_json(tmp_path / "search" / "search.json", found | {"finished": False, "rounds": []})
    assert search.run_search(config, file, tmp_path / "search") == found
    assert "a search of 2 trials" in write_report(tmp_path / "search").read_text()
