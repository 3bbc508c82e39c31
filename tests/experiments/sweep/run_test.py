"""A sweep as a whole: its table, how it stops and goes on, and a real one."""

import csv
import json
import os
import signal
import statistics
from dataclasses import replace

import jax
import pytest
from paths import TESTS
from scipy import stats

import kd_jax as kd
from kd_jax.config.inherit import inherit
from kd_jax.config.load import load_config
from kd_jax.experiments.sweep import run as sweep_runs
from kd_jax.experiments.sweep import workers
from kd_jax.experiments.sweep.grid import lay_out
from kd_jax.experiments.sweep.run import run_sweep
from kd_jax.training.interruption import Diverged, Interrupted, StopSignal

CONFIG = str(TESTS / "configs" / "shared.py") + ":smoke"
TEMPERATURE = "models.student.objective.soft.temperature"

pytestmark = pytest.mark.slow


@pytest.fixture
def config():
    config = load_config(CONFIG)
    config.parallel.data = 1
    return config


@pytest.fixture(autouse=True)
def _signals_as_before():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def spec_file(tmp_path):
    def write(**spec):
        file = tmp_path / "sweep_file.json"
        file.write_text(json.dumps(spec))
        return file

    return write


@pytest.fixture
def fake_runs(monkeypatch):
    """Stands in for the experiment: its calls are recorded; the student's accuracy is 0.1 x its
    seed."""
    calls = []

    def run(config, workdir, *, show):
        assert not show, "the sweep has a table of its own"
        calls.append((workdir.name, config))
        restored = config["models"]["teacher"].get("restore")
        teacher = restored or str(workdir / "teacher")
        accuracies = {"baseline": 0.0, "teacher": 0.9, "student": 0.1 * config["seed"]}
        models = {
            name: {
                "accuracy": accuracy,
                "loss": 1.0,
                "ece": 0.5,
                "agreement": {},
                "parameters": 3,
                "fingerprint": teacher if name == "teacher" else f"{name} {config['seed']}",
                "selection_accuracy": None if name == "teacher" else accuracy / 2,
            }
            for name, accuracy in accuracies.items()
        }
        elsewhere = {name: {"accuracy": accuracy / 4} for name, accuracy in accuracies.items()}
        evaluations = dict.fromkeys(config["evaluations"], elsewhere)
        return {
            "order": list(models),
            "models": models,
            "gain": accuracies["student"],
            "evaluations": evaluations,
        }

    monkeypatch.setattr("kd_jax.experiments.sweep.run.run_experiment", run)
    return calls


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"training.epoch": [1]}, r"no such path; did you mean 'training\.epochs'"),
        ({"config.training.epochs": [1]}, r"no such path; did you mean 'training\.epochs'"),
        ({"training.epochs": ["x"]}, "training.epochs.*x is of original type"),
        ({"training.batch_size": [True]}, "true is not a number"),
        ({"training.optimizer": [{"name": "sgd"}]}, "not whole sections"),
        ({"training": [1]}, "not whole sections"),
        ({"seed": [1]}, "seeds are listed under"),
        ({"training.epochs": [1, 1.0]}, r"two runs 'epochs=1\.0-seed0'"),
        (
            {"training.epochs": [1.0, -1.0]},
            r"epochs=-1\.0-seed0: training.epochs must be a positive number",
        ),
        ({"models.student.teachers": [["tutor"]]}, "teachers=tutor-seed0: .* names 'tutor'"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(
    config, tmp_path, spec_file, fake_runs, grid, message
):
    with pytest.raises(ValueError, match=message) as caught:
        run_sweep(config, spec_file(seeds=[0], grid=grid), tmp_path / "sweep")
    assert "\n" not in str(caught.value)
    assert not fake_runs
    assert not (tmp_path / "sweep").exists()


def test_a_folder_of_another_sweep_or_config_is_refused(config, tmp_path, spec_file, fake_runs):
    run_sweep(config, spec_file(seeds=[0], grid={TEMPERATURE: [1.0]}), tmp_path / "sweep")
    with pytest.raises(
        ValueError,
        match=r"differ in sweep\.grid\..*temperature, sweep\.seeds; give another --workdir$",
    ):
        run_sweep(config, spec_file(seeds=[1], grid={TEMPERATURE: [2.0]}), tmp_path / "sweep")
    config.data.train = "train[:10%]"
    with pytest.raises(ValueError, match=r"differ in data\.train; give another --workdir$"):
        run_sweep(config, spec_file(seeds=[0], grid={TEMPERATURE: [1.0]}), tmp_path / "sweep")
    assert len(fake_runs) == 1


def test_what_a_worker_among_others_can_not_do_is_refused(
    config, tmp_path, spec_file, fake_runs, monkeypatch
):
    file = spec_file(seeds=[0], devices=[0, 1])
    with pytest.raises(ValueError, match=r'^"devices" in .* are for one process that does all'):
        run_sweep(config, file, tmp_path / "sweep", join=True)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    with pytest.raises(ValueError, match=r"^a worker that joins a sweep is one process, and no"):
        run_sweep(config, spec_file(seeds=[0]), tmp_path / "sweep", join=True)
    assert not (tmp_path / "sweep").exists()


def test_a_worker_goes_on_with_what_a_process_alone_began_and_the_other_way_round(
    config, tmp_path, spec_file, monkeypatch
):
    """What one process has finished is found so by a worker, with an equal table."""
    done = []

    def run(config, workdir, *, show):
        file = workdir / "results.json"
        if not file.exists():
            done.append(workdir.name)
            (workdir / "teacher").mkdir(parents=True)
            (workdir / "teacher" / "finished.json").write_text("{}")
            model = {"accuracy": 0.5, "loss": 1.0, "ece": 0.1, "fingerprint": workdir.name}
            found = {"order": ["student"], "models": {"student": model}, "evaluations": {}}
            file.write_text(json.dumps(found | {"gain": 0.1 * config["seed"]}))
        return json.loads(file.read_text())

    monkeypatch.setattr("kd_jax.experiments.sweep.run.run_experiment", run)
    monkeypatch.setattr("kd_jax.experiments.sweep.queue.run_experiment", run)
    file = spec_file(seeds=[0, 1, 2])
    alone = run_sweep(config, file, tmp_path / "sweep")
    (tmp_path / "sweep" / "sweep.json").unlink()
    joined = run_sweep(config, file, tmp_path / "sweep", join=True)
    assert joined == alone == json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert run_sweep(config, file, tmp_path / "sweep") == alone
    assert done == ["seed0", "seed1", "seed2"]


# What comes of it.


@pytest.mark.usefixtures("fake_runs")
def test_the_table_has_mean_and_sample_deviation_of_each_setting(
    config, tmp_path, spec_file, capsys
):
    found = run_sweep(
        config, spec_file(seeds=[1, 2, 4], grid={TEMPERATURE: [1.0, 4.0]}), tmp_path / "sweep"
    )
    assert found == json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert found["finished"]
    assert [entry["seed"] for entry in found["runs"]] == [1, 2, 4, 1, 2, 4]
    assert found["runs"][0]["workdir"] == str(tmp_path / "sweep" / "temperature=1.0-seed1")
    assert [setting["setting"] for setting in found["settings"]] == [
        {TEMPERATURE: 1.0},
        {TEMPERATURE: 4.0},
    ]
    wanted = {
        "mean": pytest.approx(0.7 / 3),
        "std": pytest.approx(statistics.stdev([0.1, 0.2, 0.4])),
        "n": 3,
    }
    for setting in found["settings"]:
        assert setting["seeds"] == [1, 2, 4]
        assert setting["models"]["student"]["accuracy"] == setting["gain"] == wanted
        assert setting["models"]["student"]["selection_accuracy"]["mean"] == pytest.approx(0.35 / 3)
        assert setting["models"]["teacher"]["selection_accuracy"] is None
        interval = stats.ttest_1samp([0.1, 0.2, 0.4], 0).confidence_interval(0.95)
        assert setting["gain_interval_seeds"] == pytest.approx([interval.low, interval.high])
        assert (setting["gain_seeds"]["seeds"], setting["gain_seeds"]["level"]) == (3, 0.95)
    told = capsys.readouterr().out
    assert "23.33 ± 15.28" in told
    bounds = f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"
    assert f"temperature=4.0: 95 % interval over 3 seeds: {bounds}: no difference shown" in told


@pytest.mark.usefixtures("fake_runs")
def test_further_datasets_have_a_table_of_their_own_in_domain_first(
    config, tmp_path, spec_file, capsys
):
    run_sweep(config, spec_file(seeds=[1, 3]), tmp_path / "none")
    assert "by dataset" not in capsys.readouterr().out
    with config.unlocked():
        config.evaluations = {"scans": {}}
    models = run_sweep(config, spec_file(seeds=[1, 3]), tmp_path / "some")["settings"][0]["models"]
    wanted = {
        "mean": pytest.approx(0.05),
        "std": pytest.approx(statistics.stdev([0.025, 0.075])),
        "n": 2,
    }
    assert models["student"]["evaluations"] == {"scans": wanted}
    assert models["teacher"]["evaluations"] == {"scans": {"mean": 0.225, "std": None, "n": 1}}
    table = capsys.readouterr().out.partition("by dataset: the config")[2]
    lines = [line.strip("│").split("│") for line in table.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["in domain", "0.00 ± 0.00", "90.00", "20.00 ± 14.14"],
        ["scans", "0.00 ± 0.00", "22.50", "5.00 ± 3.54"],
    ]


def test_every_model_of_every_run_is_a_row_of_a_csv(config, tmp_path, spec_file, fake_runs):
    spec = spec_file(seeds=[0, 1], grid={TEMPERATURE: [1.0, 4.0]})
    run_sweep(config, spec, tmp_path / "sweep")
    with (tmp_path / "sweep" / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3
    assert list(rows[0])[:4] == [TEMPERATURE, "seed", "model", "accuracy"]
    chosen = [row for row in rows if row["model"] == "student" and row["seed"] == "1"]
    assert [(row[TEMPERATURE], row["accuracy"]) for row in chosen] == [
        ("1.0", "0.1"),
        ("4.0", "0.1"),
    ]
    assert rows[0]["selection_accuracy"] == "0.0"


@pytest.mark.usefixtures("fake_runs")
def test_one_seed_or_one_shared_teacher_has_no_deviation(config, tmp_path, spec_file):
    single = run_sweep(config, spec_file(seeds=[1]), tmp_path / "single")
    assert single["settings"][0]["gain"] == {"mean": 0.1, "std": None, "n": 1}
    assert single["settings"][0]["gain_interval_seeds"] is None
    several = run_sweep(config, spec_file(seeds=[1, 2]), tmp_path / "several")
    assert several["settings"][0]["models"]["teacher"]["accuracy"] == {
        "mean": 0.9,
        "std": None,
        "n": 1,
    }


def test_a_diverged_run_is_noted_and_left_out(
    config, tmp_path, spec_file, fake_runs, monkeypatch, capsys
):
    usual = sweep_runs.run_experiment

    def run(config, workdir, *, show):
        if config["seed"] == 2 or config["training"]["epochs"] == 9.0:
            raise Diverged("student: loss is nan at step 3")
        return usual(config, workdir, show=show)

    monkeypatch.setattr("kd_jax.experiments.sweep.run.run_experiment", run)
    found = run_sweep(
        config, spec_file(seeds=[1, 2, 3], grid={"training.epochs": [1.0, 9.0]}), tmp_path / "sweep"
    )
    assert found["runs"][1]["diverged"] == "student: loss is nan at step 3"
    good, bad = found["settings"]
    assert (good["seeds"], good["diverged"], good["gain"]["n"]) == ([1, 3], [2], 2)
    assert (bad["seeds"], bad["diverged"], bad["models"], bad["gain"]) == ([], [1, 2, 3], {}, None)
    assert "seed 2 diverged" in capsys.readouterr().out
    assert len(fake_runs) == 2


# How it stops and goes on.


def test_an_interrupted_sweep_goes_on_where_it_stopped(
    config, tmp_path, spec_file, fake_runs, monkeypatch
):
    file, usual = spec_file(seeds=[0, 1, 2]), sweep_runs.run_experiment

    def run(config, workdir, *, show):
        if config["seed"] == 1:
            raise Interrupted("stopped at step 3 of 5")
        return usual(config, workdir, show=show)

    with monkeypatch.context() as patch:
        patch.setattr("kd_jax.experiments.sweep.run.run_experiment", run)
        with pytest.raises(Interrupted, match="step 3"):
            run_sweep(config, file, tmp_path / "sweep")
    kept = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert not kept["finished"]
    assert [entry["seed"] for entry in kept["runs"]] == [0]
    assert [entry["seed"] for entry in run_sweep(config, file, tmp_path / "sweep")["runs"]] == [
        0,
        1,
        2,
    ]
    assert [name for name, _ in fake_runs] == ["seed0", "seed0", "seed1", "seed2"]
    with monkeypatch.context() as patch:
        patch.setattr("kd_jax.experiments.sweep.run.run_experiment", run)
        with pytest.raises(Interrupted):
            run_sweep(config, file, tmp_path / "sweep")
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text())["finished"]


def test_a_signal_after_a_run_s_last_step_stops_the_sweep_before_the_next(
    config, tmp_path, spec_file, monkeypatch
):
    started = []

    def run(_config, workdir, *, show):
        assert not show
        started.append(workdir.name)
        StopSignal()  # As an experiment does; nobody asks it any more.
        os.kill(os.getpid(), signal.SIGTERM)
        return {"order": [], "models": {}, "gain": 0.0}

    monkeypatch.setattr("kd_jax.experiments.sweep.run.run_experiment", run)
    with pytest.raises(Interrupted, match="the same command resumes it"):
        run_sweep(config, spec_file(seeds=[0, 1]), tmp_path / "sweep")
    assert started == ["seed0"]


# Real runs.


def fingerprints(found, name):
    return [entry["models"][name]["fingerprint"] for entry in found["runs"]]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A sweep of two seeds with a teacher that compiles fast; where, of what, and what it found."""
    folder = tmp_path_factory.mktemp("real")
    cache = (
        jax.config.jax_compilation_cache_dir,
        jax.config.jax_persistent_cache_min_compile_time_secs,
    )
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    config = load_config(CONFIG)
    config.parallel.data = 1
    config.models.teacher.model.width = 0.0625
    (folder / "sweep_file.json").write_text('{"seeds": [0, 1]}')
    yield folder, config, run_sweep(config, folder / "sweep_file.json", folder / "sweep")
    jax.config.update("jax_compilation_cache_dir", cache[0])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", cache[1])


def test_a_real_sweep_trains_its_teacher_once_and_is_found_finished(real):
    folder, config, found = real
    assert len(set(fingerprints(found, "teacher"))) == 1
    assert len(set(fingerprints(found, "student"))) == 2
    lines = (folder / "sweep" / "seed1" / "metrics.jsonl").read_text().splitlines()
    trained = (entry for entry in map(json.loads, lines) if "loss" in entry)
    assert {entry["model"] for entry in trained} == {"baseline", "student"}
    times = {path: path.stat().st_mtime_ns for path in folder.glob("sweep/*/*/model.safetensors")}
    assert len(times) == 6
    assert run_sweep(config, folder / "sweep_file.json", folder / "sweep") == found
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_run_in_a_process_of_its_own_finds_the_same(real, tmp_path, monkeypatch):
    # Commands that other tests ran in this process chose other CPU libraries for their children.
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    folder, config, found = real
    _, second = lay_out(config, {"seeds": [0, 1]}, folder / "sweep")
    ((_, alone),) = workers.over_devices([replace(second, needs=frozenset())], tmp_path, [0])
    assert not isinstance(alone, Diverged)
    assert {name: model["fingerprint"] for name, model in alone["models"].items()} == {
        name: model["fingerprint"] for name, model in found["runs"][1]["models"].items()
    }
    assert "restored from" in (tmp_path / "seed1.log").read_text()


def test_with_devices_the_sweep_leaves_them_to_its_processes(
    config, tmp_path, spec_file, monkeypatch
):
    updates, asked = [], []
    monkeypatch.setattr(jax.config, "update", lambda *setting: updates.append(setting))

    def over_devices(runs, folder, devices):
        asked.append((folder, devices))
        yield runs[0], Diverged("nan")

    monkeypatch.setattr("kd_jax.experiments.sweep.run.over_devices", over_devices)
    run_sweep(config, spec_file(seeds=[0], devices=[4, 7]), tmp_path / "sweep")
    assert updates == [("jax_platforms", "cpu")]
    assert asked == [(tmp_path / "sweep", [4, 7])]
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    with pytest.raises(ValueError, match="those of one machine"):
        run_sweep(config, spec_file(seeds=[0], devices=[4, 7]), tmp_path / "sweep")


def test_a_teacher_that_the_sweep_trained_may_be_worse_than_a_guess(spec_file, tmp_path, caplog):
    """Which is a finding about the data, and no mistake of the config."""
    (tmp_path / "own").mkdir()
    for split, wrong in (("train", False), ("selection", True), ("evaluation", True)):
        rows = [
            f"{word} story number {number},{label}"
            for number in range(40)
            for word, label in (
                ("fine", "down" if wrong else "up"),
                ("dull", "up" if wrong else "down"),
            )
        ]
        (tmp_path / "own" / f"{split}.csv").write_text("\n".join(["text,label", *rows]))
    bag = dict(name="bag_of_embeddings", width=8, hidden=(), dropout=0.0)
    config = kd.experiment(
        "swapped",
        data=dict(
            name=str(tmp_path / "own"),
            inputs="text",
            train="train",
            selection="selection",
            evaluation="evaluation",
            cleaning=dict(mode="off"),
        ),
        view=dict(tokenizer="trained", vocabulary_size=60, max_length=8),
        training=dict(epochs=10.0, batch_size=16, optimizer=dict(learning_rate=0.05)),
        checkpoint=dict(use="latest"),
        parallel=dict(data=1),
        teacher=dict(model=bag),
        student=dict(model=bag | dict(width=4)),
    )
    with caplog.at_level("WARNING"):
        found = run_sweep(inherit(config), spec_file(seeds=[0, 1]), tmp_path / "sweep")
    assert [entry["models"]["teacher"]["accuracy"] < 0.2 for entry in found["runs"]] == [True, True]
    assert "teacher was trained on these data; selection split: accuracy" in caplog.text
