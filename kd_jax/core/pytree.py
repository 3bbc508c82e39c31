"""Works on pytrees leaf by leaf: paths, shapes, checksums, fingerprints."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from kd_jax.core.types import PyTree


def leaves_by_path(tree: PyTree) -> dict[str, Any]:
    """Returns a tree's leaves by slash-separated path, sorted by path."""
    flat, _ = jax.tree.flatten_with_path(tree)
    named = {"/".join(_key_name(key) for key in path): leaf for path, leaf in flat}
    return dict(sorted(named.items()))


def map_with_path(function: Callable[[str, Any], Any], tree: PyTree) -> PyTree:
    """Applies `function(slash-separated path, leaf)` to every leaf."""

    def call(path: Sequence[Any], leaf: Any) -> Any:
        return function("/".join(_key_name(key) for key in path), leaf)

    return jax.tree.map_with_path(call, tree)


def _key_name(key: Any) -> str:
    # JAX has one class of key for each container: dicts, dataclasses, and tuples or lists.
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"unknown kind of tree key {key!r}")


def on_host(leaf: Any) -> np.ndarray:
    """Returns a leaf in this process's memory, gathered first if it is spread over processes."""
    if (
        isinstance(leaf, jax.Array)
        and not leaf.is_fully_addressable
        and not leaf.is_fully_replicated
    ):
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


def describe(tree: PyTree) -> dict[str, list[Any]]:
    """Returns the shape and dtype of every leaf, by path."""
    return {
        path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves_by_path(tree).items()
    }


def checksums(tree: PyTree) -> dict[str, int]:
    """Computes a checksum of every leaf's bits, by path, where the leaf lies.

    A checksum is the sum, modulo 2^32, of the leaf's 32-bit words, each times an odd number that
    depends on its position. Integer sums don't depend on their order, so the result is the same
    however the leaf is cut over devices and processes, and no leaf is gathered for it. One changed
    bit always changes it.
    """
    return {path: int(each) for path, each in _of_each(_checksum, tree).items()}


def _of_each(function: Callable[[Any], Any], tree: PyTree) -> dict[str, np.ndarray]:
    """Computes a scalar of every leaf, by path, where the leaf lies.

    One leaf at a time: leaves of one shape share a program, and all in one take long to compile;
    and no device starts two collectives at once.
    """
    return {path: np.asarray(function(leaf)) for path, leaf in leaves_by_path(tree).items()}


@jax.jit
def _checksum(leaf: jax.Array) -> jax.Array:
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    bits = jnp.dtype(leaf.dtype).itemsize * 8
    # The bits are summed, not the values: 0.0 and -0.0 differ, and NaN equals itself. 64-bit words
    # become pairs of 32-bit ones, narrower ones are widened.
    word = jnp.uint32 if bits >= 32 else jnp.dtype(f"uint{bits}")
    words = jax.lax.bitcast_convert_type(leaf, word).astype(jnp.uint32)
    # Multiplying the index of each axis by an odd number of its own mixes positions without a
    # reshape, which would move the shards of a leaf.
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        position = position * jnp.uint32(0x9E3779B1) + index
    # Even times anything, plus 1, is odd; an odd factor is invertible modulo 2^32, so one changed
    # word always changes its product.
    weight = position * jnp.uint32(0x85EBCA6A) + jnp.uint32(1)
    return jnp.sum(words * weight, dtype=jnp.uint32)


def all_finite(tree: PyTree) -> jax.Array:
    """Tells, [] bool, whether no floating-point leaf holds NaN or infinity; for use under jit."""
    flags = [
        jnp.all(jnp.isfinite(leaf))
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    return jnp.all(jnp.stack(flags)) if flags else jnp.asarray(True)


def not_finite(tree: PyTree) -> list[str]:
    """Returns the paths of the leaves that hold NaN or infinity, looked at where they lie."""
    return [path for path, finite in _of_each(_is_finite, tree).items() if not finite]


def _is_finite(leaf: Any) -> Any:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        return np.True_
    # What is in the host's memory is read there, which needs no program for each shape.
    on_devices = isinstance(leaf, jax.Array) and (
        not leaf.is_fully_addressable or next(iter(leaf.devices())).platform != "cpu"
    )
    return _are_finite(leaf) if on_devices else np.isfinite(np.asarray(leaf)).all()


_are_finite = jax.jit(all_finite)


def fingerprint(tree: PyTree) -> str:
    """Returns the SHA-256 over the sorted paths, shapes, dtypes and bytes of all leaves."""
    digest = hashlib.sha256()
    for path, leaf in leaves_by_path(tree).items():
        # The shape and dtype count too: equal bytes under another shape are another model.
        digest.update(f"{path} {tuple(leaf.shape)} {leaf.dtype}\n".encode())
        digest.update(_bytes(leaf))
    return f"sha256:{digest.hexdigest()}"


def count_parameters(tree: PyTree) -> int:
    """Returns how many numbers a tree holds."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(tree))


def _bytes(leaf: Any) -> memoryview:
    return np.ascontiguousarray(on_host(leaf)).reshape(-1).view(np.uint8).data
