import copy
import json
import os
import signal
import statistics
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from kd_jax import experiment, sweep, sweep_worker
from kd_jax.command import load_config, plain
from kd_jax.loop import Diverged, Interrupted, StopSignal
from kd_jax.sweep_grid import lay_out, read

CONFIG = str(Path(__file__).parent / "configs" / "shared.py") + ":smoke"
TEMPERATURE = "models.student.objective.soft.temperature"

# A workdir's lock is held until the workdir is forgotten.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*\.lock:pytest.PytestUnraisableExceptionWarning")


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
    """Stands in for the experiment: its calls are recorded; the student's accuracy is 0.1 x its seed."""
    calls = []

    def run(config, workdir):
        calls.append((workdir.name, config))
        restored = config["models"]["teacher"].get("restore")
        teacher = restored or str(workdir / "teacher")
        accuracies = {"baseline": 0.0, "teacher": 0.9, "student": 0.1 * config["seed"]}
        models = {
            name: {
                "accuracy": accuracy, "loss": 1.0, "ece": 0.5, "agreement": {}, "parameters": 3,
                "fingerprint": teacher if name == "teacher" else f"{name} {config['seed']}",
                "selection_accuracy": None if name == "teacher" else accuracy / 2,
            }
            for name, accuracy in accuracies.items()
        }  # fmt: skip
        elsewhere = {name: {"accuracy": accuracy / 4} for name, accuracy in accuracies.items()}
        evaluations = dict.fromkeys(config["evaluations"], elsewhere)
        return {"order": list(models), "models": models, "gain": accuracies["student"], "evaluations": evaluations}

    monkeypatch.setattr(experiment, "run", run)
    return calls


def laid_out(config, tmp_path, **spec):
    return lay_out(config, spec, tmp_path)


# What the runs are.


def test_every_setting_meets_every_seed_in_a_folder_that_says_so(config, tmp_path):
    runs = laid_out(config, tmp_path, seeds=[3, 5], grid={TEMPERATURE: [1, 4.0], "training.epochs": [2]})
    assert [run.name for run in runs] == [
        "temperature=1.0,epochs=2.0-seed3",
        "temperature=1.0,epochs=2.0-seed5",
        "temperature=4.0,epochs=2.0-seed3",
        "temperature=4.0,epochs=2.0-seed5",
    ]
    assert [run.config["seed"] for run in runs] == [3, 5, 3, 5]
    assert [run.config["models"]["student"]["objective"]["soft"]["temperature"] for run in runs] == [1.0, 1.0, 4.0, 4.0]


def test_without_a_grid_the_config_itself_runs_once_a_seed(config, tmp_path):
    first, second = laid_out(config, tmp_path, seeds=[0, 1])
    assert (first.name, second.name) == ("seed0", "seed1")
    assert first.config == plain(config)


def test_an_override_reaches_all_that_inherit_it_and_nothing_else(config, tmp_path):
    before = copy.deepcopy(plain(config))
    rate = "models.student.training.optimizer.learning_rate"
    first, second = laid_out(config, tmp_path, seeds=[0], grid={"training.epochs": [7.0], rate: [0.5, 0.25]})
    for run, wanted in ((first, 0.5), (second, 0.25)):
        models = run.config["models"]
        assert {model["training"]["epochs"] for model in models.values()} == {7.0}
        assert models["baseline"]["training"]["optimizer"]["learning_rate"] == wanted
        assert models["teacher"]["training"]["optimizer"]["learning_rate"] == 2e-3
    assert plain(config) == before


def test_lists_stand_for_tuples(config, tmp_path):
    (run,) = laid_out(config, tmp_path, seeds=[0], grid={"models.student.model.widths": [[4, 6]]})
    assert run.config["models"]["baseline"]["model"]["widths"] == (4, 6)
    assert run.name == "widths=4_6-seed0"


