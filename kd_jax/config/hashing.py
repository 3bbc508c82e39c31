"""What makes two configs the same experiment: their flat keys, without what may change between two
starts of a run."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kd_jax.config.fill import fill

FREE = ("parallel", "logging", "checkpoint.every_steps", "evaluations")
"""What may change between the starts of one run."""


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted path; tuples become lists, as in JSON."""
    if isinstance(value, Mapping) and (value or not prefix):
        return {
            path: leaf
            for key, inner in value.items()
            for path, leaf in flatten(inner, f"{prefix}{key}.").items()
        }
    return {prefix.rstrip("."): list(value) if isinstance(value, tuple) else value}


def difference(ours: Any, theirs: Any) -> str:
    """The paths at which two sections differ, or two values themselves, for a message."""
    if not isinstance(ours, Mapping):
        return f"{ours!r} and {theirs!r}"
    left, right = flatten(ours), flatten(theirs)
    return ", ".join(
        sorted(path for path in left.keys() | right.keys() if left.get(path) != right.get(path))
    )


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The flat config without what may change between two starts of one run."""
    flat = flatten(fill(config))
    return {
        path: flat[path]
        for path in sorted(flat)
        if not any(f"{path}.".startswith(f"{free}.") for free in FREE)
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that name a config in a default workdir."""
    return hashlib.sha256(json.dumps(identity(config)).encode()).hexdigest()[:8]
