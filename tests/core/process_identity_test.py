"""A process is told apart from others, and a dead one from a living one."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kd_jax.core import process_identity
from kd_jax.core.process_identity import ProcessIdentity, this_process

NEEDS_PROC = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="the system doesn't say when a process started"
)


def identity_of(pid):
    facts = process_identity._facts(pid)
    return replace(this_process(), pid=pid, started=facts[1])


def test_this_process_is_here_and_runs():
    me = this_process()
    assert me.is_here()
    assert me.is_running()


@NEEDS_PROC
def test_a_killed_process_does_not_run_even_before_its_parent_asks():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        other = identity_of(process.pid)
        assert other.is_running()
        process.kill()
        # Nobody has waited for it: the system still has its number.
        while other.is_running():
            pass
        assert process_identity._facts(process.pid) is not None
        process.wait()
    assert not other.is_running()


@NEEDS_PROC
def test_a_process_runs_until_its_last_thread_has_ended():
    # The first thread ends by itself, as the kernel ends it first after a kill.
    source = (
        "import ctypes, threading, sys\n"
        "threading.Thread(target=sys.stdin.read).start()\n"
        "print('begun', flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    command = [sys.executable, "-c", source]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == b"begun\n"
        stat = Path(f"/proc/{process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            pass
        other = identity_of(process.pid)
        assert other.is_running()
        process.kill()
        while other.is_running():
            pass


@NEEDS_PROC
def test_a_number_that_was_given_again_is_another_process():
    assert not replace(this_process(), started="1").is_running()


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"place": "another container"}])
def test_a_process_of_another_machine_or_container_is_not_here(change):
    assert not replace(this_process(), **change).is_here()


def test_an_identity_is_plain_values():
    me = this_process()
    assert ProcessIdentity(**vars(me)) == me
