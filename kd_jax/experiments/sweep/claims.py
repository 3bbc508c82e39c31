"""Claims of a sweep's runs in a folder that several machines share: who is at work on which run.

  queue/RUN/1/claim.json       who claimed it, and when
  queue/RUN/1/beat.json        a number that goes up while that worker lives
  queue/RUN/1/ended.json       that the run has ended, and how; none if the worker gave it back
  queue/RUN/1/released.json    the worker doesn't hold it any more

A claim is a folder, made aside and renamed: of several workers one succeeds, and whoever reads it
sees all of it. Whoever takes the run over after the first makes `queue/RUN/2`, and so on. Nothing
is ever removed or made anew there, so a worker that looked at claim 1 long ago can't take away what
another one has claimed since.

A worker that was killed is known by its pid on its own machine, and elsewhere by a number that
stopped going up for `LOST` seconds of the watcher's own clock: clocks of two machines are never
compared. A worker that can't make its number go up for `GIVE_UP` seconds ends itself, which leaves
the others time to see what it wrote.

The folder must lie at the same path on all machines, rename a folder atomically, and show what one
machine wrote to another within LOST - GIVE_UP seconds. Local disks and NFS do; object stores that
are mounted as folders don't."""

import logging
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kd_jax.core.json_files import read_facts, write_json
from kd_jax.core.process_identity import ProcessIdentity, this_process
from kd_jax.core.processes import RESUMABLE

log = logging.getLogger("kd_jax")

FOLDER = "queue"
BEAT = 15.0
"""Seconds between two beats of a worker."""
GIVE_UP = 120.0
"""Seconds without a beat after which a worker ends itself."""
LOST = 300.0
"""Seconds without a beat after which the others take a worker of another machine for dead."""

_CLAIM, _BEAT, _ENDED, _RELEASED = "claim.json", "beat.json", "ended.json", "released.json"
_AS_NONE = "it counts as if it weren't there"


@dataclass(frozen=True)
class Look:
    """What a worker saw of a run.

    Attributes:
      number: of its latest claim; 0 if nobody has claimed it yet.
      free: whether nobody is at work on it.
      ended: what was noted at its end; None where that hasn't come.
    """

    number: int
    free: bool
    ended: dict[str, Any] | None


