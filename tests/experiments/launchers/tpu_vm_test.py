"""The gcloud commands for TPU VMs, as text and as a shell reads them."""

import shlex
import subprocess
from pathlib import Path

import pytest

from kd_jax.experiments.launchers.job import make_job
from kd_jax.experiments.launchers.tpu_vm import TpuOptions, write_tpu_commands


def commands(*arguments, workers=None, **options):
    job = make_job(arguments, "digits", Path("/mnt/a b"), workers)
    return write_tpu_commands(job, TpuOptions(**options)).splitlines()


def test_a_run_is_a_command_that_makes_a_vm_and_one_on_all_its_hosts():
    create, run = commands("--config=digits", zone="europe-west4-b", type="v5litepod-16", spot=True)
    assert create == (
        "gcloud compute tpus tpu-vm create kd-jax-digits --zone=europe-west4-b"
        " --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite --spot"
    )
    *start, command = shlex.split(run)
    assert " ".join(start) == (
        "gcloud compute tpus tpu-vm ssh kd-jax-digits --zone=europe-west4-b --worker=all"
    )
    assert command == (
        "--command=while :; do kd-jax --config=digits '--workdir=/mnt/a b'; status=$?;"
        " [ $status -eq 75 ] || exit $status; sleep 10; done"
    )


def test_each_worker_of_a_sweep_has_a_vm():
    found = commands("--sweep=F", workers=2, name="mine")
    assert [shlex.split(line)[5] for line in found] == ["mine-0", "mine-0", "mine-1", "mine-1"]
    assert all("--join" in line for line in found[1::2])


@pytest.mark.parametrize(("ends", "status"), [([75, 75, 0], 0), ([75, 1], 1)])
def test_a_command_that_was_stopped_is_started_again_and_no_other(tmp_path, ends, status):
    (tmp_path / "ends").write_text("".join(f"{end}\n" for end in ends))
    program = tmp_path / "kd-jax"
    program.write_text('#!/bin/sh\ncd "$0.d"; read end < ../ends; sed -i 1d ../ends; exit $end\n')
    program.chmod(0o755)
    (tmp_path / "kd-jax.d").mkdir()
    sleep = tmp_path / "sleep"
    sleep.write_text("#!/bin/sh\n")
    sleep.chmod(0o755)
    again = shlex.split(commands()[1])[-1].removeprefix("--command=")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", again], env=environment, timeout=30, check=False)
    assert done.returncode == status
    assert (tmp_path / "ends").read_text() == ""


def test_workers_on_vms_of_several_hosts_are_refused():
    with pytest.raises(ValueError, match=r"^--tpu=type=v5litepod-16: a worker of a sweep is one"):
        commands("--sweep=F", workers=2, type="v5litepod-16")
