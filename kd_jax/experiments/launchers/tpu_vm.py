"""The gcloud commands that run a job on TPU VMs: on all hosts of one, or a worker of a sweep on
each of several."""

import shlex
from dataclasses import dataclass

from kd_jax.core.processes import RESUMABLE
from kd_jax.experiments.launchers.job import Job

ONE_HOST = 8
"""The largest number at the end of a type whose VM is one host."""

PAUSE = 10
"""Seconds before a stopped command is started again."""


@dataclass(frozen=True)
class TpuOptions:
    """Which TPU VMs.

    Attributes:
      name: of the VM; "" for the job's. Several workers have a number after it.
      zone: Google Cloud's.
      type: accelerator type, which says how many chips, and so hosts.
      version: of the VM's software.
      spot: whether it is cheaper and may be taken away.
    """

    name: str = ""
    zone: str = "us-central1-a"
    type: str = "v5litepod-8"
    version: str = "v2-alpha-tpuv5-lite"
    spot: bool = False


def write_tpu_commands(job: Job, options: TpuOptions) -> str:
    """Writes the shell commands of a job: for each VM one that makes it and one that runs there.

    The command runs on all hosts of a VM and is started again as long as it ends with status 75.
    The workdir must lie in storage that all hosts have mounted.

    Raises:
      ValueError: for workers on VMs of several hosts.
    """
    chips = int(options.type.rpartition("-")[2]) if options.type[-1:].isdigit() else 0
    if job.workers is not None and chips > ONE_HOST:
        raise ValueError(
            f"--tpu=type={options.type}: a worker of a sweep is one process, and a VM of this type"
            f" has several hosts; take one of at most {ONE_HOST}, or leave --workers out"
        )
    name = options.name or job.name
    names = [name] if job.workers is None else [f"{name}-{n}" for n in range(job.workers)]
    return "\n".join(line for each in names for line in _commands(each, job, options))


def _commands(name: str, job: Job, options: TpuOptions) -> list[str]:
    tool = ["gcloud", "compute", "tpus", "tpu-vm"]
    zone = f"--zone={options.zone}"
    create = [*tool, "create", name, zone, f"--accelerator-type={options.type}"]
    create += [f"--version={options.version}", *(["--spot"] if options.spot else [])]
    again = (
        f"while :; do {shlex.join(['kd-jax', *job.arguments])}; status=$?;"
        f" [ $status -eq {RESUMABLE} ] || exit $status; sleep {PAUSE}; done"
    )
    run = [*tool, "ssh", name, zone, "--worker=all", f"--command={again}"]
    return [shlex.join(create), shlex.join(run)]