class Claims:
    """The claims of one worker, in a folder that it shares with others.

    Args:
      folder: the sweep's.
      beat, give_up, lost: seconds, see `BEAT`, `GIVE_UP` and `LOST`.
    """

    def __init__(
        self, folder: Path, *, beat: float = BEAT, give_up: float = GIVE_UP, lost: float = LOST
    ):
        self._root = folder / FOLDER
        self._beat, self._give_up, self._lost = beat, give_up, lost
        self._me = this_process()
        self._worker = f"{self._me.host}-{self._me.pid}-{secrets.token_hex(4)}"
        self.aside = self._root / ".workers" / self._worker
        """Folder for files of this worker alone, on the same disk as the sweep's."""
        self.aside.mkdir(parents=True)
        # Claim -> the last number seen in it, and when on this process's own clock.
        self._seen: dict[Path, tuple[Any, float]] = {}

    def close(self) -> None:
        """Removes what no other worker needs."""
        shutil.rmtree(self.aside, ignore_errors=True)

    def look(self, run: str) -> Look:
        """Looks at a run: whose it is, and whether it has ended."""
        number = self._latest(run)
        if number == 0:
            return Look(0, free=True, ended=None)
        folder = self._root / run / str(number)
        if (folder / _RELEASED).exists():
            return Look(number, free=True, ended=read_facts(folder / _ENDED, (), _AS_NONE))
        return Look(number, free=not self._lives(folder), ended=None)

    def claim(self, run: str, seen: Look) -> "Claim | None":
        """Claims a run that was seen to be free.

        Args:
          run: its name.
          seen: what `look` said of it.

        Returns:
          The claim, its beat going; None if another worker was faster.

        Raises:
          OSError: if the folder can't be written.
        """
        target = self._root / run / str(seen.number + 1)
        made = self.aside / f"{run}.{seen.number + 1}"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(made / _CLAIM, asdict(self._me) | {"worker": self._worker, "time": now})
        write_json(made / _BEAT, {"beat": 0})
        target.parent.mkdir(exist_ok=True)
        try:
            # It fails where the target is, since a claim's folder is never empty.
            os.rename(made, target)
        except OSError:
            shutil.rmtree(made, ignore_errors=True)
            if not target.exists():
                raise
        # A network may lose the answer to a rename that was done, so the claim itself is asked.
        found = read_facts(target / _CLAIM, ("worker",), _AS_NONE)
        if found is None or found["worker"] != self._worker:
            return None
        if seen.number:
            self._bury(run, target.parent / str(seen.number))
        return Claim(target, self.aside, beat=self._beat, give_up=self._give_up)

    def noted(self, run: str) -> dict[str, Any] | None:
        """Returns what was noted last of the run's end, whether released since or not."""
        # A worker that died before it released its claim has noted it nevertheless.
        for number in range(self._latest(run), 0, -1):
            if found := read_facts(self._root / run / str(number) / _ENDED, (), _AS_NONE):
                return found
        return None

    def _bury(self, run: str, earlier: Path) -> None:
        """Says that a run is taken over, if it is, and clears up behind the worker that had it."""
        facts = read_facts(earlier / _CLAIM, ("worker", "host", "pid"), _AS_NONE)
        if facts is None or (earlier / _RELEASED).exists():
            return
        told = (run, facts["pid"], facts["host"])
        log.warning("%s is taken over: process %s on %s, which held it, is gone", *told)
        workers = self._root / ".workers"
        # A name that isn't there could be a path to anything.
        if facts["worker"] in os.listdir(workers):
            shutil.rmtree(workers / facts["worker"], ignore_errors=True)

    def _latest(self, run: str) -> int:
        folder = self._root / run
        names = os.listdir(folder) if folder.is_dir() else []
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def _lives(self, folder: Path) -> bool:
        """Tells whether the worker that made a claim may still be at work."""
        facts = read_facts(folder / _CLAIM, ("host", "place", "pid", "started"), _AS_NONE)
        if facts is not None:
            keys = ProcessIdentity.__dataclass_fields__
            holder = ProcessIdentity(**{key: facts[key] for key in keys})
            if holder.is_here():
                return holder.is_running()
        beat = read_facts(folder / _BEAT, (), _AS_NONE)
        now = time.monotonic()
        last, since = self._seen.get(folder, (None, now))
        if folder not in self._seen or beat != last:
            self._seen[folder], since = (beat, now), now
        return now - since <= self._lost


class Claim:
    """A claimed run, until it is released; a thread shows meanwhile that the worker lives."""

    def __init__(self, folder: Path, aside: Path, *, beat: float, give_up: float):
        self._folder, self._aside = folder, aside
        self._next = folder.with_name(str(int(folder.name) + 1))
        self._every, self._give_up = beat, give_up
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)
        self._thread.start()

    def note(self, ended: Mapping[str, Any]) -> None:
        """Notes how the run ended; nobody else acts on it before the claim is released."""
        self._put(_ENDED, ended)

    def release(self) -> None:
        """Gives the run back, as ended where that was noted."""
        self._released.set()
        self._thread.join()
        self._put(_RELEASED, {"time": datetime.now(UTC).isoformat(timespec="seconds")})

    def _put(self, name: str, value: Mapping[str, Any]) -> None:
        write_json(self._aside / name, value)
        (self._aside / name).replace(self._folder / name)

    def _keep_beating(self) -> None:
        count, last = 0, _clock()
        while not self._released.wait(self._every):
            # Before the beat, since a machine that slept may be taken for dead by now.
            if _clock() - last > self._give_up:
                _end(f"{self._folder} couldn't be written for {self._give_up:.0f} s")
            if self._next.exists():
                _end(f"{self._folder.parent.name} was taken over by another worker")
            count += 1
            try:
                self._put(_BEAT, {"beat": count})
                last = _clock()
            except OSError as error:
                log.warning("no beat could be written to %s: %s", self._folder, error.strerror)


def _clock() -> float:
    """Returns seconds that go on while a machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _end(reason: str) -> None:
    """Ends the process at once: another worker may begin the same run at any moment."""
    print(f"{reason}; this worker ends, and the same command resumes it", file=sys.stderr)
    sys.stderr.flush()
    os._exit(RESUMABLE)
