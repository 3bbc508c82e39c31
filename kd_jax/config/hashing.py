"""What makes two configs the same experiment: their flat keys, without what may change between two
starts of a run."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kd_jax.config.fill import fill_resolved

FREE = (
    "parallel",
    "logging",
    "checkpoint.every_steps",
    "checkpoint.keep_finished",
    "checkpoint.outputs_dir",
    "evaluations",
)
"""What may change between the starts of one run."""


ABSENT: dict[str, tuple[Any, ...]] = dict.fromkeys(
    (
        "transfer_sets",
        "trusted_sets",
        "training.mixing",
        "teachers",
        "cached",
        "cached_as",
        "objective",
        "ema",
        "condition",
    ),
    (None, {}, []),
) | {"data": (["train"],), "allow_weak": (False,), "data.unlabelled": (None,)}
ABSENT |= {"task": ("classification",), "primary": (None,), "training.patience": (None,)}
ABSENT |= {"data.header": (None,), "data.class_names": (None,), "data.id": (None,)}
ABSENT |= {"data.labelled": (1.0,), "training.augmented_epochs": (None,)}
"""Key of the experiment or of a model -> values that its absence means as well.

A key that is new in the defaults belongs here with its default, so that the hashes of older configs
stay."""


LATER = ("training.patience", "training.augmented_epochs")
"""Keys of a model that are newer than the hashes of models `like` others: they count where they
differ from the other's."""


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested mappings by dotted path; tuples become lists, as in JSON."""
    # An empty section is kept as a leaf, so that a config with it differs from one without.
    if isinstance(value, Mapping) and (value or not prefix):
        return {
            path: leaf
            for key, inner in value.items()
            for path, leaf in flatten(inner, f"{prefix}{key}.").items()
        }
    return {prefix.rstrip("."): list(value) if isinstance(value, tuple) else value}


def difference(ours: Any, theirs: Any) -> str:
    """Returns the paths at which two sections differ, or two values themselves, for a message."""
    if not isinstance(ours, Mapping):
        return f"{ours!r} and {theirs!r}"
    # By path, so that a message can name the very key.
    left, right = flatten(ours), flatten(theirs)
    return ", ".join(
        sorted(path for path in left.keys() | right.keys() if left.get(path) != right.get(path))
    )


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the flat config without what may change between two starts of one run.

    Args:
      config: resolved; a key that is absent counts as its default.
    """
    # A config saved before a key existed must hash as it did.
    resolved = fill_resolved(config) if "models" in config else config
    flat = flatten(resolved)
    # Sorted, because the order in which keys were written means nothing.
    return {
        path: flat[path]
        for path in sorted(flat)
        # The dots at the end keep a key like `parallel_x` from matching `parallel`.
        if not any(f"{path}.".startswith(f"{free}.") for free in FREE)
        and not _is_absent(path, flat[path], resolved)
    }


def _is_absent(path: str, value: Any, config: Mapping[str, Any]) -> bool:
    """Tells whether a key has a value that its absence means as well."""
    # Keys of a model are listed in `ABSENT` without the model's name.
    kind, *rest = path.split(".")
    # Below a model the same keys are known by their names within its section.
    if kind == "models" and len(rest) > 1:
        path, section = ".".join(rest[1:]), config["models"][rest[0]]
        # There it takes the place of the other model's value, and so counts.
        if "like" in section and path not in LATER:
            return False
        if "like" in section and value != _at(config["models"][section["like"]], path):
            return False
    return value in ABSENT.get(path, ())


def _at(section: Mapping[str, Any], path: str) -> Any:
    """Returns the value at a dotted path; None where there is none."""
    found: Any = section
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def config_hash(config: Mapping[str, Any]) -> str:
    """Returns eight hexadecimal digits that name a config in a default workdir."""
    # Eight digits keep folder names short and are enough to tell a user's configs apart.
    return hashlib.sha256(json.dumps(identity(config)).encode()).hexdigest()[:8]
