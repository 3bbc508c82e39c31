"""A copy of a run's folder in object storage, from which the run goes on on another machine.

The copy has the folder's own paths, and `mirror.json`, which is written after the files that it
names: what isn't named there is half a copy, and is never read."""

import json
import logging
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import jax
from jax.experimental import multihost_utils

from kd_jax.core.json_files import write_json
from kd_jax.experiments.workdir import CONFIG

log = logging.getLogger("kd_jax")

SECONDS = 60.0
"""Between two looks for what has changed."""

SOON = 5.0
"""Seconds until the first look: a copy that a new folder was filled from is soon its own."""

LARGEST = 2**26
"""Bytes of a `mirror.json` that are read."""

MANIFEST = "mirror.json"
OWN = ".mirror.json"
"""In the folder: where it is copied to, what has been sent, and which `mirror.json` it knows."""

PROBE = ".probe"
"""Is written and removed again, to see whether that can be done."""

LEFT_OUT = (".lock", OWN, ".probe-*", ".cluster-*", "*.tmp")
"""Files of no use elsewhere."""

UNFINISHED = "orbax-checkpoint-tmp"
"""Part of the name of a checkpoint's folder that is still written."""


class Mirror:
    """The copy of one folder.

    Args:
      address: of the copy, such as gs://BUCKET/RUN, of any kind that fsspec knows.
      folder: the run's.

    Raises:
      ValueError: if the address is none, lies in the folder, or its kind needs a package that isn't
        installed.
    """

    def __init__(self, address: str, folder: Path):
        self.address, self.folder = address.rstrip("/"), folder
        if "://" not in address:
            raise ValueError(
                f"--mirror must be an address such as gs://BUCKET/RUN or s3://BUCKET/RUN, got"
                f" {address!r}"
            )
        # Object storage has no folders; those of a disk are made as they are needed.
        on_disk = address.startswith(("file://", "local://"))
        options = {"auto_mkdir": True} if on_disk else {}
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address, **options)
        except (ImportError, ValueError) as error:
            raise ValueError(f"--mirror={address}: {error}") from None
        if on_disk and Path(self._root).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"--mirror={address} lies in the run's folder {folder}")
        # Of the `mirror.json` that this folder was filled from or has written, and of one that it
        # was about to write.
        self._stamps: tuple[str, ...] = ()
        self._sent: dict[str, list[int]] = {}

    def begin(self) -> None:
        """Fills a new folder from the copy, or writes the copy of an old one.

        The copy of a new folder is another one's until something has changed here.

        Raises:
          ValueError: if the copy can't be read or written, or was written by another folder since.
        """
        there, own, filling = self._manifest(), self._own(), False
        if own.get("address") == self.address:
            self._stamps, self._sent = tuple(own["stamps"]), own["sent"]
            filling = not own["filled"]
        if there is not None and (filling or there["stamp"] not in self._stamps):
            if (self.folder / CONFIG).exists() and not filling:
                raise ValueError(
                    f"--mirror={self.address} was written from another folder than {self.folder};"
                    " name a new --workdir, which is filled from it, or another --mirror"
                )
            # One that is killed while it is filled is filled anew.
            self._keep_own(filled=False)
            self._fetch(there)
            self._stamps, self._sent = (there["stamp"],), dict(self._look())
        self._keep_own()
        # What can't be written shows here, and not when the run has something to send.
        self._try("written", self._files.pipe_file, self._at(PROBE), b"")
        self._try("written", self._files.rm_file, self._at(PROBE))
        self.push()

    def push(self) -> None:
        """Sends what has changed since the last time.

        Raises:
          ValueError: if that fails, or another folder has written the copy meanwhile.
        """
        there = self._manifest()
        if there is not None and there["stamp"] not in self._stamps:
            raise ValueError(
                f"--mirror={self.address} is written from another folder as well, and is no longer"
                f" written from here; the run is whole in {self.folder}"
            )
        if there is None:
            # New, or lost.
            self._sent = {}
        found = dict(self._look())
        if there is not None and there["stamp"] == self._stamps[-1] and found == self._sent:
            return
        sent: dict[str, list[int]] = {}
        for path, stamp in found.items():
            if self._sent.get(path) != stamp:
                # Old checkpoints go while others are sent.
                if not (self.folder / path).exists():
                    continue
                self._try("written", self._files.put_file, str(self.folder / path), self._at(path))
            sent[path] = stamp
        # Known here before it is there, so that a kill between the two leaves a copy of ours.
        self._stamps = (*([there["stamp"]] if there else []), uuid.uuid4().hex)
        self._sent = sent
        self._keep_own()
        self._put_manifest({path: size for path, (_, size) in sent.items()})
        for path in (there or {"files": {}})["files"]:
            # Only after nobody is told of it.
            if path not in sent:
                self._try("written", self._files.rm_file, self._at(path), missing=None)

    def _look(self) -> Iterator[tuple[str, list[int]]]:
        """Yields each file with the time of its last change and its size."""
        for path in sorted(self.folder.rglob("*")):
            relative = path.relative_to(self.folder)
            if any(UNFINISHED in part for part in relative.parts):
                continue
            if any(path.match(pattern) for pattern in LEFT_OUT):
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.is_file():
                yield relative.as_posix(), [status.st_mtime_ns, status.st_size]

    def _fetch(self, there: Mapping[str, Any]) -> None:
        for path in there["files"]:
            parts = PurePosixPath(path)
            if parts.is_absolute() or ".." in parts.parts:
                raise ValueError(
                    f"--mirror={self.address}: {MANIFEST} names {path!r}, which is"
                    " outside the folder"
                )
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            self._try("read", self._files.get_file, self._at(path), str(target))
        told = "%s: filled with %d files of %s, whose run goes on here"
        log.info(told, self.folder, len(there["files"]), self.address)

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"

    def _manifest(self) -> dict[str, Any] | None:
        place = self._at(MANIFEST)
        # A listing that was read before could hide what another machine wrote.
        self._files.invalidate_cache()
        if (size := self._try("read", self._files.size, place, missing=None)) is None:
            return None
        if size > LARGEST:
            raise ValueError(f"--mirror={self.address}: {MANIFEST} has {size} bytes")
        try:
            found = json.loads(self._try("read", self._files.cat_file, place))
            assert isinstance(found["stamp"], str)
            assert isinstance(found["files"], dict)
        except (ValueError, KeyError, TypeError, AssertionError):
            raise ValueError(f"--mirror={self.address}: {MANIFEST} is damaged") from None
        return found

    def _put_manifest(self, files: Mapping[str, int]) -> None:
        told = json.dumps({"stamp": self._stamps[-1], "files": dict(files)}).encode()
        self._try("written", self._files.pipe_file, self._at(MANIFEST), told)

    def _own(self) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / OWN).read_text())
            return found if {"address", "stamps", "sent", "filled"} <= {*found} else {}
        except (OSError, ValueError, TypeError):
            return {}

    def _keep_own(self, *, filled: bool = True) -> None:
        own = {"address": self.address, "stamps": self._stamps, "sent": self._sent}
        write_json(self.folder / OWN, own | {"filled": filled})

    def _try(self, what: str, call: Any, *arguments: Any, **missing: Any) -> Any:
        """Calls the storage; its libraries raise errors of kinds of their own."""
        try:
            return call(*arguments)
        except FileNotFoundError as error:
            if "missing" in missing:
                return missing["missing"]
            told = str(error) or "not found"
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
        raise ValueError(f"--mirror={self.address} can't be {what}: {' '.join(told.split())}")


