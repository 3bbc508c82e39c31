"""Jobs of SLURM, or of this machine as a small cluster, by submitit."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from kd_jax.core.processes import RESUMABLE
from kd_jax.experiments.launchers.job import Job

FOLDER = "jobs"
"""Folder in the workdir for what submitit writes, and for what jobs print."""

TIMEOUT = {"slurm": 240, "local": 7 * 24 * 60}
"""Minutes after which a job is requeued, unless others are given: short jobs are started sooner."""

REQUEUES = 100
"""How often a job is requeued because its time was over."""

_IGNORING = 'trap "" "$0"; exec "$@"'
"""A shell's program, as what is ignored stays so in a program that takes the shell's place."""


class Command:
    """A kd-jax command in a job: requeued when its time is over, and by exit status 75.

    SLURM sends the signal of a timeout to all processes of a job. The command ignores it, and is
    told by SIGTERM, at which it saves its state.

    Args:
      arguments: of kd-jax.
    """

    def __init__(self, arguments: Sequence[str]):
        self.arguments = tuple(arguments)
        self._status: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def __call__(self) -> int:
        """Runs the command to its end; returns 0.

        Raises:
          RuntimeError: if it failed.
          SystemExit: if it was stopped, so that the job has no result.
        """
        status = self._run()
        if status == RESUMABLE:
            # SIGTERM comes from who decides himself whether the job is requeued or cancelled.
            if not self._stopped:
                # submitit's own handler requeues the job and ends this process.
                signal.raise_signal(_preemption())
            raise SystemExit(RESUMABLE)
        if status != 0:
            raise RuntimeError(f"kd-jax ended with status {status}; the job's .err file says why")
        return 0

    def checkpoint(self) -> Any:
        """Stops the command, which saves its state, and returns the job that goes on with it."""
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)
            self._wait()
        return importlib.import_module("submitit.helpers").DelayedSubmission(
            Command(self.arguments)
        )

    def _run(self) -> int:
        command = [sys.executable, "-m", "kd_jax.cli", *self.arguments]
        name = _preemption().name.removeprefix("SIG")
        signal.signal(signal.SIGTERM, self._stop)
        self._child = child = subprocess.Popen(["sh", "-c", _IGNORING, name, *command])
        # It came before there was anyone to tell.
        if self._stopped:
            child.send_signal(signal.SIGTERM)

        def watch() -> None:
            self._status = child.wait()

        threading.Thread(target=watch, daemon=True).start()
        return self._wait()

    def _wait(self) -> int:
        # Neither Popen.wait nor an event: a signal's handler waits here too, perhaps in the middle
        # of this very wait, and would find its lock taken.
        while self._status is None:
            time.sleep(0.1)
        return self._status

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del frame  # Python gives it to every handler.
        self._stopped = True
        if self._child is not None:
            self._child.send_signal(number)


def submit(job: Job, cluster: str, options: Mapping[str, Any]) -> list[str]:
    """Submits a job, or an array of a sweep's workers.

    Args:
      job: to submit.
      cluster: "slurm" or "local".
      options: submitit's, such as timeout_min, gpus_per_node, cpus_per_task, mem_gb; those of SLURM
        alone, such as partition, as in submitit without "slurm_".

    Returns:
      The jobs' ids.

    Raises:
      ValueError: in one line, where submitit or SLURM isn't there, or submitit refuses an option.
    """
    try:
        submitit = importlib.import_module("submitit")
    except ModuleNotFoundError:
        raise ValueError(
            f"--launcher={cluster} needs the extra slurm: uv sync --extra slurm, or pip install"
            " 'kd_jax[slurm]'"
        ) from None
    for key in ("nodes", "tasks_per_node"):
        if not isinstance(options.get(key, 1), int):
            raise ValueError(f"--slurm={key}={options[key]}: it must be a number")
    tasks = options.get("nodes", 1) * options.get("tasks_per_node", 1)
    if job.workers is not None and tasks != 1:
        raise ValueError("a worker is one process; leave nodes and tasks_per_node out of --slurm")
    try:
        executor = _make_executor(submitit, job, cluster, options)
    # What submitit raises for a wrong name, type, value, and for a missing srun.
    except (NameError, AssertionError, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"--launcher={cluster}: {' '.join(str(error).split())}") from None
    started = executor.submit_array([Command(job.arguments) for _ in range(job.copies)])
    return [each.job_id for each in started]


def _make_executor(submitit: Any, job: Job, cluster: str, options: Mapping[str, Any]) -> Any:
    executor = submitit.AutoExecutor(
        job.workdir / FOLDER, cluster, **{f"{cluster}_max_num_timeout": REQUEUES}
    )
    shared = type(executor)._typed_parameters()
    # Where a job is preempted, SLURM requeues only what asks for it.
    parameters = {"name": job.name, "slurm_additional_parameters": {"requeue": True}}
    if not {"time", "timeout_min"} & options.keys():
        parameters["timeout_min"] = TIMEOUT[cluster]
    parameters |= {key if key in shared else f"slurm_{key}": options[key] for key in options}
    executor.update_parameters(**parameters)
    return executor


def _preemption() -> signal.Signals:
    """Returns the signal by which submitit learns that a job's time is over."""
    return signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]