def test_folders_stay_short_and_apart(config, tmp_path):
    long = ["x" * 300, "x" * 301]
    odd = ["train[:90%]", "train[90%]"]
    names = [run.name for run in laid_out(config, tmp_path, seeds=[0], grid={"data.dir": long, "data.train": odd})]
    assert len(set(names)) == 4
    assert max(map(len, names)) < 150
    same_end = {"models.student.model.name": ["cnn"], "data.name": ["digits"]}
    (run,) = laid_out(config, tmp_path, seeds=[0], grid=same_end)
    assert run.name == "model.name=cnn,data.name=digits-seed0"
    odd_only = [run.name for run in laid_out(config, tmp_path, seeds=[0], grid={"data.train": odd})]
    assert len(set(odd_only)) == 2


# Which runs share a teacher.


def restored(run):
    return {name: model["restore"] for name, model in run.config["models"].items() if model["restore"]}


def test_a_teacher_that_no_override_touches_is_trained_once(config, tmp_path):
    first, *others = laid_out(config, tmp_path, seeds=[0, 1], grid={TEMPERATURE: [1.0, 4.0]})
    assert (restored(first), first.needs) == ({}, frozenset())
    for run in others:
        assert restored(run) == {"teacher": str(tmp_path / first.name / "teacher")}
        assert run.needs == {first.name}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("training.epochs", [1.0, 2.0]),
        ("models.teacher.model.width", [0.25, 0.5]),
        ("data.train", ["train[:80%]", "train[:90%]"]),
        ("checkpoint.use", ["best", "latest"]),
        ("view.channels", [1, 3]),
    ],
)
def test_each_version_of_a_teacher_is_trained_once(config, tmp_path, path, values):
    runs = laid_out(config, tmp_path, seeds=[0, 1], grid={path: values})
    assert [run.needs for run in runs] == [set(), {runs[0].name}, set(), {runs[2].name}]


def test_a_teacher_that_is_trained_with_a_peer_is_trained_in_every_run(config, tmp_path):
    with config.unlocked():
        config.models.other = copy.deepcopy(config.models.teacher)
        config.models.other.model.width = 0.125
        config.models.other.teachers, config.models.teacher.teachers = ("peer:teacher",), ("peer:other",)
    for run in laid_out(config, tmp_path, seeds=[0, 1], grid={TEMPERATURE: [1.0, 4.0]}):
        assert (restored(run), run.needs) == ({}, frozenset())


def test_baselines_assistants_and_teachers_that_are_restored_already_are_left_alone(config, tmp_path):
    with config.unlocked():
        config.models.assistant = copy.deepcopy(config.models.student)
        config.models.student.teachers = ("assistant",)
    _, second = laid_out(config, tmp_path, seeds=[0, 1])
    assert set(restored(second)) == {"teacher"}
    with config.unlocked():
        config.models.teacher.restore = "elsewhere"
    for run in laid_out(config, tmp_path, seeds=[0, 1]):
        assert restored(run) == {"teacher": "elsewhere"}
        assert not run.needs


def test_a_baseline_that_teaches_is_still_one_of_each_seed(config, tmp_path):
    with config.unlocked():
        config.models.born_again = copy.deepcopy(config.models.student)
        config.models.born_again.teachers = ("baseline",)
    _, second = laid_out(config, tmp_path, seeds=[0, 1])
    assert set(restored(second)) == {"teacher"}


@pytest.mark.parametrize("kind", ["transfer", "trusted"])
def test_who_labels_or_judges_what_others_learn_from_is_trained_once(kind, tmp_path):
    """Without being anyone's teacher."""
    config = load_config(str(Path(__file__).parents[1] / "configs" / "digits_trusted.py") + ":smoke")
    with config.unlocked():
        del config.models.unsifted
        if kind == "transfer":
            config.trusted_sets = {}
            source = {"name": "mixes", "rounds": 1, "kind": "mixup", "concentration": 1.0}
            config.transfer_sets = {"trusted": {
                "teacher": "judge", "source": source, "labels": "soft", "temperature": 1.0, "confidence": 0.0,
                "per_class": None, "near_duplicate": 0.0, "max_overlap": 0.0,
            }}  # fmt: skip
    _, second = laid_out(config, tmp_path, seeds=[0, 1])
    assert restored(second)["judge"] == str(tmp_path / "seed0" / "judge")


