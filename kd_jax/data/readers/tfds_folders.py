"""Finds prepared datasets in TFDS data directories, and has TFDS prepare missing ones."""

import contextlib
import difflib
import importlib
import json
import os
import re
import sys
from pathlib import Path

from kd_jax.data import builders

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def find_root(dir: str | None) -> Path:
    """Returns the TFDS data directory: the argument, else TFDS_DATA_DIR, else TFDS's default."""
    return Path(dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def find_folder(root: Path, name: str) -> Path | None:
    """Returns the folder of a prepared dataset, or None.

    Of several versions it is the highest, unless `name` ends in one, as in `:2.0.0`.
    """
    base, _, version = name.partition(":")
    folder = root / base
    # A dataset with several configs lies one folder deeper; TFDS notes which is the default.
    default = folder / ".config" / "metadata.json"
    if default.is_file() and not _list_versions(folder):
        folder = folder / json.loads(default.read_text())["default_config_name"]
    versions = _list_versions(folder)
    if version:
        versions = [found for found in versions if found == version]
    return (
        folder / max(versions, key=lambda found: tuple(map(int, found.split("."))))
        if versions
        else None
    )


def _list_versions(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [
        child.name
        for child in folder.iterdir()
        if _VERSION.fullmatch(child.name) and (child / "dataset_info.json").is_file()
    ]


def download(name: str, root: Path) -> Path:
    """Has TFDS download and prepare a dataset; returns its folder.

    Raises:
      ValueError: if TFDS doesn't know it, or can't prepare it here: with the command that can.
    """
    import tensorflow_datasets as tfds

    # TFDS stops importing its older datasets at the first group that lacks a package, and doesn't
    # know those after it. Imported here one by one, each group that can be imported is known.
    for group in ("text", "image", "image_classification", "question_answering", "structured"):
        with contextlib.suppress(Exception):
            importlib.import_module(f"tensorflow_datasets.{group}")
    known = tfds.list_builders(with_community_datasets=False)
    base = name.partition(":")[0].partition("/")[0]
    if base not in known:
        nearest = difflib.get_close_matches(base, [*builders.BUILDERS, *known], n=3, cutoff=0.5)
        hint = (
            f"; did you mean {' or '.join(nearest)}?"
            if nearest
            else f"; ours are {', '.join(builders.BUILDERS)}"
        )
        raise ValueError(f"there is no file, folder or TFDS dataset {name!r}{hint}")
    _check_config(base, name.partition(":")[0].partition("/")[2])
    try:
        with contextlib.redirect_stdout(sys.stderr):
            builder = tfds.builder(name, data_dir=root, file_format="array_record", try_gcs=False)
            builder.download_and_prepare()
    # Whatever fails, be it the network, a missing TensorFlow or a wrong config name, the advice is
    # the same.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{name!r} is not prepared in {root} and can't be here ({reason}); {advise(name, root)}"
        ) from error
    return Path(builder.data_path)


def _check_config(base: str, config: str) -> None:
    import tensorflow_datasets as tfds

    try:
        configs = list(tfds.builder_cls(base).builder_configs)
    # A dataset whose code can't be imported here gets `download`'s message.
    except Exception:
        return
    if config and config not in configs:
        nearest = difflib.get_close_matches(config, configs, n=5, cutoff=0.0)
        raise ValueError(
            f"TFDS dataset {base!r} has no config {config!r}; it has {', '.join(nearest) or 'none'}"
        )


def advise(name: str, root: Path) -> str:
    """Returns advice with the one command that prepares a dataset with TensorFlow."""
    call = (
        f"tfds.builder('{name}', data_dir='{root}',"
        f" file_format='array_record').download_and_prepare()"
    )
    return (
        "with TensorFlow and network, prepare it once:"
        f' uv run --with tensorflow python -c "import tensorflow_datasets as tfds; {call}"'
    )
