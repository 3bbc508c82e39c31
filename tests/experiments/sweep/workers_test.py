"""Runs in processes of their own, each on a device of its own."""

import signal

import pytest
from paths import TESTS

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.sweep import workers
from kd_jax.experiments.sweep.grid import lay_out
from kd_jax.training.interruption import Diverged, Interrupted

CONFIG = str(TESTS / "configs" / "shared.py") + ":smoke"
TEMPERATURE = "models.student.objective.soft.temperature"

# A workdir's lock is held until the workdir is forgotten.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(r"ignore:.*\.lock:pytest.PytestUnraisableExceptionWarning"),
]


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


def laid_out(config, tmp_path, **spec):
    return lay_out(config, spec, tmp_path)


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    """Replaces the runs' program by a line of Python; `sys.argv[1:]` are the config and the
    workdir."""
    script = tmp_path / "program"

    def program(source):
        script.write_text(source)
        popen = workers.subprocess.Popen

        def start(command, **rest):
            return popen([command[0], str(script), *command[3:]], **rest)

        monkeypatch.setattr(workers.subprocess, "Popen", start)

    return program


RESULT = (
    "import json, os, pathlib, sys, time; p = pathlib.Path(sys.argv[2]); p.mkdir(exist_ok=True)\n"
)


def outcomes(config, tmp_path, devices, **spec):
    runs = laid_out(config, tmp_path, **spec)
    return list(workers.over_devices(runs, tmp_path, devices))


def test_a_process_sees_its_device_and_waits_for_the_teacher_it_restores(
    config, tmp_path, scripted
):
    scripted(
        RESULT + "began = time.time(); time.sleep(0.3)\n"
        "seen = [os.environ[k] for k in ('CUDA_VISIBLE_DEVICES', 'JAX_NUM_CPU_DEVICES')]\n"
        "(p / 'results.json').write_text(json.dumps(dict(seen=seen, began=began,"
        " ended=time.time())))"
    )
    found = {
        run.name: result for run, result in outcomes(config, tmp_path, [4, 7], seeds=[0, 1, 2])
    }
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
    monkeypatch.setattr(
        workers, "run_experiment", lambda config, workdir: seen.append((config, workdir))
    )
    assert workers._main(config_text, str(tmp_path)) == 0
    assert seen == [(plain(config), tmp_path)]
    for error, status in ((Diverged("nan"), 3), (Interrupted("stopped"), 75)):

        def run(*_, error=error):
            raise error

        monkeypatch.setattr(workers, "run_experiment", run)
        assert workers._main(config_text, str(tmp_path)) == status
        assert str(error) in capsys.readouterr().err
