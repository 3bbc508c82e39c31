"""The folder of one run: claimed by one config and one state of the data, and by one process at a
time."""

import fcntl
import json
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import jax

from kd_jax.config.hashing import identity
from kd_jax.core.json_files import write_json


class Workdir:
    """A claimed folder.

    Args:
      path: the folder; created when missing.
      config: the resolved config that claims it.

    Raises:
      ValueError: if it belongs to another config (naming the keys that differ), can't be written,
        or another process is at work in it.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]):
        self.path = path.resolve()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
        except OSError as error:
            raise ValueError(
                f"the workdir {path} can't be written: {error.strerror or error}"
            ) from None
        # Claimed under the lock, so that no two processes write the file together.
        self._claim(self.path / "config.json", config)

    def _locked(self) -> TextIO | None:
        """Holds until the process ends, however it ends; the first process of a cluster holds it
        for all."""
        if jax.process_index() != 0:
            return None
        lock = (self.path / ".lock").open("a")
        try:
            # The kernel frees this lock when the process ends, also after a kill.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is at work in {self.path}") from None
        weakref.finalize(self, lock.close)
        # A full or read-only disk shows here, and not at the first checkpoint.
        probe = self.path / f".probe-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
        return lock

    def _claim(self, file: Path, config: Mapping[str, Any]) -> None:
        # Through JSON, so that tuples compare equal to the lists of the stored config.
        wanted = json.loads(json.dumps(identity(config)))
        if file.exists():
            there = identity(json.loads(file.read_text()))
            # The ellipsis stands for an absent key, because None is a value that a key may have.
            differing = sorted(
                k for k in there.keys() | wanted.keys() if there.get(k, ...) != wanted.get(k, ...)
            )
            if differing:
                raise ValueError(
                    f"the workdir {self.path} belongs to another config; they differ in"
                    f" {', '.join(differing)}"
                )
        # Written again at each start, as keys that may change could have changed.
        write_json(file, config)

    def require_same(self, what: str, value: Any, explanation: str) -> None:
        """Remembers a value at the first start and refuses another at the next.

        Raises:
          ValueError: with the explanation, if the remembered value is another.
        """
        file = self.path / f"{what}.json"
        if file.exists() and json.loads(file.read_text()) != value:
            raise ValueError(
                f"{explanation}: {file} says {file.read_text().strip()}, now it is"
                f" {json.dumps(value)}"
            )
        # The first start decides, and later ones must not overwrite what they are compared with.
        if not file.exists():
            write_json(file, value)

    def results(self) -> dict[str, Any] | None:
        """Returns the results of a finished run, None before."""
        file = self.path / "results.json"
        return json.loads(file.read_text()) if file.exists() else None
