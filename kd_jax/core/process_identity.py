"""Which process somebody is, among those of several machines, and whether it still runs."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
_DEAD = ("Z", "X")
"""States in /proc/PID/stat of a process that has ended, and whose parent hasn't asked how."""


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, told apart from all others of all machines.

    Attributes:
      host: name of its machine.
      place: the machine's start and the container, within which a pid means one process.
      pid: its number.
      started: when, in ticks since the machine's start; "" where the system doesn't say.
    """

    host: str
    place: str
    pid: int
    started: str

    def is_here(self) -> bool:
        """Tells whether it runs, or ran, where this process can ask about it."""
        return (self.host, self.place) == (socket.gethostname(), _place())

    def is_running(self) -> bool:
        """Tells whether a process that `is_here` still runs; one that was killed doesn't."""
        facts = _facts(self.pid)
        if facts is None:
            return False
        state, started = facts
        # A number is given again, so the time of the start has to be the same.
        return state not in _DEAD and started == self.started


def this_process() -> ProcessIdentity:
    """Returns the identity of the process that asks."""
    pid = os.getpid()
    _, started = _facts(pid) or ("", "")
    return ProcessIdentity(socket.gethostname(), _place(), pid, started)


def _place() -> str:
    # Containers on one machine count their processes apart, and may have one name.
    namespace = os.readlink(_NAMESPACE) if _NAMESPACE.is_symlink() else ""
    boot = _BOOT.read_text().strip() if _BOOT.is_file() else ""
    return f"{boot} {namespace}"


def _facts(pid: int) -> tuple[str, str] | None:
    """Returns a process's state and when it started; None if there is none.

    A process whose first thread has ended is at an end only when its last one has: until then it
    may write, and holds its locks.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # It is another user's, and so it is there.
    if not Path("/proc/self/stat").exists():
        return "", ""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        threads = len(os.listdir(f"/proc/{pid}/task"))
    # It ended meanwhile.
    except (ProcessLookupError, FileNotFoundError):
        return None
    # The command's name stands in parentheses and may hold anything, spaces too.
    fields = text.rpartition(")")[2].split()
    return fields[0] if threads <= 1 else "", fields[19]
