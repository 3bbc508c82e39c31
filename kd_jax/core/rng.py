"""Named random streams: a draw depends on the seed, its stream's name and the step, never on what
was drawn before."""

import zlib
from typing import Any

import jax


def fold_name(key: jax.Array, name: str) -> jax.Array:
    """A key of its own for `name`; the same on every machine and in every process."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def stream(seed: int, name: str, step: Any = 0) -> jax.Array:
    """The key of stream `name` at `step`."""
    return jax.random.fold_in(fold_name(jax.random.key(seed), name), step)


def derived_seed(seed: int, name: str, owner: str) -> int:
    """A 31-bit seed for what takes an integer (a shuffle, a library), from the seed, a stream and
    who draws."""
    return zlib.crc32(f"{seed}/{name}/{owner}".encode()) & 0x7FFFFFFF