def test_a_teacher_that_learns_from_a_set_is_trained_in_every_run(tmp_path):
    """Which rows it learns from may be what the grid varies."""
    config = load_config(str(Path(__file__).parents[1] / "configs" / "digits_trusted.py") + ":smoke")
    _, second = laid_out(config, tmp_path, seeds=[0], grid={"trusted_sets.trusted.folds": [2, 3]})
    assert set(restored(second)) == {"judge"}


# What is refused.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1", "not JSON"),
        ("[1]", "must look like"),
        ('{"seeds": [0], "grid": []}', "must look like"),
        ('{"grid": {}}', "needs option 'seeds'"),
        ('{"seeds": [0], "gird": {}}', "has no option 'gird'; its options are devices, grid, seeds"),
        ('{"seeds": []}', "seeds in .* must be a list of integers"),
        ('{"seeds": [true]}', "seeds in .* must be a list of integers"),
        ('{"seeds": [-1]}', "seeds in .* must be a list of integers"),
        ('{"seeds": [1, 1]}', "must differ from one another"),
        ('{"seeds": [0], "devices": "all"}', "devices in .* must be a list of integers"),
        ('{"seeds": [0], "grid": {"training.epochs": []}}', "'training.epochs' in .* must be a list of values"),
        ('{"seeds": [0], "grid": {"training.epochs": 1}}', "'training.epochs' in .* must be a list of values"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, content, message):
    file = tmp_path / "wrong.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        read(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json can't be read: No such file"):
        read(tmp_path / "none.json")


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
        ({"training.epochs": [1.0, -1.0]}, r"epochs=-1\.0-seed0: .* must be positive"),
        ({"models.student.teachers": [["tutor"]]}, "teachers=tutor-seed0: .* names 'tutor'"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(config, tmp_path, spec_file, fake_runs, grid, message):
    with pytest.raises(ValueError, match=message) as caught:
        sweep.run(config, spec_file(seeds=[0], grid=grid), tmp_path / "sweep")
    assert "\n" not in str(caught.value)
    assert not fake_runs
    assert not (tmp_path / "sweep").exists()


def test_a_folder_of_another_sweep_or_config_is_refused(config, tmp_path, spec_file, fake_runs):
    sweep.run(config, spec_file(seeds=[0], grid={TEMPERATURE: [1.0]}), tmp_path / "sweep")
    with pytest.raises(ValueError, match=r"differ in sweep\.grid\..*temperature, sweep\.seeds$"):
        sweep.run(config, spec_file(seeds=[1], grid={TEMPERATURE: [2.0]}), tmp_path / "sweep")
    config.data.train = "train[:10%]"
    with pytest.raises(ValueError, match=r"differ in data\.train$"):
        sweep.run(config, spec_file(seeds=[0], grid={TEMPERATURE: [1.0]}), tmp_path / "sweep")
    assert len(fake_runs) == 1


# What comes of it.


@pytest.mark.usefixtures("fake_runs")
def test_the_table_has_mean_and_sample_deviation_of_each_setting(config, tmp_path, spec_file, capsys):
    found = sweep.run(config, spec_file(seeds=[1, 2, 4], grid={TEMPERATURE: [1.0, 4.0]}), tmp_path / "sweep")
    assert found == json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert found["finished"]
    assert [entry["seed"] for entry in found["runs"]] == [1, 2, 4, 1, 2, 4]
    assert found["runs"][0]["workdir"] == str(tmp_path / "sweep" / "temperature=1.0-seed1")
    assert [setting["setting"] for setting in found["settings"]] == [{TEMPERATURE: 1.0}, {TEMPERATURE: 4.0}]
    wanted = {"mean": pytest.approx(0.7 / 3), "std": pytest.approx(statistics.stdev([0.1, 0.2, 0.4])), "n": 3}
    for setting in found["settings"]:
        assert setting["seeds"] == [1, 2, 4]
        assert setting["models"]["student"]["accuracy"] == setting["gain"] == wanted
        assert setting["models"]["student"]["selection_accuracy"]["mean"] == pytest.approx(0.35 / 3)
        assert setting["models"]["teacher"]["selection_accuracy"] is None
    assert "23.33 ± 15.28" in capsys.readouterr().out


@pytest.mark.usefixtures("fake_runs")
def test_further_datasets_have_a_table_of_their_own_in_domain_first(config, tmp_path, spec_file, capsys):
    sweep.run(config, spec_file(seeds=[1, 3]), tmp_path / "none")
    assert "by dataset" not in capsys.readouterr().out
    with config.unlocked():
        config.evaluations = {"scans": {}}
    models = sweep.run(config, spec_file(seeds=[1, 3]), tmp_path / "some")["settings"][0]["models"]
    wanted = {"mean": pytest.approx(0.05), "std": pytest.approx(statistics.stdev([0.025, 0.075])), "n": 2}
    assert models["student"]["evaluations"] == {"scans": wanted}
    assert models["teacher"]["evaluations"] == {"scans": {"mean": 0.225, "std": None, "n": 1}}
    table = capsys.readouterr().out.partition("by dataset: the config")[2]
    lines = [line.strip("│").split("│") for line in table.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["in domain", "0.00 ± 0.00", "90.00", "20.00 ± 14.14"],
        ["scans", "0.00 ± 0.00", "22.50", "5.00 ± 3.54"],
    ]


@pytest.mark.usefixtures("fake_runs")
def test_one_seed_or_one_shared_teacher_has_no_deviation(config, tmp_path, spec_file):
    single = sweep.run(config, spec_file(seeds=[1]), tmp_path / "single")
    assert single["settings"][0]["gain"] == {"mean": 0.1, "std": None, "n": 1}
    several = sweep.run(config, spec_file(seeds=[1, 2]), tmp_path / "several")
    assert several["settings"][0]["models"]["teacher"]["accuracy"] == {"mean": 0.9, "std": None, "n": 1}


def test_a_diverged_run_is_noted_and_left_out(config, tmp_path, spec_file, fake_runs, monkeypatch, capsys):
    usual = experiment.run

    def run(config, workdir):
        if config["seed"] == 2 or config["training"]["epochs"] == 9.0:
            raise Diverged("student: loss is nan at step 3")
        return usual(config, workdir)

    monkeypatch.setattr(experiment, "run", run)
    found = sweep.run(config, spec_file(seeds=[1, 2, 3], grid={"training.epochs": [1.0, 9.0]}), tmp_path / "sweep")
    assert found["runs"][1]["diverged"] == "student: loss is nan at step 3"
    good, bad = found["settings"]
    assert (good["seeds"], good["diverged"], good["gain"]["n"]) == ([1, 3], [2], 2)
    assert (bad["seeds"], bad["diverged"], bad["models"], bad["gain"]) == ([], [1, 2, 3], {}, None)
    assert "seed 2 diverged" in capsys.readouterr().out
    assert len(fake_runs) == 2


# How it stops and goes on.


def test_an_interrupted_sweep_goes_on_where_it_stopped(config, tmp_path, spec_file, fake_runs, monkeypatch):
    file, usual = spec_file(seeds=[0, 1, 2]), experiment.run

    def run(config, workdir):
        if config["seed"] == 1:
            raise Interrupted("stopped at step 3 of 5")
        return usual(config, workdir)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "run", run)
        with pytest.raises(Interrupted, match="step 3"):
            sweep.run(config, file, tmp_path / "sweep")
    kept = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert not kept["finished"]
    assert [entry["seed"] for entry in kept["runs"]] == [0]
    assert [entry["seed"] for entry in sweep.run(config, file, tmp_path / "sweep")["runs"]] == [0, 1, 2]
    assert [name for name, _ in fake_runs] == ["seed0", "seed0", "seed1", "seed2"]
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "run", run)
        with pytest.raises(Interrupted):
            sweep.run(config, file, tmp_path / "sweep")
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text())["finished"]


