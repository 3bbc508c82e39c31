"""Fetches datasets of the Hugging Face hub, or reads a folder as the hub has them: a Parquet file a
split, which the reader of tables opens. No code of a dataset's is ever run."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

PREFIX = "hf:"

HINT = "hf:OWNER/NAME, hf:OWNER/NAME:CONFIGURATION, either with @REVISION, or hf:FOLDER"


def fetch(name: str) -> tuple[Path, dict[str, str]]:
    """Returns a folder with a Parquet file a split, and what the data are of.

    What was fetched once is found again, where the revision is the same.

    Args:
      name: as `HINT` says; without a revision it is the newest.

    Raises:
      ValueError: if the extra `datasets` isn't installed, the name is malformed, there is no such
        dataset, configuration or revision, or it can't be fetched now.
    """
    given, _, revision = name.removeprefix(PREFIX).partition("@")
    repository, _, configuration = given.partition(":")
    local = Path(repository or "?").expanduser()
    if not local.is_dir() and (repository.count("/") != 1 or repository.startswith((".", "/"))):
        raise ValueError(f"{name!r} must be {HINT}")
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError:
        raise ValueError(
            f"{name!r} needs the extra datasets: uv sync --extra datasets, or pip install"
            " 'kd_jax[datasets]'"
        ) from None
    try:
        facts = _facts(repository, revision, local)
        folder = _home() / _slug(f"{repository}:{configuration}@{facts['revision']}")
        # Its presence says that all splits are there.
        if not (folder / "complete").is_file():
            found: Any = datasets.load_dataset(
                str(local) if local.is_dir() else repository,
                configuration or None,
                revision=None if local.is_dir() else facts["revision"],
            )
            _write(found, folder)
    # A RuntimeError is that a dataset comes as code.
    except (ValueError, OSError, RuntimeError, DatasetsError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{name!r} can't be read: {reason}") from None
    return folder, {"dataset": given, **facts}


def _facts(repository: str, revision: str, local: Path) -> dict[str, str]:
    """Returns the revision: of a dataset of the hub its commit, of a folder a sum of its files."""
    if local.is_dir():
        if revision:
            raise ValueError("a folder has no revisions")
        digest = hashlib.sha256()
        for path in sorted(path for path in local.rglob("*") if path.is_file()):
            digest.update(str(path.relative_to(local)).encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return {"revision": digest.hexdigest()}
    import huggingface_hub

    info = huggingface_hub.HfApi().dataset_info(repository, revision=revision or None)
    return {"revision": str(info.sha)}


def _write(found: Any, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Elsewhere first, so that another process never sees half of it.
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary) / "splits"
        made.mkdir()
        for split, rows in found.items():
            rows.to_parquet(made / f"{split}.parquet")
        (made / "complete").touch()
        if not (folder / "complete").is_file():
            made.rename(folder)


def _home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "kd_jax" / "datasets"


def _slug(name: str) -> str:
    readable = "".join(c if c.isalnum() or c in "-." else "-" for c in name.partition("@")[0])
    return f"{readable.strip('-')[-60:]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
