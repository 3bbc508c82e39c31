"""The manifest of a JobSet, as text and as Kubernetes reads it."""

from pathlib import Path

import pytest
import yaml

from kd_jax.experiments.launchers.job import make_job
from kd_jax.experiments.launchers.jobset import JobSetOptions, write_jobset

WORKER = """\
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: kd-jax-digits
spec:
  failurePolicy:
    maxRestarts: 5
  replicatedJobs:
  - name: host
    replicas: 1
    template:
      spec:
        completionMode: Indexed
        completions: 3
        parallelism: 3
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: Ignore
            onExitCodes:
              operator: In
              values: [75]
          - action: Ignore
            onPodConditions:
            - type: DisruptionTarget
              status: 'True'
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 300
            nodeSelector:
              cloud.google.com/gke-accelerator: "nvidia-l4"
            containers:
            - name: kd-jax
              image: "example/kd:1"
              command: [kd-jax]
              args:
              - "--sweep=/runs/grid.json"
              - "--workdir=/runs/a"
              - "--join"
              resources:
                limits:
                  nvidia.com/gpu: 1
              volumeMounts:
              - name: runs
                mountPath: "/runs"
            volumes:
            - name: runs
              persistentVolumeClaim:
                claimName: "kd-jax\""""


def job(*arguments, workdir="/runs/a", workers=None):
    return make_job(arguments, "digits", Path(workdir), workers)


def pod(text):
    (part,) = yaml.safe_load(text)["spec"]["replicatedJobs"]
    return part["template"]["spec"]


def test_a_sweep_is_a_pod_a_worker():
    options = JobSetOptions(image="example/kd:1", gpus=1, accelerator="nvidia-l4")
    text = write_jobset(job("--sweep=/runs/grid.json", workers=3), options)
    assert text == WORKER
    assert pod(text)["template"]["spec"]["restartPolicy"] == "Never"


def test_hosts_of_one_run_are_a_cluster():
    found = pod(write_jobset(job(), JobSetOptions(hosts=2)))
    assert found["completions"] == found["parallelism"] == 2
    (container,) = found["template"]["spec"]["containers"]
    assert container["args"] == [
        "--workdir=/runs/a",
        "--coordinator=kd-jax-digits-host-0-0.kd-jax-digits:8476",
        "--num_processes=2",
        "--process_id=$(JOB_COMPLETION_INDEX)",
    ]
    assert "resources" not in container
    assert "nodeSelector" not in found["template"]["spec"]


def test_arguments_come_through_as_they_were_written():
    odd = '--config.data.name=a "b" $(HOME) \\ ü: #c'
    (container,) = pod(write_jobset(job(odd), JobSetOptions()))["template"]["spec"]["containers"]
    # Kubernetes makes one sign of two, and then puts no variable in.
    assert container["args"][0] == odd.replace("$(", "$$(")


@pytest.mark.parametrize(
    ("options", "workers", "workdir", "message"),
    [
        ({"hosts": 0}, None, "/runs/a", r"hosts=0: it must be 1 or more$"),
        ({"hosts": 2}, 3, "/runs/a", "is for one run; a sweep's pods are its --workers$"),
        ({}, None, "runs/a", r"^--workdir must lie in /runs, where the pods see their volume"),
        ({"mount": "/data"}, None, "/runs/a", r"^--workdir must lie in /data, "),
    ],
)
def test_what_pods_can_not_do_is_refused(options, workers, workdir, message):
    with pytest.raises(ValueError, match=message):
        write_jobset(job(workdir=workdir, workers=workers), JobSetOptions(**options))


@pytest.mark.parametrize("given", [["--sweep=/home/grid.json"], ["--sweep", "/home/grid.json"]])
def test_files_outside_of_the_volume_are_refused(given):
    job = make_job(given, "digits", Path("/runs/a"), 2)
    with pytest.raises(ValueError, match=r"^--sweep=/home/grid.json: it must lie in /runs, where"):
        write_jobset(job, JobSetOptions())