def test_a_signal_after_a_run_s_last_step_stops_the_sweep_before_the_next(config, tmp_path, spec_file, monkeypatch):
    started = []

    def run(_config, workdir):
        started.append(workdir.name)
        StopSignal()  # As an experiment does; nobody asks it any more.
        os.kill(os.getpid(), signal.SIGTERM)
        return {"order": [], "models": {}, "gain": 0.0}

    monkeypatch.setattr(experiment, "run", run)
    with pytest.raises(Interrupted, match="the same command resumes it"):
        sweep.run(config, spec_file(seeds=[0, 1]), tmp_path / "sweep")
    assert started == ["seed0"]


# Real runs.


def fingerprints(found, name):
    return [entry["models"][name]["fingerprint"] for entry in found["runs"]]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A sweep of two seeds with a teacher that compiles fast; where, of what, and what it found."""
    folder = tmp_path_factory.mktemp("real")
    cache = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    config = load_config(CONFIG)
    config.parallel.data = 1
    config.models.teacher.model.width = 0.0625
    (folder / "sweep_file.json").write_text('{"seeds": [0, 1]}')
    yield folder, config, sweep.run(config, folder / "sweep_file.json", folder / "sweep")
    jax.config.update("jax_compilation_cache_dir", cache[0])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", cache[1])


def test_a_real_sweep_trains_its_teacher_once_and_is_found_finished(real):
    folder, config, found = real
    assert len(set(fingerprints(found, "teacher"))) == 1
    assert len(set(fingerprints(found, "student"))) == 2
    lines = (folder / "sweep" / "seed1" / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["model"] for line in lines} == {"baseline", "student"}
    times = {path: path.stat().st_mtime_ns for path in folder.glob("sweep/*/*/model.safetensors")}
    assert len(times) == 6
    assert sweep.run(config, folder / "sweep_file.json", folder / "sweep") == found
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_run_in_a_process_of_its_own_finds_the_same(real, tmp_path):
    folder, config, found = real
    _, second = lay_out(config, {"seeds": [0, 1]}, folder / "sweep")
    ((_, alone),) = sweep_worker.over_devices([replace(second, needs=frozenset())], tmp_path, [0])
    assert not isinstance(alone, Diverged)
    assert {name: model["fingerprint"] for name, model in alone["models"].items()} == {
        name: model["fingerprint"] for name, model in found["runs"][1]["models"].items()
    }
    assert "restored from" in (tmp_path / "seed1.log").read_text()


def test_with_devices_the_sweep_leaves_them_to_its_processes(config, tmp_path, spec_file, monkeypatch):
    updates, asked = [], []
    monkeypatch.setattr(jax.config, "update", lambda *setting: updates.append(setting))

    def over_devices(runs, folder, devices):
        asked.append((folder, devices))
        yield runs[0], Diverged("nan")

    monkeypatch.setattr(sweep, "over_devices", over_devices)
    sweep.run(config, spec_file(seeds=[0], devices=[4, 7]), tmp_path / "sweep")
    assert updates == [("jax_platforms", "cpu")]
    assert asked == [(tmp_path / "sweep", [4, 7])]
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    with pytest.raises(ValueError, match="those of one machine"):
        sweep.run(config, spec_file(seeds=[0], devices=[4, 7]), tmp_path / "sweep")


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    """Replaces the runs' program by a line of Python; `sys.argv[1:]` are the config and the workdir."""
    script = tmp_path / "program"

    def program(source):
        script.write_text(source)
        popen = sweep_worker.subprocess.Popen

        def start(command, **rest):
            return popen([command[0], str(script), *command[3:]], **rest)

        monkeypatch.setattr(sweep_worker.subprocess, "Popen", start)

    return program


