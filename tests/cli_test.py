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
        "--[no]join",
        "--launcher",
        "--workers",
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
        (["--stage=fit"], "--workdir is not for --stage=fit, which trains nothing"),
        (["--device_memory=1GB"], "--device_memory is for --stage=fit"),
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr(arguments, message, tmp_path):
    found = launch(*arguments, f"--workdir={tmp_path}")
    assert found.returncode not in (0, 75)
    assert message in found.stderr.strip().splitlines()[-1]
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--launcher=lsf"], "should be one of <slurm|local|jobset|tpu>"),
        (["--sweep=F", "--launcher=local", "--workers=0"], "--workers must be 1 or more, got 0"),
        (["--launcher=local", "--workers=2"], "--workers is for --sweep, whose runs workers share"),
        (["--join"], "--join is for --sweep, whose runs workers share"),
        (["--sweep=F", "--workers=2"], "--workers needs --launcher, which starts them; to start"),
        (
            ["--sweep=gs://a/b"],
            "--sweep must be a path in a file system; a bucket has to be mounted, or be",
        ),
        (["--config.checkpoint.outputs_dir=s3://a"], "checkpoint.outputs_dir must be a path in"),
        (["--launcher=slurm", "--stage=report"], "--launcher is for training and teaching, not"),
        (["--launcher=slurm", "--repeat=F"], "is for training and teaching, not for --repeat"),
        (["--mirror=runs/a"], "--mirror must be an address such as gs://BUCKET/RUN"),
        (["--mirror=ftpx://a"], "--mirror=ftpx://a: Protocol not known"),
        (["--mirror=memory://a", "--stage=export"], "not for --stage=export"),
        (["--mirror=memory://a", "--sweep=F", "--join"], "that trains, not for --join"),
        (["--slurm=partition=gpu"], "--slurm is for --launcher=slurm"),
        (["--launcher=slurm", "--tpu=zone=a"], "--tpu is for --launcher=tpu"),
        (["--launcher=tpu", "--tpu=zoen=a"], "--tpu has no 'zoen', did you mean 'zone'?"),
        (["--launcher=jobset"], "--workdir must lie in /runs, where the pods see their volume"),
        (["--launcher=jobset", "--sweep=F"], "the sweep file F can't be read"),
        (["--launcher=tpu", "--config.training.epochs=-1.0"], "epochs must be a positive number"),
        (["--launcher=tpu", "--sweep=F", "--search=F"], "--sweep and --search are two things"),
    ],
)
def test_workers_and_launchers_that_can_not_be_are_refused_in_one_line(
    arguments, message, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(sys, "argv", ["kd-jax", *arguments, f"--workdir={tmp_path / 'run'}"])
    forget_flags()
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


def test_a_launcher_that_writes_text_starts_nothing(monkeypatch, capsys, tmp_path):
    (tmp_path / "grid.json").write_text('{"seeds": [0, 1]}')
    shared = ["--smoke", f"--sweep={tmp_path / 'grid.json'}", "--workers=2"]
    shared += [f"--workdir={tmp_path / 'a'}"]
    jobset = ["--launcher=jobset", f"--jobset=mount={tmp_path}"]
    for launcher, start in (
        (jobset, "apiVersion: jobset"),
        (["--launcher=tpu"], "gcloud compute tpus"),
    ):
        forget_flags()
        assert cli._run([*shared, *launcher]) == 0
        told = capsys.readouterr().out
        assert told.startswith(start)
        assert "--join" in told
        assert "--launcher" not in told
    assert not (tmp_path / "a").exists()


def test_devices_of_one_process_are_not_those_of_workers(tmp_path):
    (tmp_path / "grid.json").write_text('{"seeds": [0, 1], "devices": [0, 1]}')
    forget_flags()
    arguments = [f"--sweep={tmp_path / 'grid.json'}", "--workers=2", "--launcher=local"]
    with pytest.raises(ValueError, match=r'^"devices" in .* are for one process; --workers have'):
        cli._run([*arguments, f"--workdir={tmp_path / 'run'}"])


def test_workers_of_another_sweep_are_refused_before_they_are_submitted(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    grid = tmp_path / "grid.json"
    arguments = [f"--sweep={grid}", "--workers=2", "--launcher=local", "--smoke"]
    arguments += [f"--workdir={tmp_path / 'run'}"]
    for seed, message in ((0, "needs the extra slurm"), (1, "differ in sweep.seeds")):
        grid.write_text(json.dumps({"seeds": [seed]}))
        forget_flags()
        with pytest.raises(ValueError, match=message):
            cli._run(arguments)
        (tmp_path / "run" / "results.json").write_text("{}")


def forget_flags():
    """Sets all flags back to their defaults, as in a new process."""
    cli.FLAGS.unparse_flags()
    for flag in cli.FLAGS.flags_by_module_dict()["kd_jax.cli"]:
        flag.unparse()


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
