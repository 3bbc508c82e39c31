"""Writes a TFDS dataset completely or not at all, without TensorFlow."""

import contextlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging

_PREFIX = ".preparing-"
# Seconds after which an unfinished preparation is taken to be from a process that was killed.
_ABANDONED = 24 * 3600


def prepare_whole(
    root: Path,
    relative: Path,
    make_builder: Callable[[Path], Any],
    beside: Mapping[str, str] | None = None,
) -> None:
    """Has a builder write its dataset to a scratch folder, which is moved into place when complete.

    So neither a kill nor a second process that prepares the same thing can leave half of it there.

    Args:
      root: TFDS data directory, created if missing.
      relative: where the builder writes in its data directory, and where the dataset then lies
        under `root`.
      make_builder: data directory -> TFDS builder.
      beside: name -> text of further files in the dataset's folder.
    """
    root.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(root)
    # Under the same root, so that the move is a rename within one file system and thus atomic.
    scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    try:
        with _quiet():
            make_builder(scratch).download_and_prepare()
        for name, text in (beside or {}).items():
            (scratch / relative / name).write_text(text)
        target = root / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(scratch / relative, target)
        except OSError:
            # If the target exists, another process was first, with the same content.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    # TFDS announces the scratch folder on stdout, and warns of a config that is not one of its own.
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