RESULT = "import json, os, pathlib, sys, time; p = pathlib.Path(sys.argv[2]); p.mkdir(exist_ok=True)\n"


def outcomes(config, tmp_path, devices, **spec):
    runs = laid_out(config, tmp_path, **spec)
    return list(sweep_worker.over_devices(runs, tmp_path, devices))


def test_a_process_sees_its_device_and_waits_for_the_teacher_it_restores(config, tmp_path, scripted):
    scripted(
        RESULT + "began = time.time(); time.sleep(0.3)\n"
        "seen = [os.environ[k] for k in ('CUDA_VISIBLE_DEVICES', 'JAX_NUM_CPU_DEVICES')]\n"
        "(p / 'results.json').write_text(json.dumps(dict(seen=seen, began=began, ended=time.time())))"
    )
    found = {run.name: result for run, result in outcomes(config, tmp_path, [4, 7], seeds=[0, 1, 2])}
    assert found["seed0"]["seen"] == ["4", "8"]
    assert {found["seed1"]["seen"][0], found["seed2"]["seen"][0]} == {"4", "7"}
    assert min(found["seed1"]["began"], found["seed2"]["began"]) > found["seed0"]["ended"]


@pytest.mark.parametrize(
    ("ending", "error", "message"),
    [
        (
            "raise ValueError('no such data')",
            ValueError,
            r"seed0 failed with status 1: ValueError: no such .*seed0\.log",
        ),
        ("print('stopped at step 3'); sys.exit(75)", Interrupted, "seed0: stopped at step 3"),
        ("sys.exit(9)", ValueError, "seed0 failed with status 9: it printed nothing"),
    ],
)
def test_a_process_that_fails_ends_the_sweep(config, tmp_path, scripted, ending, error, message):
    scripted(RESULT + ending)
    with pytest.raises(error, match=message):
        outcomes(config, tmp_path, [0], seeds=[0, 1])


