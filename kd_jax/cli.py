"""The command line: flags become a config and one call; a refusal is one line and an exit status.

  kd-jax                                                the default experiment, digits
  kd-jax --config=sst2_minilm --workdir=DIR [--config.training.epochs=2 ...]
  kd-jax --config=configs/sst2_minilm.py --smoke        the same in seconds, on built-in data
  kd-jax --config=digits --print_config                 every key with its value
  kd-jax --config=digits --sweep=FILE                   a grid of overrides x seeds, from JSON
  kd-jax --config=digits --sweep=FILE --join --workdir=DIR    the same, shared with other workers
  kd-jax --config=... --sweep=FILE --launcher=slurm --workers=4    as an array of workers
  kd-jax --config=... --launcher=jobset                 prints a manifest for Kubernetes
  kd-jax --config=digits --search=FILE                  settings of a space, the better half longer
  kd-jax --config=digits --stage=fit                    whether it fits on the devices, and why not
  kd-jax --config=digits --stage=teach                  only teachers, and their cached outputs
  kd-jax --config=digits --profile=10:15                these steps of each training, profiled
  kd-jax --repeat=results.json                          a recorded experiment again, compared
  kd-jax --stage=report --workdir=DIR                   a finished run or sweep as one page
  kd-jax --stage=export --workdir=DIR                   a finished student as files for deployment
  kd-jax --stage=predict --workdir=DIR --input=FILE     its labels and probabilities of new inputs
  kd-jax --stage=explain --workdir=DIR                  what teacher and student rest on, with plots
  kd-jax --stage=explain --workdir=DIR --by=terms       what each term of the objective adds

In a checkout, `uv run launch.py` is the same command.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from kd_jax.config.load import load_config, plain
from kd_jax.config.overrides import override, split_overrides
from kd_jax.config.rules import PATH
from kd_jax.core.processes import (
    GONE,
    RESUMABLE,
    is_cluster_member,
    is_watched,
    lost_another,
    watch,
)
from kd_jax.core.sizes import read_size

DEFAULT_CONFIG = "digits"
CONFIG_FILE = "config_file.json"
"""Where a run notes the user's config file, whose models and terms later stages need as well."""

FLAGS = flags.FLAGS
LAUNCHERS = ["slurm", "local", "jobset", "tpu"]
STAGES = ["train", "fit", "teach", "report", "export", "predict", "explain"]
TRAINING = ("train", "teach")
BY = ["members", "features", "terms", "sources"]

