"""A command that is one process of a cluster: a parent watches it and says why it ended.

jax's C++ ends a process by abort(), with a page of its own messages, when the process that
coordinates the cluster is gone; nothing inside that process can come in between. Sometimes an
exchange of arrays with a lost process fails before that, as an ordinary error."""

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import IO

RESUMABLE = 75
"""Exit status of a run that was stopped and that the same command resumes (EX_TEMPFAIL of
sysexits.h)."""

GONE = (
    "a process of the cluster is gone; start all processes again by the same commands, which go on"
    " from the last checkpoint"
)
_WATCHED = "KD_JAX_WATCHED_BY"
_FROM_CPP = re.compile(
    rb"[IWEF]\d{4} \d\d:\d\d:\d\d"
    # Such a message may go on, on lines of its own.
    rb"|Additional GRPC error information|:[A-Z]+:Error received from peer"
)
_FATAL = re.compile(rb"F\d{4} \d\d:\d\d:\d\d.*distributed service")
_LOST = re.compile(
    # Not while the cluster comes together: what fails there fails again.
    r"Gloo (?!context).* failed: .*(Connection (closed|reset) by peer|Broken pipe)",
    re.DOTALL,
)
_SET_PARENT_DEATH_SIGNAL = 1


def is_cluster_member(arguments: Sequence[str]) -> bool:
    """Tells whether a command line, or what jax reads from the environment, names a cluster."""
    named = any(each.lstrip("-").partition("=")[0] == "coordinator" for each in arguments)
    return named or cluster_in_environment(os.environ)


def cluster_in_environment(environment: Mapping[str, str]) -> bool:
    """Tells whether jax itself recognises a cluster of more than one process."""
    # A single host of a TPU has the variable too, with one name; only a list means a cluster.
    return (
        "," in environment.get("TPU_WORKER_HOSTNAMES", "")
        or "JAX_COORDINATOR_ADDRESS" in environment
        or _number(environment.get("SLURM_NTASKS", "1")) > 1
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 1


def lost_another(error: BaseException) -> bool:
    """Tells whether an error of jax says that another process of the cluster is gone."""
    return type(error).__name__ == "JaxRuntimeError" and _LOST.search(str(error)) is not None


def is_watched() -> bool:
    """Tells whether this process has a parent that watches it; if so, it ends when that does."""
    parent = os.environ.pop(_WATCHED, None)
    if parent is None:
        return False
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    # The parent may have died before the line above.
    if os.getppid() != int(parent):
        raise SystemExit(RESUMABLE)
    return True


def watch() -> int:
    """Runs this command again as a child and passes on what it says and the signals that come.

    Returns:
      The child's exit status; 75, after one line in place of C++'s page, where another process of
      its cluster was lost.
    """
    child = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env=os.environ | {_WATCHED: str(os.getpid())},
        stderr=subprocess.PIPE,
        # Ctrl-C in a terminal reaches a whole group; the child must not hear it twice.
        start_new_session=True,
    )

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame  # Python gives it to every handler.
        child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    assert child.stderr is not None
    held, told = _pass_lines_on(child.stderr)
    status = child.wait()
    if status in (-signal.SIGABRT, RESUMABLE) and any(_FATAL.match(line) for line in held):
        # The child itself has said so where it saw an exchange fail first.
        if not told:
            print(GONE, file=sys.stderr)
        return RESUMABLE
    if status == RESUMABLE:
        # What C++ said of it is no news beside the child's own line.
        return status
    sys.stderr.buffer.write(b"".join(held))
    sys.stderr.flush()
    if status < 0:
        # A shell shall see the signal that ended the child.
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def _pass_lines_on(stream: IO[bytes]) -> tuple[list[bytes], bool]:
    """Writes each line to stderr; keeps back what C++ says, and all after a fatal error of its.

    Returns:
      What was kept back, and whether a line told that another process is gone; that one is never
      kept back, wherever it comes among C++'s.
    """
    held: list[bytes] = []
    fatal = told = False
    for line in stream:
        fatal = fatal or _FATAL.match(line) is not None
        gone = line.startswith(GONE.encode())
        told = told or gone
        if (fatal or _FROM_CPP.match(line)) and not gone:
            held.append(line)
        else:
            sys.stderr.buffer.write(line)
            sys.stderr.flush()
    return held, told