def test_a_process_that_diverges_does_not_end_the_sweep(config, tmp_path, scripted):
    scripted(RESULT + "print('loss is nan'); sys.exit(3)")
    found = outcomes(config, tmp_path, [0], seeds=[0, 1, 2])
    assert [(run.name, type(outcome), str(outcome)) for run, outcome in found] == [
        (f"seed{seed}", Diverged, "loss is nan") for seed in range(3)
    ]


def test_a_signal_is_passed_on_to_the_processes(config, tmp_path, scripted):
    scripted(
        "import os, signal, sys, time\n"
        "def stop(*_): open(sys.argv[2] + '.stopped', 'w').close(); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop); os.kill(os.getppid(), signal.SIGTERM); time.sleep(30)"
    )
    with pytest.raises(Interrupted):
        outcomes(config, tmp_path, [0], seeds=[0])
    assert (tmp_path / "seed0.stopped").exists()


def test_a_run_s_process_reports_how_it_ended(config, tmp_path, monkeypatch, capsys):
    config_text, seen = repr(plain(config)), []
    monkeypatch.setattr(experiment, "run", lambda config, workdir: seen.append((config, workdir)))
    assert sweep_worker._main(config_text, str(tmp_path)) == 0
    assert seen == [(plain(config), tmp_path)]
    for error, status in ((Diverged("nan"), 3), (Interrupted("stopped"), 75)):

        def run(*_, error=error):
            raise error

        monkeypatch.setattr(experiment, "run", run)
        assert sweep_worker._main(config_text, str(tmp_path)) == status
        assert str(error) in capsys.readouterr().err
