"""Derives random keys and seeds from named streams.

A draw depends on the seed, its stream's name and the step, never on what was drawn before; so an
interrupted run that continues draws exactly what it would have drawn.
"""

import zlib
from typing import Any

import jax


def fold_name(key: jax.Array, name: str) -> jax.Array:
    """Returns a key of its own for `name`, the same on every machine and in every process."""
    # CRC-32 and not `hash`, which Python seeds anew in every process.
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def stream(seed: int, name: str, step: Any = 0) -> jax.Array:
    """Returns the key of stream `name` at `step`."""
    return jax.random.fold_in(fold_name(jax.random.key(seed), name), step)


def derived_seed(seed: int, name: str, owner: str) -> int:
    """Returns a 31-bit seed for code that takes an integer, such as a shuffle or a library.

    Args:
      seed: the run's.
      name: of the stream.
      owner: what draws, such as a model's name; each gets another seed.
    """
    return zlib.crc32(f"{seed}/{name}/{owner}".encode()) & 0x7FFFFFFF
