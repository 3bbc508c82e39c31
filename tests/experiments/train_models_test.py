"""Peers from a config to finished models: resumed wherever a run was cut, ranked together, reported
each by itself."""

import json
import sys

import pytest
from paths import ROOT
from training.writers.fake_services import install_wandb

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.run import run_experiment
from kd_jax.training import trained_model
from kd_jax.training.interruption import Interrupted, StopSignal
from kd_jax.training.machine_use import MACHINE
from kd_jax.training.metrics_writer import MetricsWriter

pytestmark = pytest.mark.slow

CONFIG = ROOT / "configs" / "digits_peers.py"
STEPS, EVERY = 9, 2


def config(**overrides):
    """The two peers and nobody else, a checkpoint every other step, a log line every step."""
    found = load_config(f"{CONFIG}:smoke")
    with found.unlocked():
        for name in ("baseline", "baseline_wide"):
            del found.models[name]
        found.compare = dict(student="student", baseline="student", teacher="wide")
    short = {
        "training.epochs": 1.0,  # 9 steps.
        "checkpoint.every_steps": EVERY,
        "checkpoint.keep_finished": True,
        "logging.every_steps": 1,
        "parallel.data": 1,
    }
    found.update_from_flattened_dict(short | overrides)
    return plain(found)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run that nobody disturbs: its folder and its results."""
    folder = tmp_path_factory.mktemp("peers") / "alone"
    return folder, run_experiment(config(), folder)


def fingerprints(results):
    return {name: model["fingerprint"] for name, model in results["models"].items()}


def lines(folder):
    """All lines but those of the machine, which no two runs have alike."""
    text = (folder / "metrics.jsonl").read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    return [entry for entry in entries if not any(key.startswith(MACHINE) for key in entry)]


def assert_same_as(alone, folder, results):
    assert fingerprints(results) == fingerprints(alone[1])

    def order(line):
        return (line["model"], line["step"], len(line))

    assert sorted(lines(folder), key=order) == sorted(lines(alone[0]), key=order)


# What is there at the end


def test_each_peer_is_a_finished_model_of_its_own_and_one_folder_holds_their_checkpoints(alone):
    folder, results = alone
    assert results["order"] == ["student", "wide"]
    assert len(set(fingerprints(results).values())) == 2
    assert all((folder / name / "model.safetensors").is_file() for name in results["order"])
    assert [(folder / name / "checkpoints").is_dir() for name in results["order"]] == [True, False]


def test_the_report_names_peers_among_the_teachers_and_says_how_far_they_agree(alone):
    models = alone[1]["models"]
    assert [models[name]["teachers"] for name in ("student", "wide")] == [
        ["peer:wide"],
        ["peer:student"],
    ]
    assert (
        models["student"]["agreement"].keys()
        == models["student"]["teacher_kl"].keys()
        == {"peer:wide"}
    )
    assert (
        models["student"]["agreement"]["peer:wide"] == models["wide"]["agreement"]["peer:student"]
    )
    assert models["student"]["train_seconds"] == models["wide"]["train_seconds"] > 0


def test_the_checkpoint_is_chosen_by_the_peers_mean_and_each_ones_score_in_it_is_its_own(alone):
    folder, results = alone
    scores = {
        (line["model"], line["step"]): (line["selection/accuracy"], line["selection/loss"])
        for line in lines(folder)
        if "selection/accuracy" in line
    }
    steps = sorted({step for _, step in scores})
    assert steps == [2, 4, 6, 8, 9]
    total = {
        step: [
            sum(part) for part in zip(scores["student", step], scores["wide", step], strict=True)
        ]
        for step in steps
    }
    best = max(steps, key=lambda step: (total[step][0], -total[step][1], -step))
    for name, model in results["models"].items():
        assert model["step"] == best
        assert model["selection_accuracy"] == scores[name, best][0]


def test_a_peer_starts_as_its_baseline_and_sees_its_batches(tmp_path):
    """With the mutual term weighed 0 the first peer is the model that learns from the labels alone,
    to the bit."""
    weights = {f"models.{name}.objective.mutual.weight": 0.0 for name in ("student", "wide")}
    # The choice of the checkpoint is common to the peers, so the last one is compared.
    peers = run_experiment(config(**weights, **{"checkpoint.use": "latest"}), tmp_path / "peers")
    single = config(**{"checkpoint.use": "latest"})
    del single["models"]["wide"]
    single["models"]["student"] |= {
        "teachers": (),
        "objective": {"hard": single["models"]["student"]["objective"]["hard"]},
    }
    single["compare"]["teacher"] = "student"
    lone = run_experiment(single, tmp_path / "lone")
    assert fingerprints(peers)["student"] == fingerprints(lone)["student"]


# Cut short


def test_peers_stopped_by_sigterm_end_as_if_they_had_not_been(alone, tmp_path, monkeypatch):
    asked = iter([False] * 2 + [True] + [False] * 2 + [True])
    monkeypatch.setattr(StopSignal, "asked", lambda _self, **_: next(asked, False))
    for _ in range(2):
        with pytest.raises(Interrupted):
            run_experiment(config(), tmp_path)
    assert_same_as(alone, tmp_path, run_experiment(config(), tmp_path))


class Killed(BaseException):
    """Nothing in the library catches it."""


@pytest.mark.parametrize("step", [1, 5, 6, STEPS])
def test_peers_killed_between_the_lines_of_a_step_end_as_if_they_had_not_been(
    alone, tmp_path, monkeypatch, step
):
    real = MetricsWriter.write

    def write(self, at, values):
        if (self._model, at) == ("wide", step):
            raise Killed
        real(self, at, values)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsWriter, "write", write)
        with pytest.raises(Killed):
            run_experiment(config(), tmp_path)
    assert_same_as(alone, tmp_path, run_experiment(config(), tmp_path))


def test_peers_killed_when_one_of_them_is_saved_end_as_if_they_had_not_been(
    alone, tmp_path, monkeypatch
):
    real = trained_model.save

    def save(folder, *contents):
        if folder.name == "wide":
            raise Killed
        real(folder, *contents)

    with monkeypatch.context() as patch:
        patch.setattr(trained_model, "save", save)
        with pytest.raises(Killed):
            run_experiment(config(), tmp_path)
    assert (tmp_path / "student" / "finished.json").is_file()
    assert not (tmp_path / "wide").joinpath("finished.json").exists()
    steps = sorted(path.name for path in (tmp_path / "student" / "checkpoints").iterdir())
    results = run_experiment(config(), tmp_path)
    assert sorted(path.name for path in (tmp_path / "student" / "checkpoints").iterdir()) == steps
    assert_same_as(alone, tmp_path, results)


# Their terms


def test_a_term_of_several_teachers_says_which_and_reaches_only_its_own_models(tmp_path):
    found = config()
    third = {
        "model": found["models"]["wide"]["model"] | {"widths": (8, 8)},
        "teachers": ("peer:student",),
    }
    found["models"]["third"] = found["models"]["wide"] | third
    found["models"]["student"]["teachers"] = ("peer:third", "peer:wide")
    message = (
        r"^models.student: objective 'mutual': it must say which teacher"
        r" \(source=...\); there are peer:third, peer:"
    )
    with pytest.raises(ValueError, match=message):
        run_experiment(found, tmp_path)
    hard, mutual = (found["models"]["student"]["objective"][name] for name in ("hard", "mutual"))
    found["models"]["student"]["objective"] = {"hard": hard} | {
        name: mutual | {"source": f"peer:{name}"} for name in ("third", "wide")
    }
    found["models"]["wide"]["objective"] = {
        "hard": hard,
        "mutual": mutual | {"source": "peer:third"},
    }
    message = (
        r"^models.wide: objective 'mutual': unknown teacher 'peer:third'; there are peer:student$"
    )
    with pytest.raises(ValueError, match=message):
        run_experiment(found, tmp_path / "strangers")
    found["models"]["wide"]["objective"] = {"hard": hard, "mutual": mutual}
    results = run_experiment(found, tmp_path / "three")
    assert results["models"]["student"]["agreement"].keys() == {"peer:third", "peer:wide"}


# Where their metrics go


def test_a_dashboard_has_each_step_of_a_killed_run_once_and_what_each_model_reached(
    alone, tmp_path, monkeypatch
):
    runs = install_wandb(monkeypatch)
    followed = config(**{"logging.writers": ("wandb",)})
    real = MetricsWriter.write

    def write(self, at, values):
        if (self._model, at) == ("wide", 6):
            raise Killed
        real(self, at, values)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsWriter, "write", write)
        with pytest.raises(Killed):
            run_experiment(followed, tmp_path)
    results = run_experiment(followed, tmp_path)
    assert_same_as(alone, tmp_path, results)
    assert [run.options["id"] for run in runs] == [None, "first"]
    logged = [entry for run in runs for entry in run.logged]
    for name in ("student", "wide"):
        steps = [entry[f"{name}/step"] for entry in logged if f"{name}/loss" in entry]
        assert steps == list(range(1, STEPS + 1))
        reached = [entry for entry in logged if f"{name}/evaluation/accuracy" in entry]
        assert [entry[f"{name}/evaluation/accuracy"] for entry in reached] == [
            results["models"][name]["accuracy"]
        ]


def test_a_profile_of_peers_lies_in_the_first_ones_folder(tmp_path):
    run_experiment(config(), tmp_path, profile="2:3")
    assert list((tmp_path / "student" / "profile").glob("plugins/profile/*/*.trace.json.gz"))


def test_a_missing_package_is_refused_before_the_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ValueError, match=r"^logging.writers names 'mlflow'"):
        run_experiment(config(**{"logging.writers": ("mlflow",)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
