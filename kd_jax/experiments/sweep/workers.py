"""Runs of a sweep in processes of their own, each on one GPU."""

import ast
import logging
import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from kd_jax.core.json_files import read_own
from kd_jax.core.processes import RESUMABLE
from kd_jax.experiments.run import run_experiment
from kd_jax.experiments.sweep.grid import Run
from kd_jax.training.interruption import Diverged, Interrupted, StopSignal

log = logging.getLogger("kd_jax")

Outcomes = Generator[tuple[Run, Mapping[str, Any] | Diverged], None, None]
"""A run and its results.json, or why it has none."""

DIVERGED = 3
"""Exit status of a run's own process after `Diverged`."""

INHERITED = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_num_cpu_devices",
)
"""Settings of this process that the runs' take over, as environment variables."""


def over_devices(runs: Sequence[Run], folder: Path, devices: Sequence[int]) -> Outcomes:
    """Starts a process a run, one at a time on each device.

    Whatever ends this early stops them so that they can resume.

    Args:
      runs: each after those it needs, and started when they have ended.
      folder: the sweep's. What a run prints goes to `NAME.log` in it.
      devices: numbers for CUDA_VISIBLE_DEVICES.

    Yields:
      Each run as it ends.

    Raises:
      ValueError: if a run fails.
      Interrupted: after SIGTERM, to this process or to a run's.
    """
    # Made first, so that a signal during the first start isn't lost.
    stop = StopSignal()
    waiting, free, ended = list(runs), list(devices), set()
    running: dict[str, tuple[Run, int, subprocess.Popen[bytes]]] = {}
    try:
        while waiting or running:
            require_going_on(stop)
            # A run begins when the teachers that it restores are finished and a device is free.
            for run in [run for run in waiting if run.needs <= ended][: len(free)]:
                waiting.remove(run)
                device = free.pop(0)
                running[run.name] = run, device, _start(run, folder, device)
            # Processes are asked now and then, because no single call waits for any of several.
            time.sleep(0.1)
            for run, device, process in list(running.values()):
                # The device is free before the caller gets the run, so no time is lost on it.
                if process.poll() is not None:
                    del running[run.name]
                    free.append(device)
                    ended.add(run.name)
                    yield run, _outcome(run, folder, process.returncode)
    finally:
        # All are told first and then waited for, so that they save their states side by side.
        for _, _, process in running.values():
            process.terminate()
        for _, _, process in running.values():
            process.wait()


def require_going_on(stop: StopSignal) -> None:
    """Ends a sweep between two runs.

    Raises:
      Interrupted: if SIGTERM came since the sweep began.
    """
    if stop.asked(agree=True):
        raise Interrupted("it stopped before the last run had ended; the same command resumes it")


def _start(run: Run, folder: Path, device: int) -> subprocess.Popen[bytes]:
    log.info("%s begins on device %s", run.name, device)
    # A process of its own reads jax's settings from the environment only.
    settings = {name.upper(): getattr(jax.config, name) for name in INHERITED}
    environment = os.environ | {
        name: str(value) for name, value in settings.items() if value is not None
    }
    # A config is plain Python values, so its repr is exact; JSON would turn tuples into lists.
    command = [
        sys.executable,
        "-m",
        "kd_jax.experiments.sweep.workers",
        repr(run.config),
        str(folder / run.name),
    ]
    # Appended, so that a resumed run keeps what it printed before.
    with (folder / f"{run.name}.log").open("a") as output:
        # The process sees one device, and calls it number 0.
        environment["CUDA_VISIBLE_DEVICES"] = str(device)
        return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)


def _outcome(run: Run, folder: Path, status: int) -> Mapping[str, Any] | Diverged:
    """Returns the results of a run's process, or what became of it."""
    if status == 0:
        log.info("%s is finished", run.name)
        return read_own(folder / run.name / "results.json", "start the sweep again")
    # The last line is the error that the run's command prints.
    output = folder / f"{run.name}.log"
    last = (output.read_text(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
    if status == DIVERGED:
        return Diverged(last)
    if status == RESUMABLE:
        raise Interrupted(f"{run.name}: {last}")
    raise ValueError(
        f"{run.name} failed with status {status}: {last} ({output} holds all it printed)"
    )


def _main(config: str, workdir: str) -> int:
    """Runs in a run's own process."""
    # Other libraries' messages would bury the run's own in its log.
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("kd_jax").setLevel(logging.INFO)
    try:
        # `literal_eval` reads plain values only, and so never runs what a text may contain.
        run_experiment(ast.literal_eval(config), Path(workdir))
    # The exit status is all that the parent sees, so each end has a number of its own.
    except (Diverged, Interrupted) as error:
        print(error, file=sys.stderr)
        return DIVERGED if isinstance(error, Diverged) else RESUMABLE
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
