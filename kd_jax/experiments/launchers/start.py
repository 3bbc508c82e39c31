"""Starts a job by a launcher, or writes what starts it elsewhere."""

from collections.abc import Sequence

from kd_jax.experiments.launchers.job import Job, fill_options, read_options
from kd_jax.experiments.launchers.jobset import JobSetOptions, write_jobset
from kd_jax.experiments.launchers.submission import FOLDER, submit
from kd_jax.experiments.launchers.tpu_vm import TpuOptions, write_tpu_commands

FLAG = {"slurm": "slurm", "local": "slurm", "jobset": "jobset", "tpu": "tpu"}
"""Launcher -> the flag with its options."""


def start(job: Job, launcher: str, items: Sequence[str]) -> str:
    """Starts a job.

    Args:
      job: to start.
      launcher: one of `FLAG`.
      items: KEY=VALUE, its options.

    Returns:
      What to print: the ids of the jobs that were submitted, or the text that starts them.

    Raises:
      ValueError: in one line, for options that it doesn't have or a job that it can't start.
    """
    given = read_options(FLAG[launcher], items)
    if launcher == "jobset":
        return write_jobset(job, fill_options(JobSetOptions, launcher, given))
    if launcher == "tpu":
        return write_tpu_commands(job, fill_options(TpuOptions, launcher, given))
    ids = submit(job, launcher, given)
    return f"submitted: {', '.join(ids)}; what they print: {job.workdir / FOLDER}"
