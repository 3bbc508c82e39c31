"""The command line: flags to a config to one call, and every refusal to one line and an exit
status."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from kd_jax.config.load import load_config, plain

DEFAULT_CONFIG = "configs/digits.py"
FLAGS = flags.FLAGS

flags.DEFINE_string("workdir", None, "The run's folder; default: runs/<experiment>-<config hash>.")
flags.DEFINE_string("sweep", None, "A JSON file with a grid of overrides and seeds; runs them all.")
flags.DEFINE_enum(
    "stage",
    "train",
    ["train", "export", "predict", "explain"],
    "What to do with the run in --workdir.",
)
flags.DEFINE_string(
    "model", None, "Of the run, to export, predict with or explain; default: the compared student."
)
flags.DEFINE_list(
    "formats",
    [],
    "To export, of kd_jax, huggingface, stablehlo, onnx; default: all that can hold it.",
)
flags.DEFINE_string(
    "input", None, "To predict: a .txt, .csv, .tsv or .jsonl file, an image, or a folder of images."
)
flags.DEFINE_string("output", "-", "The file that predictions go to, JSON lines; '-' for stdout.")
flags.DEFINE_enum(
    "players",
    "members",
    ["members", "features", "terms", "sources"],
    "To explain: the members of "
    "ensembles and the parts of examples; or blocks of the features that the classifier reads; or the "
    "terms of the model's objective, or the sources of its training data, for each subset of which it is "
    "trained anew.",
)
flags.DEFINE_integer(
    "examples", None, "To explain by their parts, the first of the evaluation split; default: 8."
)
flags.DEFINE_integer(
    "blocks", None, "To explain the features by, of neighbouring dimensions; default: up to 8."
)
flags.DEFINE_integer(
    "permutations",
    None,
    "To sample, an even number, at least 4; default: 64 for each example, and "
    "exact values of features, terms and sources.",
)
flags.DEFINE_bool("debug", False, "Show tracebacks.")
flags.DEFINE_integer("simulate_devices", None, "Pretend that the CPU is this many devices.")
flags.DEFINE_string("coordinator", None, "host:port of the first process of a cluster.")
flags.DEFINE_integer("num_processes", None, "Processes of the cluster.")
flags.DEFINE_integer("process_id", None, "This process, from 0.")
flags.DEFINE_string(
    "compilation_cache", "~/.cache/kd_jax/compiled", "Folder of compiled programs; '' for none."
)


def split_arguments(arguments: list[str]) -> tuple[str, list[str]]:
    """The config's file and the other arguments; overrides (`--config.x=1`) stay among them."""
    config, rest, position = DEFAULT_CONFIG, [], 0
    while position < len(arguments):
        argument = arguments[position]
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "config":
            if not equals:
                position += 1
                value = arguments[position] if position < len(arguments) else ""
            config = value
        else:
            rest.append(argument)
        position += 1
    return config, rest


def main() -> None:
    """Parses the command line, runs, and exits with the status that design promises."""
    debug, argv = "--debug" in sys.argv, list(sys.argv)
    if not debug:
        sys.unraisablehook = _show_unless_late
    try:
        status = _run(argv)
    except Exception as error:
        if debug:
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # At once: other processes of a cluster are not waited for, and the failed save's other
        # writes say nothing more.
        os._exit(1)
    sys.stdout.flush()
    sys.exit(status)