flags.DEFINE_string(
    "config",
    DEFAULT_CONFIG,
    "A config's file or the name of a shipped one, and after a colon a variant of it;"
    " --config.key=value overrides a key.",
)
flags.DEFINE_bool("smoke", False, "Shrinks the config to seconds: built-in data, tiny models.")
flags.DEFINE_bool("print_config", False, "Prints the resolved config and ends.")
flags.DEFINE_string("workdir", None, "The run's folder; default: runs/<experiment>-<config hash>.")
flags.DEFINE_string(
    "mirror",
    None,
    "Address of a copy of --workdir in object storage, gs://BUCKET/RUN or s3://BUCKET/RUN: a new"
    " --workdir is filled from it, and what changes is sent there each minute and at the end.",
)
flags.DEFINE_bool(
    "reuse",
    False,
    "Takes a --workdir of another config over: keeps the models whose own sections, data and"
    " teachers are unchanged, and trains the others anew.",
)
flags.DEFINE_string("sweep", None, "A JSON file with a grid of overrides and seeds; runs them all.")
flags.DEFINE_bool(
    "join",
    False,
    "Makes this process one worker of --sweep: any number of the same command, on any machines that"
    " share --workdir, divide its runs among them.",
)
flags.DEFINE_enum(
    "launcher",
    None,
    LAUNCHERS,
    "Submits the command to SLURM, or to this machine as if it were one (local), or prints a"
    " Kubernetes JobSet or the gcloud commands for TPU VMs; nothing is trained here.",
)
flags.DEFINE_integer("workers", None, "With --launcher and --sweep: how many workers to start.")
flags.DEFINE_list(
    "slurm", [], "KEY=VALUE,... for submitit: partition, timeout_min, gpus_per_node, mem_gb, ..."
)
flags.DEFINE_list(
    "jobset", [], "KEY=VALUE,... of image, hosts, gpus, accelerator, volume and mount."
)
flags.DEFINE_list("tpu", [], "KEY=VALUE,... of name, zone, type, version and spot.")
flags.DEFINE_string(
    "search", None, "A JSON file with a space of options; tries settings, the better half longer."
)
flags.DEFINE_string(
    "repeat",
    None,
    "A results.json: runs its experiment again, and says whether the numbers are equal.",
)
flags.DEFINE_string(
    "profile",
    None,
    "FIRST:LAST, steps of each training to profile, such as 10:15; the profile, for TensorBoard or"
    " Perfetto, lies in MODEL/profile of the run's folder.",
)
flags.DEFINE_enum("stage", "train", STAGES, "What to do in --workdir.")
flags.DEFINE_string(
    "model", None, "Of the run, to export, predict with or explain; default: the compared student."
)
flags.DEFINE_list(
    "formats", [], "To export: kd_jax, huggingface, stablehlo, onnx; default: all that can hold it."
)
flags.DEFINE_string(
    "input", None, "To predict: a .txt, .csv, .tsv or .jsonl file, an image, or a folder of images."
)
flags.DEFINE_string(
    "output",
    "-",
    "File for predictions, JSON lines; '-' for stdout. Of --stage=fit its numbers, as JSON.",
)
flags.DEFINE_list(
    "keep",
    [],
    "To predict a table: columns to copy into each answer; NAME:COLUMN gives one another name.",
)
flags.DEFINE_list(
    "columns",
    [],
    "To predict a table whose columns have other names than in training: TEXT:BODY reads the"
    " model's TEXT from BODY.",
)
flags.DEFINE_enum(
    "by",
    "members",
    BY,
    "To explain: members of ensembles and parts of examples; blocks of features; or terms of the"
    " objective, or sources of training data, for each subset of which the model is trained anew.",
)
flags.DEFINE_enum("players", None, BY, "The old name of --by.")
flags.DEFINE_integer("examples", None, "To explain: how many examples; default: 8.")
flags.DEFINE_integer("blocks", None, "To explain features: how many blocks; default: up to 8.")
flags.DEFINE_integer(
    "permutations",
    None,
    "To sample, an even number from 4 on; default: 64 for each example, exact values elsewhere.",
)
flags.DEFINE_bool("debug", False, "Show tracebacks.")
flags.DEFINE_string(
    "device_memory", None, "For --stage=fit: memory of a device, such as 80GiB; default: as it is."
)
flags.DEFINE_integer("simulate_devices", None, "Pretend that the CPU is this many devices.")
flags.DEFINE_string("coordinator", None, "host:port of the first process of a cluster.")
flags.DEFINE_integer("num_processes", None, "Processes of the cluster.")
flags.DEFINE_integer("process_id", None, "This process, from 0.")
flags.DEFINE_string(
    "compilation_cache", "~/.cache/kd_jax/compiled", "Folder of compiled programs; '' for none."
)


