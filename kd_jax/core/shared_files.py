"""Files that the first process of a cluster writes and all of them read."""

import os
import time
import uuid
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

SECONDS = 60.0
"""How late a network file system may show a process what another one wrote."""


def check_shared(folder: Path, owner: str) -> None:
    """Refuses a folder that isn't the same one for all processes, in each of them.

    They would otherwise wait for one another without end, as each reads what the first one wrote.

    Args:
      folder: it is there, and can be written.
      owner: what names it, for the message.

    Raises:
      ValueError: naming the processes that see another one.
    """
    if jax.process_count() == 1:
        return
    drawn = np.frombuffer(uuid.uuid4().bytes, np.uint8)
    name = bytes(np.asarray(multihost_utils.broadcast_one_to_all(drawn))).hex()
    sign = folder / f".cluster-{name}.tmp"
    if jax.process_index() == 0:
        sign.touch()
    multihost_utils.sync_global_devices(f"{name} written")
    seen = multihost_utils.process_allgather(np.asarray(_is_seen(sign)))
    if jax.process_index() == 0:
        sign.unlink(missing_ok=True)
    if missing := np.flatnonzero(~np.asarray(seen).reshape(-1)).tolist():
        raise ValueError(
            f"{owner}: {folder} isn't one folder for all {jax.process_count()} processes: what the"
            f" first one writes there isn't seen by {', '.join(map(str, missing))} (--process_id,"
            f" from 0); name one on a file system that all machines share"
        )


def written(*files: Path) -> None:
    """Returns, in every process, once each of them sees files that the first one has written.

    Raises:
      FileNotFoundError: in every process, if one of them doesn't within `SECONDS`.
    """
    if jax.process_count() == 1:
        return
    multihost_utils.sync_global_devices(f"{', '.join(file.name for file in files)} written")
    unseen = next((place for place, file in enumerate(files) if not _is_seen(file)), -1)
    found = np.asarray(multihost_utils.process_allgather(np.asarray(unseen))).reshape(-1)
    if missing := np.flatnonzero(found >= 0).tolist():
        raise FileNotFoundError(
            f"{files[found[missing[0]]]}, written by the first process, isn't seen by process"
            f" {missing[0]} after {SECONDS:.0f} s"
        )


def _is_seen(file: Path) -> bool:
    """Tells whether a file is there, or comes within `SECONDS`."""
    end = time.monotonic() + SECONDS
    while not file.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
        # A network file system asks its server again when a folder is listed.
        os.listdir(file.parent)
    return True
