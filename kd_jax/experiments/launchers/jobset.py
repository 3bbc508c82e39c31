"""A Kubernetes JobSet that runs a job: a manifest for `kubectl apply -f -`.

A pod that ends with status 75, or that its node's end took along, is started again without being
counted, and goes on from what lies in the shared volume. Any other status fails the job; the JobSet
then starts all pods again, `RESTARTS` times, as a process of a cluster that was killed takes the
others along."""

import json
from dataclasses import dataclass
from pathlib import PurePosixPath

from kd_jax.core.processes import RESUMABLE
from kd_jax.experiments.launchers.job import Job

RESTARTS = 5
PORT = 8476
GRACE = 300
"""Seconds between SIGTERM and the kill, in which a run saves its state."""


@dataclass(frozen=True)
class JobSetOptions:
    """What a JobSet needs beside the command.

    Attributes:
      image: container with kd-jax.
      hosts: pods of one run, a process each, which train together.
      gpus: of each pod.
      accelerator: kind of GPU, as GKE labels its nodes; "" for any node.
      volume: the persistent volume claim that all pods write to.
      mount: where it lies in them.
    """

    image: str = "kd-jax:latest"
    hosts: int = 1
    gpus: int = 0
    accelerator: str = ""
    volume: str = "kd-jax"
    mount: str = "/runs"


def write_jobset(job: Job, options: JobSetOptions) -> str:
    """Writes the manifest of a job: a pod a host, or a pod a worker of a sweep.

    Raises:
      ValueError: in one line, if the pods couldn't share the workdir, or options contradict each
        other.
    """
    if options.hosts < 1:
        raise ValueError(f"--jobset=hosts={options.hosts}: it must be 1 or more")
    if options.hosts > 1 and job.workers is not None:
        raise ValueError("--jobset=hosts=... is for one run; a sweep's pods are its --workers")
    if not PurePosixPath(job.workdir).is_relative_to(options.mount):
        raise ValueError(
            f"--workdir must lie in {options.mount}, where the pods see their volume"
            " (--jobset=mount=...)"
        )
    for argument, following in zip(job.arguments, (*job.arguments[1:], ""), strict=True):
        flag, equals, value = argument.lstrip("-").partition("=")
        # `--FLAG VALUE` is as good as `--FLAG=VALUE`.
        value = value if equals else following
        path = value.partition(":")[0]
        file = flag in ("sweep", "search") or (flag == "config" and path.endswith(".py"))
        if file and not PurePosixPath(path).is_relative_to(options.mount):
            raise ValueError(
                f"--{flag}={value}: it must lie in {options.mount}, where the pods see their volume"
            )
    pods = max(options.hosts, job.copies)
    return "\n".join(
        [
            *_head(job, pods),
            *_pod(options, _arguments(job, options)),
        ]
    )


def _arguments(job: Job, options: JobSetOptions) -> list[str]:
    # Kubernetes would put variables in place of what looks like their names.
    arguments = [argument.replace("$(", "$$(") for argument in job.arguments]
    if options.hosts > 1:
        arguments += [
            f"--coordinator={job.name}-host-0-0.{job.name}:{PORT}",
            f"--num_processes={options.hosts}",
            # Each pod of an indexed job has its number in this variable.
            "--process_id=$(JOB_COMPLETION_INDEX)",
        ]
    return arguments


def _head(job: Job, pods: int) -> list[str]:
    return [
        "apiVersion: jobset.x-k8s.io/v1alpha2",
        "kind: JobSet",
        "metadata:",
        f"  name: {job.name}",
        "spec:",
        "  failurePolicy:",
        f"    maxRestarts: {RESTARTS}",
        "  replicatedJobs:",
        "  - name: host",
        "    replicas: 1",
        "    template:",
        "      spec:",
        "        completionMode: Indexed",
        f"        completions: {pods}",
        f"        parallelism: {pods}",
        "        backoffLimit: 0",
        "        podFailurePolicy:",
        "          rules:",
        "          - action: Ignore",
        "            onExitCodes:",
        "              operator: In",
        f"              values: [{RESUMABLE}]",
        "          - action: Ignore",
        "            onPodConditions:",
        "            - type: DisruptionTarget",
        "              status: 'True'",
    ]


def _pod(options: JobSetOptions, arguments: list[str]) -> list[str]:
    lines = [
        "        template:",
        "          spec:",
        "            restartPolicy: Never",
        f"            terminationGracePeriodSeconds: {GRACE}",
    ]
    if options.accelerator:
        lines += [
            "            nodeSelector:",
            f"              cloud.google.com/gke-accelerator: {_quote(options.accelerator)}",
        ]
    lines += [
        "            containers:",
        "            - name: kd-jax",
        f"              image: {_quote(options.image)}",
        "              command: [kd-jax]",
        "              args:",
        *(f"              - {_quote(argument)}" for argument in arguments),
    ]
    if options.gpus:
        lines += [
            "              resources:",
            "                limits:",
            f"                  nvidia.com/gpu: {options.gpus}",
        ]
    return [
        *lines,
        "              volumeMounts:",
        "              - name: runs",
        f"                mountPath: {_quote(options.mount)}",
        "            volumes:",
        "            - name: runs",
        "              persistentVolumeClaim:",
        f"                claimName: {_quote(options.volume)}",
    ]


def _quote(text: str) -> str:
    # Every text of JSON is one of YAML too.
    return json.dumps(text)