def main() -> None:
    """Parses the command line, runs, and exits with a status.

    0 when it finished; 75 when it was stopped (SIGTERM, or Ctrl-C once), or another process of its
    cluster is gone, and the same command resumes it; by SIGINT when Ctrl-C came twice; 1 otherwise,
    with one line on stderr that says what was wrong.
    """
    # Everything that goes wrong becomes one line; a traceback is for developers.
    arguments = sys.argv[1:]
    # jax aborts a process whose cluster has lost its first one, with a page of its own messages.
    # Whoever only submits a command joins no cluster, wherever he does it.
    launches = any(each.lstrip("-").partition("=")[0] == "launcher" for each in arguments)
    if not launches and is_cluster_member(arguments) and not is_watched():
        sys.exit(watch())
    try:
        status = _run(arguments)
    except Exception as error:
        if "--debug" in arguments:
            raise
        lost = lost_another(error)
        print(GONE if lost else f"error: {_one_line(error)}", file=sys.stderr)
        status = RESUMABLE if lost else 1
        _leave_cluster(status)
    except KeyboardInterrupt:
        # Threads that still write would hold up an ordinary end, and print what failed in them.
        print("interrupted; what was saved stays", file=sys.stderr)
        _end_by_interrupt()
        status = 130
    sys.stdout.flush()
    sys.exit(status)


