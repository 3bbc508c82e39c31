"""Files of weights, read safely: safetensors, in one file or in shards, and npz. Pickles are never
  opened.

A pickle runs whatever program is in it, and a folder from the network is not to be trusted with
that."""

import json
import pathlib
import zipfile
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack")
"""What weights also come in; refused by name."""


INFLATED = 64 * 1024**2
"""Bytes that an npz may take when it is unpacked, beside a hundred times its own."""


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object."""
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist; a Hugging Face folder has config.json and model.safetensors"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a JSON object, got {type(content).__name__}")
    return content


def read_folder(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a folder's tensors, of model.safetensors or the shards that its index lists.

    Raises:
      ValueError: if there is none, or one is damaged; says so where there are pickles instead.
    """
    index = folder / "model.safetensors.index.json"
    if not (folder / "model.safetensors").is_file() and index.is_file():
        tensors: dict[str, np.ndarray] = {}
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise ValueError(f"{index} has no weight_map")
        # Many tensors share a shard, so each is read only once.
        for shard in sorted(set(shards.values())):
            if pathlib.PurePath(shard).name != shard:
                raise ValueError(f"{index} names a shard outside its folder: {shard!r}")
            tensors |= _read_safetensors(folder / shard)
        return tensors
    if not (folder / "model.safetensors").is_file():
        pickles = (
            sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
            if folder.is_dir()
            else []
        )
        reason = (
            f" and {pickles} are pickles, which are never opened: convert them to safetensors"
            if pickles
            else ""
        )
        raise ValueError(f"{folder} has no model.safetensors{reason}")
    return _read_safetensors(folder / "model.safetensors")


def read_file(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a safetensors or npz file, without BatchNorm's counters of batches.

    Raises:
      ValueError: if it is of another kind, absent or damaged.
    """
    if path.suffix == ".npz":
        tensors = _read_npz(path)
    elif path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
    else:
        raise ValueError(
            f"{path} is neither .safetensors nor .npz; other files of weights are pickles, never"
            f" opened"
        )
    return {
        name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")
    }


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged or truncated, or has an unknown dtype: {error}"
        ) from error


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        # Without pickles: objects in an npz file could run code when they are read.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            # Looked up in the archive's list, before anything is unpacked.
            size = sum(each.file_size for each in file.zip.infolist())
            if size > INFLATED + 100 * path.stat().st_size:
                raise ValueError(f"unpacked it would take {size:,} bytes")
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise ValueError(f"{path} is no npz file of arrays, or is damaged: {error}") from error
