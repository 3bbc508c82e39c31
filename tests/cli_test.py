import json
import subprocess
import sys

import pytest
from paths import ROOT

import kd_jax.cli as cli
from kd_jax.config.load import load_config, plain

pytestmark = pytest.mark.slow


def launch(*arguments):
    command = [sys.executable, str(ROOT / "launch.py"), *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.fixture
def config_file(tmp_path):
    def write(text):
        file = tmp_path / "mine.py"
        file.write_text(text)
        return str(file)

    return write


# Config files


def test_a_config_keeps_tuples_and_resolves_references(config_file):
    file = config_file(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    config = ConfigDict(dict(training=dict(epochs=2.0), view={}, dtype='float32'))\n"
        "    config.models = dict(student=dict(model=dict(name='cnn', widths=(4, 8))),"
        " baseline=dict(like='student'))\n"
        "    return config\n"
    )
    config = load_config(file)
    config.training.epochs = 3.0
    models = plain(config)["models"]
    assert models["baseline"]["model"]["widths"] == (4, 8)
    assert models["baseline"]["training"]["epochs"] == 3.0


@pytest.mark.parametrize("name", ["nothing.py", "README.md", "configs"])
def test_a_file_that_is_no_config_is_refused(name):
    with pytest.raises(
        ValueError, match=f"there is no config file '{name}'; give a file, or one of bert_adam, "
    ):
        load_config(name)


def test_a_file_without_get_config_is_refused(config_file):
    with pytest.raises(ValueError, match=r"mine.py has no function get_config"):
        load_config(config_file("x = 1\n"))


# The process


def test_help_lists_the_flags_and_ends_well():
    found = launch("--help")
    assert found.returncode == 0
    assert found.stderr == ""
    for flag in (
        "--workdir",
        "--config",
        "--sweep",
        "--[no]debug",
        "--simulate_devices",
        "--coordinator",
    ):
        assert flag in found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "unexpected argument 'nonsense'; flags begin with --"),
        (["--wrkdir=x"], "Unknown command line flag 'wrkdir'"),
        (
            ["--config.training.optimizer.learning_rte=1"],
            "training.optimizer has no 'learning_rte'; it has",
        ),
        (["--config.training.epochs=many"], "training.epochs must be a number, got 'many'"),
        (["--config.logging.writers=wand"], "logging.writers names 'wand', which is no writer"),
        (["--profile=15:10"], "profile must be FIRST:LAST"),
        (["--profile=1:2", "--sweep=x"], "--profile is of one run, not of a sweep or search"),
        (["--profile=1:2", "--stage=report"], "--profile is for training"),
        (
            ["--config=digits:smoke", "--profile=1:6"],
            "profile=1:6 ends beyond the last step of models.baseline, 5",
        ),
        (["--num_processes=2"], "--coordinator, --num_processes and --process_id go together"),
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr(arguments, message, tmp_path):
    found = launch(*arguments, f"--workdir={tmp_path}")
    assert found.returncode not in (0, 75)
    assert message in found.stderr.strip().splitlines()[-1]
    assert "Traceback" not in found.stderr


def test_debug_shows_the_traceback(tmp_path):
    found = launch("--config=nothing.py", "--debug", f"--workdir={tmp_path}")
    assert found.returncode not in (0, 75)
    assert "Traceback" in found.stderr


def test_the_resolved_config_is_printed_and_nothing_runs(tmp_path):
    found = launch("--config=digits", "--print_config", f"--workdir={tmp_path / 'run'}")
    assert found.returncode == 0
    assert json.loads(found.stdout) == json.loads(json.dumps(plain(load_config("digits"))))
    assert not (tmp_path / "run").exists()


def test_the_old_name_of_by_goes_on_working(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(cli, "explain_stage", lambda *given: asked.append(given[2]) or 0)
    for flag in ("--by=terms", "--players=terms"):
        cli.FLAGS.unparse_flags()
        cli.FLAGS["players"].value, cli.FLAGS["by"].value = None, "members"
        assert cli._run(["--stage=explain", f"--workdir={tmp_path}", flag]) == 0
    assert asked == ["terms", "terms"]