def _end_by_interrupt() -> None:
    """Ends the process as Ctrl-C ends any: by the signal itself, so that a shell's loop stops."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def _leave_cluster(status: int) -> None:
    """Ends a process that failed at once, if it is one of several.

    An ordinary end would wait up to five minutes at jax's shutdown barrier for the others, which
    wait for this process meanwhile, and then abort all of them. So they notice it at once.
    """
    import jax

    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _one_line(error: BaseException) -> str:
    from kd_jax.training.checkpoints import CheckpointError
    from kd_jax.training.interruption import Diverged

    text = _message(error) or type(error).__name__
    known = (ValueError, OSError, flags.Error, AttributeError, KeyError, TypeError)
    if isinstance(error, (*known, CheckpointError, Diverged)):
        return text
    return f"{type(error).__name__}: {text} (--debug shows the traceback)"


def _message(error: BaseException) -> str:
    """Puts an error's text on one line; a KeyError's own text is a repr of it."""
    while (
        error.args
        and isinstance(error, (KeyError, AttributeError))
        and isinstance(error.args[0], BaseException)
    ):
        error = error.args[0]
    # A KeyError prints its message in quotes.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split())


def _run(arguments: list[str]) -> int:
    # absl prints the help of all modules and exits with 1.
    if any(argument in ("--help", "-h", "--helpshort", "--helpfull") for argument in arguments):
        print(f"{__doc__}\n{FLAGS.module_help(__name__)}")
        return 0
    overrides, others = split_overrides(arguments)
    # Overrides were taken out before, since absl knows no flags for a config's keys.
    rest = FLAGS([sys.argv[0], *others])
    if len(rest) > 1:
        raise ValueError(f"unexpected argument {rest[1]!r}; flags begin with --")
    _log_to_stderr(debug=FLAGS.debug)
    _check_paths()
    _check_workers()
    _check_fit()
    if FLAGS.repeat:
        return _repeat(Path(FLAGS.repeat), overrides)
    if FLAGS.stage in ("train", "teach", "fit"):
        config: Any = load_config(FLAGS.config, smoke=FLAGS.smoke)
        for path, text in overrides:
            override(config, path, text)
        if FLAGS.print_config:
            print(json.dumps(plain(config), indent=2))
            return 0
        if FLAGS.launcher:
            return _launch(config, arguments)
        _prepare_devices(text="tokenizer" in config.get("view", {}))
        run = _fit if FLAGS.stage == "fit" else _train
        return _until_stopped(lambda: run(config))
    # The other stages read a finished run and no config.
    if FLAGS.workdir is None:
        raise ValueError(f"--stage={FLAGS.stage} needs --workdir, the folder of a finished run")
    if FLAGS.profile:
        raise ValueError(f"--profile is for training; --stage={FLAGS.stage} trains nothing")
    if overrides:
        raise ValueError(
            f"--config.{overrides[0][0]} is for training; --stage={FLAGS.stage} reads the run's own"
        )
    # Models and terms of the user's own must be known before any of them is opened.
    _register_what_the_run_used(Path(FLAGS.workdir))
    if FLAGS.stage == "report":
        return report_stage(Path(FLAGS.workdir))
    _prepare_devices(text=any(Path(FLAGS.workdir).glob("*/tokenizer.json")))
    return _after_training(Path(FLAGS.workdir))


def _check_workers() -> None:
    """Refuses flags of workers and launchers that don't go together.

    Raises:
      ValueError: in one line.
    """
    if FLAGS.workers is not None and FLAGS.workers < 1:
        raise ValueError(f"--workers must be 1 or more, got {FLAGS.workers}")
    for flag in ("workers", "join"):
        if FLAGS[flag].value and not FLAGS.sweep:
            raise ValueError(f"--{flag} is for --sweep, whose runs workers share")
    if FLAGS.workers is not None and FLAGS.launcher is None:
        raise ValueError(
            "--workers needs --launcher, which starts them; to start one yourself: --join"
        )
    others = {"--join": FLAGS.join, "--workers": FLAGS.workers, "--repeat": FLAGS.repeat}
    others[f"--stage={FLAGS.stage}"] = FLAGS.stage not in TRAINING
    if FLAGS.mirror is not None and any(others.values()):
        other = next(name for name, given in others.items() if given)
        raise ValueError(f"--mirror is for one process or cluster that trains, not for {other}")
    if FLAGS.launcher and (FLAGS.repeat or FLAGS.stage not in TRAINING):
        other = "--repeat" if FLAGS.repeat else f"--stage={FLAGS.stage}"
        raise ValueError(f"--launcher is for training and teaching, not for {other}")
    for flag, launchers in {
        "slurm": ("slurm", "local"),
        "jobset": ("jobset",),
        "tpu": ("tpu",),
    }.items():
        if FLAGS[flag].value and FLAGS.launcher not in launchers:
            raise ValueError(f"--{flag} is for --launcher={launchers[0]}")


def _check_paths() -> None:
    """Refuses addresses where files and folders are meant.

    Raises:
      ValueError: naming the flag.
    """
    for flag in ("workdir", "sweep", "search", "repeat", "input", "output"):
        if FLAGS[flag].value is not None:
            PATH.check(FLAGS[flag].value, f"--{flag}")


def _check_fit() -> None:
    """Refuses flags that --stage=fit doesn't read, and those that are for it alone.

    Raises:
      ValueError: in one line.
    """
    if FLAGS.stage != "fit":
        if FLAGS.device_memory is not None:
            raise ValueError("--device_memory is for --stage=fit")
        return
    for flag in ("repeat", "reuse", "profile", "workdir"):
        if FLAGS[flag].value:
            raise ValueError(f"--{flag} is not for --stage=fit, which trains nothing")
    if FLAGS.output != "-" and not Path(FLAGS.output).resolve().parent.is_dir():
        raise ValueError(f"--output={FLAGS.output}: there is no such folder")
    if FLAGS.device_memory is not None:
        read_size(FLAGS.device_memory)


def _launch(config: ConfigDict, arguments: Sequence[str]) -> int:
    from kd_jax.experiments.launchers.job import make_job
    from kd_jax.experiments.launchers.start import FLAG, start

    resolved = plain(config)
    workdir = _workdir(resolved, "sweep" if FLAGS.sweep else "search" if FLAGS.search else "")
    _check_before_launch(config, workdir)
    job = make_job(arguments, resolved["name"], workdir, FLAGS.workers)
    print(start(job, FLAGS.launcher, FLAGS[FLAG[FLAGS.launcher]].value or ()))
    return 0


def _check_before_launch(config: ConfigDict, workdir: Path) -> None:
    """Refuses here, in one line, what would fail in the job after hours in a queue."""
    from kd_jax.experiments.plan import make_plan
    from kd_jax.experiments.sweep import grid

    _check_kinds()
    make_plan(plain(config))
    if not FLAGS.sweep:
        return
    spec = grid.read(Path(FLAGS.sweep))
    if FLAGS.workers is not None and "devices" in spec:
        raise ValueError(
            f'"devices" in {FLAGS.sweep} are for one process; --workers have their own'
        )
    grid.lay_out(config, spec, workdir.resolve())
    # What is only printed is for a machine whose folders aren't seen here.
    if FLAGS.workers is not None and FLAGS.launcher in ("slurm", "local"):
        from kd_jax.experiments.workdir import Workdir

        Workdir(workdir, plain(config) | {"sweep": spec}, shared=True).close()


def _repeat(file: Path, overrides: Sequence[tuple[str, str]]) -> int:
    if overrides:
        raise ValueError(f"--config.{overrides[0][0]} would be another experiment; leave it out")
    for flag in ("sweep", "search", "reuse", "smoke", "profile"):
        if FLAGS[flag].value:
            raise ValueError(f"--{flag} is not for --repeat, which runs what the file recorded")
    # What a config file registers is named by its results, but not described in them.
    if FLAGS["config"].present:
        load_config(FLAGS.config)
    from kd_jax.experiments import repeat
    from kd_jax.training.sharding import start_process

    # The compiler's settings are the recorded run's, or the last digits would differ.
    _prepare_devices(text="tokenizer" in repeat.read(file)["config"].get("view", {}))
    start_process(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    workdir = None if FLAGS.workdir is None else Path(FLAGS.workdir)

    def again() -> int:
        # A difference is a finding, and no failure of the command.
        repeat.repeat_result(file, workdir)
        return 0

    return _until_stopped(again)


def _train(config: ConfigDict) -> int:
    from kd_jax.experiments.mirror import mirrored
    from kd_jax.experiments.plan import make_plan
    from kd_jax.training.profile import ProfiledSteps
    from kd_jax.training.sharding import start_process
    from kd_jax.training.writers import check_installed

    # Inherited keys are completed only here, after the command line's overrides.
    resolved = plain(config)
    # Refused before a device is taken or a folder made.
    check_installed(make_plan(resolved).config["logging"]["writers"])
    if FLAGS.profile is not None:
        ProfiledSteps.parse(FLAGS.profile)
    start_process(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    _check_kinds()
    kind = "search" if FLAGS.search else "sweep" if FLAGS.sweep else ""
    workdir = _workdir(resolved, kind)
    with mirrored(FLAGS.mirror, workdir):
        return _train_in(workdir, config, resolved)


def _train_in(workdir: Path, config: ConfigDict, resolved: dict[str, Any]) -> int:
    from kd_jax.core.json_files import write_json
    from kd_jax.experiments.run import run_experiment

    if FLAGS.stage == "teach":
        run_experiment(resolved, workdir, reuse=FLAGS.reuse, teach=True, profile=FLAGS.profile)
        print(f"teachers and their outputs: {workdir}; the same command with --stage=train goes on")
        return 0
    if FLAGS.search:
        from kd_jax.experiments.search.run import run_search

        run_search(config, Path(FLAGS.search), workdir)
        _report(workdir)
        return 0
    if FLAGS.sweep:
        from kd_jax.experiments.sweep.run import run_sweep

        run_sweep(config, Path(FLAGS.sweep), workdir, join=FLAGS.join)
        # Of the workers that end together, one writes it.
        if not (FLAGS.join and _is_reported(workdir)):
            _report(workdir)
        return 0
    results = run_experiment(resolved, workdir, reuse=FLAGS.reuse, profile=FLAGS.profile)
    # Other stages load the file again, for what it registers.
    if results:
        write_json(workdir / CONFIG_FILE, {"config": _absolute(FLAGS.config)})
    _report(workdir)
    return 0


def _fit(config: ConfigDict) -> int:
    from kd_jax.core.json_files import write_json
    from kd_jax.experiments import fit
    from kd_jax.training.sharding import start_process

    _check_kinds()
    memory = None if FLAGS.device_memory is None else read_size(FLAGS.device_memory)
    start_process(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    found = fit.fit(plain(config), memory)
    fit.show(found)
    # A table is for people; who asks by a program names a file.
    if FLAGS.output != "-":
        write_json(Path(FLAGS.output), found)
    return 0


def _check_kinds() -> None:
    """Refuses flags that ask for several kinds of training at once.

    Raises:
      ValueError: in one line.
    """
    if FLAGS.sweep and FLAGS.search:
        raise ValueError("--sweep and --search are two things; give one of them")
    if (FLAGS.sweep or FLAGS.search) and FLAGS.reuse:
        raise ValueError(
            "--reuse is for one run; a sweep or search trains what its runs share only once"
        )
    if (FLAGS.sweep or FLAGS.search) and FLAGS.profile:
        raise ValueError("--profile is of one run, not of a sweep or search")
    for flag in ("sweep", "search"):
        if FLAGS.stage in ("teach", "fit") and FLAGS[flag].value:
            raise ValueError(f"--{flag} is not for --stage={FLAGS.stage}, which is of one run")


def _is_reported(workdir: Path) -> bool:
    from kd_jax.html_report.page import PAGE

    page, table = workdir / PAGE, workdir / "sweep.json"
    return page.is_file() and page.stat().st_mtime_ns >= table.stat().st_mtime_ns


def _report(workdir: Path) -> None:
    """Writes a report after hours of training, which must not be lost by a fault of it."""
    import jax

    if jax.process_index() != 0:
        return
    try:
        from kd_jax.html_report import write_report

        print(f"report: {write_report(workdir)}")
    except Exception as error:
        logging.getLogger("kd_jax").warning("no report was written: %s", _one_line(error))


def _absolute(argument: str) -> str:
    name, colon, variant = argument.partition(":")
    path = Path(name)
    return f"{path.resolve() if path.is_file() else name}{colon}{variant}"


def _register_what_the_run_used(workdir: Path) -> None:
    """Loads the run's config file again: what it registers is needed to open its models."""
    from kd_jax.core.json_files import read_facts

    # A file that was moved can be named anew on the command line.
    explicit = FLAGS["config"].present
    noted = workdir / CONFIG_FILE
    if explicit:
        load_config(FLAGS.config)
    elif noted.is_file():
        facts = read_facts(noted, ("config",), "if it registered models, name it: --config=FILE")
        if facts is None:
            return
        argument = str(facts["config"])
        file = Path(argument.partition(":")[0])
        if file.is_file():
            load_config(argument)
        elif file.suffix == ".py":
            logging.getLogger("kd_jax").warning(
                "%s is gone; if it registered models of its own, name it anew: --config=FILE",
                file,
            )