def _show_unless_late(unraisable: Any) -> None:
    """Shows what could not be raised, save that nobody waits any more for the other writes of a
    save that failed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _one_line(error: BaseException) -> str:
    from kd_jax.training.checkpoints import CheckpointError
    from kd_jax.training.interruption import Diverged

    text = _message(error) or type(error).__name__
    if isinstance(
        error,
        (
            ValueError,
            OSError,
            flags.Error,
            AttributeError,
            KeyError,
            TypeError,
            CheckpointError,
            Diverged,
        ),
    ):
        return text
    return f"{type(error).__name__}: {text} (--debug shows the traceback)"


def _message(error: BaseException) -> str:
    """What an error says, on one line; a KeyError's own text, and that of an error raised with one,
    is a repr of it."""
    while (
        error.args
        and isinstance(error, (KeyError, AttributeError))
        and isinstance(error.args[0], BaseException)
    ):
        error = error.args[0]
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split())


def _parse(config: ConfigDict, arguments: list[str]) -> list[str]:
    """Sets the flags, those of the config among them; what is left over is returned.

    Raises:
      ValueError: for an override of a key that the config doesn't have.
    """
    try:
        config_flags.DEFINE_config_dict("config", config)
        return FLAGS(arguments)
    except (AttributeError, KeyError) as error:
        raise ValueError(f"the config has no such option: {_message(error)}") from error


def _run(argv: list[str]) -> int:
    file, arguments = split_arguments(argv[1:])
    # The flags of ml_collections look for their overrides in sys.argv.
    sys.argv = [argv[0], *arguments]
    if any(argument in ("--help", "-h", "--helpshort", "--helpfull") for argument in arguments):
        flags.DEFINE_string(
            "config", DEFAULT_CONFIG, "FILE.py[:VARIANT]; --config.key=value overrides a key."
        )
        print(f"{sys.modules['__main__'].__doc__}\n{FLAGS.module_help(__name__)}")
        return 0
    rest = _parse(load_config(file), [argv[0], *arguments])
    if len(rest) > 1:
        raise ValueError(f"unexpected argument {rest[1]!r}; flags begin with --")
    _prepare_devices(text=_reads_text())
    _log_to_stderr(debug=FLAGS.debug)
    if FLAGS.stage == "train":
        return _until_stopped(lambda: _train(plain(FLAGS.config)))
    if FLAGS.workdir is None:
        raise ValueError(f"--stage={FLAGS.stage} needs --workdir, the folder of a finished run")
    from kd_jax import stages

    if FLAGS.stage == "explain":
        return _until_stopped(
            lambda: stages.explain(
                Path(FLAGS.workdir),
                FLAGS.model,
                FLAGS.players,
                FLAGS.examples,
                FLAGS.blocks,
                FLAGS.permutations,
            )
        )
    if FLAGS.stage == "export":
        return stages.export(Path(FLAGS.workdir), FLAGS.model, FLAGS.formats)
    return stages.predict(Path(FLAGS.workdir), FLAGS.model, FLAGS.input, FLAGS.output)


def _reads_text() -> bool:
    """Whether the run's networks read text: by the config, or by what a finished run has left."""
    if FLAGS.stage == "train" or FLAGS.workdir is None:
        return "tokenizer" in FLAGS.config.get("view", {})
    return any(Path(FLAGS.workdir).glob("*/tokenizer.json"))


def _train(config: dict[str, Any]) -> int:
    from kd_jax.experiments.run import run_experiment
    from kd_jax.training.sharding import start_process

    start_process(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    if FLAGS.sweep:
        from kd_jax.experiments.sweep.run import run_sweep

        run_sweep(FLAGS.config, Path(FLAGS.sweep), _workdir(config, sweep=True))
    else:
        run_experiment(config, _workdir(config, sweep=False))
    return 0


def _until_stopped(stage: Callable[[], int]) -> int:
    """The stage's exit status, or that of one that SIGTERM has stopped and the same command
    resumes."""
    from kd_jax.training.interruption import RESUMABLE, Interrupted

    try:
        return stage()
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return RESUMABLE


def _log_to_stderr(*, debug: bool) -> None:
    """The package's messages as plain lines; other libraries' only when they matter.

    Orbax and TFDS log, with a traceback and through absl, the errors that they raise anyway.
    """
    if not debug:
        logging.getLogger("absl").setLevel(logging.CRITICAL)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    package = logging.getLogger("kd_jax")
    package.handlers, package.propagate = [handler], False
    package.setLevel(logging.INFO)


def _workdir(config: dict[str, Any], *, sweep: bool) -> Path:
    from kd_jax.config.hashing import config_hash

    default = f"runs/{config['name']}-{'sweep-' if sweep else ''}{config_hash(config)}"
    return Path(FLAGS.workdir or default)


def _prepare_devices(*, text: bool) -> None:
    """Settings that must precede the first use of a device."""
    if FLAGS.simulate_devices:
        # XLA's CPU collectives starve unless its thread pool is larger than the number of devices.
        os.environ.setdefault("NPROC", "32")
        os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    from kd_jax.training import xla_flags

    xla_flags.prepare(text=text)

    if FLAGS.simulate_devices:
        jax.config.update("jax_num_cpu_devices", FLAGS.simulate_devices)
    if FLAGS.compilation_cache:
        jax.config.update(
            "jax_compilation_cache_dir", str(Path(FLAGS.compilation_cache).expanduser())
        )
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
