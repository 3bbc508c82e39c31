"""The folder of one run: claimed by one config and one state of the data, and by one process at a
time."""

import fcntl
import json
import logging
import os
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import jax

from kd_jax.config.hashing import identity
from kd_jax.core import seal
from kd_jax.core.json_files import as_json, read_facts, read_own, write_json
from kd_jax.core.shared_files import check_shared

log = logging.getLogger("kd_jax")

TRAINED = tuple(
    f"{folder}/{what}"
    for folder in ("*", "*/*")
    for what in ("finished.json", "checkpoints/[0-9]*")
)
"""What shows that something was trained in a folder, or in a run of a sweep."""

CONFIG = "config.json"

DELETE = "if the run's config and data are those that it began with, delete that file and go on"
"""What can be done about a damaged file that says what a run belongs to."""


PATIENCE = 10.0
"""Seconds for which one who shares a folder waits for another one who is just taking it."""

LEFT_BEHIND = 3600
"""Seconds after which nobody is writing a temporary file of a teacher's outputs any more."""


class AtWork(ValueError):
    """Another process is at work in the folder."""


class Workdir:
    """A claimed folder, until it is closed.

    Args:
      path: the folder; created when missing.
      config: the resolved config that claims it.
      adapt: given the config that it belongs to, makes it fit ours, by setting aside what is not
        to be used again; None: a folder of another config is refused. One in which nothing was
        trained yet belongs to nobody.
      shared: whether others may be at work in it who share it too, with the same config; whoever
        doesn't share is refused by them, and refuses them.
      scratch: whether each process of a cluster has a folder of its own.

    Raises:
      ValueError: if it belongs to another config (naming the keys that differ), can't be written,
        a file of it is damaged, or another process is at work in it.
    """

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        adapt: Callable[[Path, dict[str, Any]], None] | None = None,
        *,
        shared: bool = False,
        scratch: bool = False,
    ):
        self.path = path.resolve()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = None if jax.process_index() != 0 else (self.path / ".lock").open("a+")
            alone = self._lock is None or self._lock_alone(self._lock, or_refuse=not shared)
            if self._lock is not None:
                weakref.finalize(self, self._lock.close)
                self._probe()
        except OSError as error:
            raise ValueError(
                f"the workdir {path} can't be written: {error.strerror or error}"
            ) from None
        # Whoever catches what is raised here may start again, and must not find our own lock.
        try:
            if not scratch:
                check_shared(self.path, "--workdir")
            if alone:
                self._take(config, adapt)
            if shared and self._lock is not None:
                self._share(self._lock)
                self._require_same_as_others(config)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Gives the folder back, so that this process too may start another run in it."""
        if self._lock is not None:
            self._lock.close()

    def _take(
        self, config: Mapping[str, Any], adapt: Callable[[Path, dict[str, Any]], None] | None
    ) -> None:
        if self._lock is not None:
            self._remove_leftovers()
        # What a refused config left behind is nothing that anybody would miss.
        patterns = (*TRAINED, "results.json", "sweep.json", "search.json")
        self._unused = not any(found for each in patterns for found in self.path.glob(each))
        # Claimed under the lock, so that no two processes write the file together.
        self._claim(self.path / CONFIG, config, adapt)

    def _lock_alone(self, lock: TextIO, *, or_refuse: bool) -> bool:
        """Holds until the process ends, however it ends; the first process of a cluster holds it
        for all."""
        try:
            # The kernel frees this lock when the process ends, also after a kill.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not or_refuse:
                return False
            lock.close()
            raise AtWork(f"another process is at work in {self.path}") from None
        return True

    def _share(self, lock: TextIO) -> None:
        """Lets others in who share it as well; waits for one who is just taking it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ValueError(
                        f"another process is at work in {self.path}, and doesn't share it"
                    ) from None
                time.sleep(0.1)

    def _require_same_as_others(self, config: Mapping[str, Any]) -> None:
        # Also after it was taken: between the two locks somebody else may have taken it.
        stored = read_own(self.path / CONFIG, DELETE)
        self._compare(stored, config, None)
        # They may change between two starts, but not while several are at work.
        if stored.get("evaluations", {}) != as_json(config.get("evaluations", {})):
            raise ValueError(f"another process is at work in {self.path}, with other evaluations")

    def _probe(self) -> None:
        # A full or read-only disk shows here, and not at the first checkpoint.
        probe = self.path / f".probe-{os.getpid()}"
        probe.write_text("")
        probe.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        """Removes what a kill in the middle of a write left beside its target."""
        # Ours by name: a file of the user's that ends with .tmp is none of these.
        for folder in (self.path, *(path for path in self.path.iterdir() if path.is_dir())):
            for pattern in (
                "*.json.tmp",
                "*.csv.tmp",
                "*.safetensors.tmp",
                "metrics.tmp",
                ".cluster-*.tmp",
            ):
                for leftover in folder.glob(pattern):
                    leftover.unlink(missing_ok=True)
            # Another run of a sweep may be writing there at this moment.
            outputs = (*folder.glob("outputs-*/*.tmp"), *folder.glob("evaluation/outputs-*/*.tmp"))
            for leftover in outputs:
                if time.time() - leftover.stat().st_mtime > LEFT_BEHIND:
                    leftover.unlink(missing_ok=True)

    def _claim(
        self,
        file: Path,
        config: Mapping[str, Any],
        adapt: Callable[[Path, dict[str, Any]], None] | None,
    ) -> None:
        if file.exists() and not self._unused:
            self._compare(read_own(file, DELETE), config, adapt)
        # Written again at each start, as keys that may change could have changed.
        write_json(file, config)

    def _compare(
        self,
        stored: dict[str, Any],
        config: Mapping[str, Any],
        adapt: Callable[[Path, dict[str, Any]], None] | None,
    ) -> None:
        # Through JSON, so that tuples compare equal to the lists of the stored config.
        wanted = json.loads(json.dumps(identity(config)))
        there = identity(stored)
        # The ellipsis stands for an absent key, because None is a value that a key may have.
        differing = sorted(
            k for k in there.keys() | wanted.keys() if there.get(k, ...) != wanted.get(k, ...)
        )
        if differing and adapt is None:
            # A sweep or search trains what its runs share only once anyway.
            reuse = ", or --reuse to keep the models that this doesn't concern"
            raise ValueError(
                f"the workdir {self.path} belongs to another config; they differ in"
                f" {', '.join(differing)}; give another --workdir"
                f"{'' if {'sweep', 'search'} & {*config} else reuse}"
            )
        if differing and adapt is not None:
            adapt(self.path, stored)

    def require_same(self, what: str, value: Any, explanation: str) -> None:
        """Remembers a value at the first start and refuses another at the next.

        Raises:
          ValueError: with the explanation, if the remembered value is another.
        """
        file = self.path / f"{what}.json"
        # The first start that trained decides, and later ones must not overwrite what they are
        # compared with.
        if self._unused or not file.exists():
            write_json(file, value)
            return
        stored = read_own(file, DELETE, type(value))
        # A config that takes the folder over may read by other tokenizers than those known here.
        if isinstance(value, Mapping):
            common = {key: value[key] for key in value if key in stored}
            if common == {key: stored[key] for key in common}:
                if not value.keys() <= stored.keys():
                    write_json(file, {**stored, **value})
                return
        if stored != value:
            raise ValueError(
                f"{explanation}: {file} says {json.dumps(stored)}, now it is {json.dumps(value)};"
                f" give another --workdir"
            )

    def results(self) -> dict[str, Any] | None:
        """Returns the results of a finished run, None before; damaged ones are made again."""
        needed = ("models", "order", "compare", "evaluations")
        again = "the models are evaluated again"
        found = read_facts(self.path / "results.json", needed, again)
        if found is not None and (changed := seal.problem(self.path, "results.json", found)):
            log.warning("%s; %s", changed, again)
            return None
        return found