def _after_training(workdir: Path) -> int:
    if FLAGS.stage == "export":
        return export_stage(workdir, FLAGS.model, FLAGS.formats)
    if FLAGS.stage == "predict":
        return predict_stage(
            workdir, FLAGS.model, FLAGS.input, FLAGS.output, FLAGS.columns, FLAGS.keep
        )
    by = FLAGS.players or FLAGS.by
    settings = (FLAGS.examples, FLAGS.blocks, FLAGS.permutations)
    return _until_stopped(lambda: explain_stage(workdir, FLAGS.model, by, *settings))


def report_stage(workdir: Path) -> int:
    """Writes the report of a finished run or sweep and says where; returns the exit status."""
    from kd_jax.html_report import write_report

    print(f"report: {write_report(workdir)}")
    return 0


def export_stage(workdir: Path, model: str | None, formats: Sequence[str]) -> int:
    """Exports a model of a run and says where to; returns the exit status."""
    from kd_jax.export import export

    print(f"exported: {export(workdir, model, formats)}")
    return 0


def predict_stage(
    workdir: Path,
    model: str | None,
    source: str | None,
    output: str,
    columns: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> int:
    """Predicts a file or folder to a file, or to stdout for "-"; returns the exit status."""
    from kd_jax.export.predict import predict, predict_to_file

    if source is None:
        raise ValueError("--stage=predict needs --input, a file or a folder of images")
    names = {"columns": _pairs("columns", columns), "keep": _pairs("keep", keep)}
    if output == "-":
        counts = predict(workdir, Path(source), sys.stdout, model, **names)
    else:
        counts = predict_to_file(workdir, Path(source), Path(output), model, **names)
    print(f"{counts['predicted']} predicted, {counts['unreadable']} unreadable", file=sys.stderr)
    return 0


def _pairs(flag: str, items: Sequence[str]) -> dict[str, str]:
    """Reads NAME:COLUMN, or NAME for NAME:NAME."""
    found: dict[str, str] = {}
    for item in items:
        name, colon, column = item.partition(":")
        if not name or (colon and not column) or name in found:
            problem = "twice the same name" if name in found else "a name that is empty"
            raise ValueError(f"--{flag}={','.join(items)} has {problem}; write NAME or NAME:COLUMN")
        found[name] = column or name
    return found


def explain_stage(
    workdir: Path,
    model: str | None,
    by: str,
    examples: int | None,
    blocks: int | None,
    permutations: int | None,
) -> int:
    """Explains a run, or a model of it, and says where to; returns the exit status."""
    from kd_jax import explain as explanation

    # An option that would be ignored is refused.
    if blocks is not None and by != "features":
        raise ValueError(f"--blocks are of features, with --by=features, not {by}")
    if by == "members":
        folder = explanation.explain_members(workdir, model, examples, permutations)
    elif examples is not None:
        raise ValueError(f"--examples are explained by their parts, with --by=members, not {by}")
    elif by == "features":
        folder = explanation.explain_features(workdir, model, blocks, permutations)
    else:
        folder = explanation.explain_training(workdir, model, by, permutations)
    print(f"explained: {folder}")
    return 0


def _until_stopped(stage: Callable[[], int]) -> int:
    """Runs a stage; returns its exit status, or that of one that was stopped and can be resumed."""
    from kd_jax.training.interruption import Interrupted

    try:
        return stage()
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return RESUMABLE


def _log_to_stderr(*, debug: bool) -> None:
    """Shows the package's messages as plain lines; other libraries' only when they matter.

    Orbax and TFDS log, with a traceback and through absl, the errors that they raise anyway. Where
    one write of a checkpoint fails, the others end later, in threads whose event loop is closed by
    then: nobody can catch what they raise, and it says nothing new.
    """
    if not debug:
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        sys.unraisablehook = _log_unraisable
    # Results and predictions go to stdout, so that they can be piped.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    package = logging.getLogger("kd_jax")
    package.handlers, package.propagate = [handler], False
    package.setLevel(logging.INFO)


def _log_unraisable(unraisable: Any) -> None:
    """Keeps an exception that nobody can catch from stderr, as all tracebacks without --debug."""
    logging.getLogger("kd_jax").debug(
        "ignored in %r", unraisable.object, exc_info=unraisable.exc_value
    )


def _workdir(config: dict[str, Any], kind: str = "") -> Path:
    from kd_jax.config.hashing import config_hash

    default = f"runs/{config['name']}-{f'{kind}-' if kind else ''}{config_hash(config)}"
    return Path(FLAGS.workdir or default)


def _prepare_devices(*, text: bool) -> None:
    """Makes the settings that must precede the first use of a device."""
    if FLAGS.simulate_devices:
        # XLA's CPU collectives starve unless its thread pool is larger than the number of devices.
        os.environ.setdefault("NPROC", "32")
        # Simulated devices exist on the CPU only, whatever else the machine has.
        os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    from kd_jax.training import host_memory, xla_flags

    host_memory.keep()
    xla_flags.prepare(text=text)
    if FLAGS.simulate_devices:
        xla_flags.prepare_simulated()
        jax.config.update("jax_num_cpu_devices", FLAGS.simulate_devices)
    # A run that is resumed, or tried with other data, needs no second compilation.
    if FLAGS.compilation_cache:
        jax.config.update(
            "jax_compilation_cache_dir", str(Path(FLAGS.compilation_cache).expanduser())
        )
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


if __name__ == "__main__":
    main()
