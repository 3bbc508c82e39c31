"""TFDS builders of the built-in datasets, which need no download and are prepared on first use.

Each is a module with `Builder`, `PACKAGES` and `VERSION`, named in `BUILDERS`. A dataset's config
name hashes the versions of the packages that its content comes from, so that an upgrade prepares it
anew; raise `VERSION` if a change of the code changes the content.
"""

import hashlib
import importlib
import importlib.metadata
import json
import sys
from pathlib import Path

from kd_jax.data.readers.tfds_writer import prepare_whole

BUILDERS = ("digits", "docstrings", "hostile_docstrings")
"""Names of the built-in datasets; each is a module here."""


def prepare(name: str, root: Path) -> tuple[Path, dict]:
    """Prepares a built-in dataset under `root` if it isn't there yet.

    Args:
      name: one of `BUILDERS`.
      root: TFDS data directory, created if missing.

    Returns:
      The folder of the prepared dataset, and the package versions that it was made from.
    """
    module = importlib.import_module(f"{__name__}.{name}")
    versions = {package: importlib.metadata.version(package) for package in module.PACKAGES}
    # The Python version counts because its parser reads the sources.
    made_from = {"packages": versions, "python": ".".join(map(str, sys.version_info[:2]))}
    config = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]
    relative = Path(name, config, module.VERSION)
    if not (root / relative).is_dir():
        import tensorflow_datasets as tfds

        print(f"preparing {name} in {root / relative}", file=sys.stderr)
        builder_config = tfds.core.BuilderConfig(name=config, version=module.VERSION)
        prepare_whole(
            root,
            relative,
            lambda at: module.Builder(
                data_dir=at, config=builder_config, file_format="array_record"
            ),
        )
    return root / relative, made_from
