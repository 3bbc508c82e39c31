"""A tree's leaves by path, their checksums and their fingerprint."""

import hashlib
import zlib
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kd_jax.core.types import PyTree


def leaves_by_path(tree: PyTree) -> dict[str, Any]:
    """Leaves by slash-separated path, in sorted order of the paths."""
    flat, _ = jax.tree.flatten_with_path(tree)
    named = {"/".join(_key_name(key) for key in path): leaf for path, leaf in flat}
    return dict(sorted(named.items()))


def _key_name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"unknown kind of tree key {key!r}")


def on_host(leaf: Any) -> np.ndarray:
    """The whole leaf in this process's memory, gathered when it is spread over processes."""
    if (
        isinstance(leaf, jax.Array)
        and not leaf.is_fully_addressable
        and not leaf.is_fully_replicated
    ):
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


def describe(tree: PyTree) -> dict[str, list[Any]]:
    """Shape and dtype of every leaf, by path."""
    return {
        path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves_by_path(tree).items()
    }


def checksums(tree: PyTree) -> dict[str, int]:
    """CRC-32 of every leaf's bytes, by path."""
    return {path: zlib.crc32(_bytes(leaf)) for path, leaf in leaves_by_path(tree).items()}


def fingerprint(tree: PyTree) -> str:
    """SHA-256 over the sorted paths, shapes, dtypes and bytes of all leaves."""
    digest = hashlib.sha256()
    for path, leaf in leaves_by_path(tree).items():
        digest.update(f"{path} {tuple(leaf.shape)} {leaf.dtype}\n".encode())
        digest.update(_bytes(leaf))
    return f"sha256:{digest.hexdigest()}"


def count_parameters(tree: PyTree) -> int:
    """How many numbers a tree holds."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(tree))


def _bytes(leaf: Any) -> memoryview:
    return np.ascontiguousarray(on_host(leaf)).reshape(-1).view(np.uint8).data
