"""Where the metrics of a run go beside metrics.jsonl: a class each, and a line in `WRITERS`."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax

from kd_jax.training.writers.ml_flow import MLflow
from kd_jax.training.writers.opened import OpenedWriters
from kd_jax.training.writers.tensorboard import TensorBoard
from kd_jax.training.writers.weights_and_biases import WeightsAndBiases
from kd_jax.training.writers.writer import FollowedRun, Writer

__all__ = [
    "WRITERS",
    "FollowedRun",
    "OpenedWriters",
    "Writer",
    "check_installed",
    "check_names",
    "open_writers",
]

KEY = "logging.writers"

WRITERS: dict[str, type[Writer]] = {
    "mlflow": MLflow,
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}
"""Name in `logging.writers` -> class."""


def check_names(names: Sequence[str]) -> None:
    """Checks that every writer exists and is named once.

    Raises:
      ValueError: naming the key and the writers there are.
    """
    there = ", ".join(sorted(WRITERS))
    for number, name in enumerate(names):
        if name not in WRITERS:
            raise ValueError(f"{KEY} names {name!r}, which is no writer; there are {there}")
        if name in names[:number]:
            raise ValueError(f"{KEY} names {name!r} twice; there are {there}")


def check_installed(names: Sequence[str]) -> None:
    """Checks that what the writers need is installed.

    Raises:
      ValueError: naming the key, the package and the extra that brings it.
    """
    for name in names:
        extra = WRITERS[name].extra
        if extra is not None and not _is_installed(extra):
            raise ValueError(
                f"{KEY} names {name!r}, whose package isn't installed: pip install"
                f" 'kd_jax[{extra}]', or leave it out; there are {', '.join(sorted(WRITERS))}"
            )


def _is_installed(package: str) -> bool:
    try:
        module = importlib.import_module(package)
    except ImportError:
        return False
    # A folder of that name, such as the one that W&B writes to, can be imported as well.
    return getattr(module, "__file__", None) is not None


@contextmanager
def open_writers(names: Sequence[str], run: FollowedRun) -> Iterator[OpenedWriters]:
    """Opens a run's writers, and closes them however the run ends.

    Args:
      names: of `WRITERS`.
      run: whose metrics they write.

    Raises:
      ValueError: in one line, if one can't begin: no access, no server.
    """
    # All processes have the same metrics; a second writer would double every value.
    opened = OpenedWriters()
    ended = False
    try:
        for name in names if jax.process_index() == 0 else ():
            opened.add(name, _open(name, run))
        yield opened
        ended = True
    finally:
        opened.close(ended=ended)


def _open(name: str, run: FollowedRun) -> Writer:
    try:
        return WRITERS[name](run)
    except Exception as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{KEY}: {name!r} can't begin: {told}") from error
