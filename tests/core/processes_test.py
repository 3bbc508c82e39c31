"""A process of a cluster is watched by a parent."""

import io
import signal
from types import SimpleNamespace

import jax
import pytest

from kd_jax.core import processes

LOST = (
    b"E1129 18:00:00.000000  77 coordination_service_agent.cc:1] Polling failed\n"
    b"F1129 18:00:00.000000  77 client.h:80] Terminating process because the JAX distributed"
    b" service detected fatal errors.\n"
    b"*** Check failure stack trace: ***\n"
)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--config=digits", "--coordinator=host:1"], {}),
        (["-coordinator", "host:1"], {}),
        ([], {"TPU_WORKER_HOSTNAMES": "a,b"}),
        ([], {"JAX_COORDINATOR_ADDRESS": "host:1"}),
        ([], {"SLURM_NTASKS": "2"}),
    ],
)
def test_flags_or_the_environment_name_a_cluster(arguments, environment, monkeypatch):
    monkeypatch.setattr(processes.os, "environ", environment)
    assert processes.is_cluster_member(arguments)


@pytest.mark.parametrize(
    "environment", [{}, {"TPU_WORKER_HOSTNAMES": "a"}, {"SLURM_NTASKS": "1"}, {"SLURM_NTASKS": "x"}]
)
def test_a_machine_of_its_own_is_no_cluster(environment, monkeypatch):
    monkeypatch.setattr(processes.os, "environ", environment)
    assert not processes.is_cluster_member(["--config=coordinator"])


def test_what_cpp_says_is_kept_back_and_all_after_its_fatal_error(capfdbinary):
    held, told = processes._pass_lines_on(io.BytesIO(b"a step\n" + LOST + b"    @ 0x7f abort\n"))
    assert b"".join(held) == LOST + b"    @ 0x7f abort\n"
    assert not told
    assert capfdbinary.readouterr().err == b"a step\n"


def test_that_a_process_is_gone_is_passed_on_wherever_it_comes(capfdbinary):
    gone = processes.GONE.encode() + b"\n"
    held, told = processes._pass_lines_on(io.BytesIO(LOST + gone + b"    @ 0x7f abort\n"))
    assert told
    assert b"".join(held) == LOST + b"    @ 0x7f abort\n"
    assert capfdbinary.readouterr().err == gone


GONE = processes.GONE.encode() + b"\n"


@pytest.mark.parametrize(
    ("status", "lines", "ends", "says"),
    [
        (0, b"a step\n" + LOST[:40] + b"\n", 0, b"a step\n" + LOST[:40] + b"\n"),
        (1, b"error: no such file\n", 1, b"error: no such file\n"),
        # Its own error stays its own, though the others' end reached it meanwhile.
        (1, b"error: disk full\n" + LOST, 1, b"error: disk full\n" + LOST),
        (-signal.SIGABRT, b"a step\n" + LOST, 75, b"a step\n" + GONE),
        (-signal.SIGABRT, LOST + GONE, 75, GONE),
        (75, LOST + GONE, 75, GONE),
        (75, LOST, 75, GONE),
        (75, LOST.splitlines(True)[0] + GONE, 75, GONE),
        (75, b"W1129 18:00:00.000000  7 x.cc:1] slow\nstopped\n", 75, b"stopped\n"),
    ],
)
def test_a_watched_process_ends_with_its_status_or_with_75_and_one_line(
    status, lines, ends, says, monkeypatch, capfdbinary
):
    child = SimpleNamespace(stderr=io.BytesIO(lines), wait=lambda: status)
    monkeypatch.setattr(processes.subprocess, "Popen", lambda *_given, **_options: child)
    monkeypatch.setattr(processes.signal, "signal", lambda *_given: None)
    assert processes.watch() == ends
    assert capfdbinary.readouterr().err == says


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("UNKNOWN: Gloo AllGather failed: [pair.cc:547] Connection closed by peer [::1]", True),
        ("UNKNOWN: Gloo AllReduce failed: [pair.cc:1] Connection reset by peer", True),
        ("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes", False),
        ("INTERNAL: Gloo context initialization failed: Connection closed by peer", False),
    ],
)
def test_an_exchange_that_failed_tells_that_another_process_is_gone(said, lost):
    assert processes.lost_another(jax.errors.JaxRuntimeError(said)) == lost
    assert not processes.lost_another(ValueError(said))
