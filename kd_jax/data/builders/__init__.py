"""TFDS builders that need no download, prepared on first use.

A dataset's config name hashes the versions of the packages its content comes from, so that an upgrade prepares it anew.
"""

import contextlib
import hashlib
import importlib
import importlib.metadata
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from absl import logging

BUILDERS = ("digits", "docstrings")
"""Names of our datasets; each is a module here with `Builder`, `PACKAGES` and `VERSION`."""

_PREFIX = ".preparing-"
_ABANDONED = 24 * 3600  # Seconds after which an unfinished preparation is taken for dead.


def prepare(name: str, root: Path) -> tuple[Path, dict]:
    """Makes sure that a dataset lies under `root`.

    It is written to a folder of its own and moved to its place when complete, so neither a kill nor a second process
    preparing the same thing can leave half of it there.

    Args:
      name: one of `BUILDERS`.
      root: TFDS data directory, created if missing.

    Returns:
      The folder of the prepared dataset, and the package versions it was made from.
    """
    module = importlib.import_module(f"{__name__}.{name}")
    versions = {package: importlib.metadata.version(package) for package in module.PACKAGES}
    # The Python version counts because its parser reads the sources.
    made_from = {"packages": versions, "python": ".".join(map(str, sys.version_info[:2]))}
    config = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]
    relative = Path(name, config, module.VERSION)
    if not (root / relative).is_dir():
        _prepare_into(module, config, root, relative)
    return root / relative, made_from


def _prepare_into(module: ModuleType, config: str, root: Path, relative: Path) -> None:
    import tensorflow_datasets as tfds

    root.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(root)
    scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    try:
        print(f"preparing {relative.parts[0]} in {root / relative}", file=sys.stderr)
        with quiet():
            builder_config = tfds.core.BuilderConfig(name=config, version=module.VERSION)
            builder = module.Builder(data_dir=scratch, config=builder_config, file_format="array_record")
            builder.download_and_prepare()
        target = root / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(scratch / relative, target)
        except OSError:
            if not target.is_dir():  # Otherwise another process was first, with the same content.
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps TFDS from talking while it prepares."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    # TFDS announces the scratch folder on stdout and warns that the config, which is ours, is not its own.
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