@contextmanager
def mirrored(address: str | None, folder: Path) -> Iterator[None]:
    """Keeps a copy of a folder while a run works in it; see `Mirror`.

    The first process of a cluster does; the others begin when the folder has been filled.

    Args:
      address: of the copy; None: there is none.
      folder: the run's.
    """
    if address is None:
        yield
        return
    mirror = Mirror(address, folder) if jax.process_index() == 0 else None
    if mirror is not None:
        mirror.begin()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("folder filled from its copy")
    if mirror is None:
        yield
        return
    with _pushing(mirror):
        yield
    mirror.push()
    log.info("%s: a copy is in %s", folder, mirror.address)


@contextmanager
def _pushing(mirror: Mirror) -> Iterator[None]:
    """Sends what changes from another thread; where the run fails, what there is is sent."""
    ended = threading.Event()

    def work() -> None:
        wait = min(SOON, SECONDS)
        while not ended.wait(wait):
            _push_or_warn(mirror)
            wait = SECONDS

    thread = threading.Thread(target=work, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        ended.set()
        thread.join()
        _push_or_warn(mirror)
        raise
    ended.set()
    thread.join()


def _push_or_warn(mirror: Mirror) -> None:
    try:
        mirror.push()
    except ValueError as error:
        # The run itself is fine, and the storage may be there again in a minute.
        log.warning("%s", error)
