"""A finished model on disk: its variables as safetensors, and what they are. This is what teaches
and is deployed."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from kd_jax.core.json_files import write_json
from kd_jax.core.pytree import fingerprint, on_host
from kd_jax.core.types import PyTree, Variables

log = logging.getLogger("kd_jax")


@dataclass(frozen=True)
class SavedModel:
    """A model that won't change any more.

    Attributes:
      variables: parameters and BatchNorm statistics, in memory; the knowledge mapping network is
        not among them.
      description: JSON: "spec", as the config has it; "architecture", what `models.build` makes the
        module of; "view", "inputs" (name -> shape of one example), "columns" of the data, "dtype",
        "class_names", "fingerprint", "train_seconds", "step"; "condition", where there is one.
      condition_map: parameters of the map from a teacher's output to its input, which it needs with
        that teacher only.
    """

    variables: Variables
    description: dict[str, Any]
    condition_map: PyTree = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Writes `model.safetensors`, then `finished.json`, whose presence says that all is whole.

        The map of a condition is in `condition.safetensors`: `model.safetensors` is the student
        alone."""
        write_variables(folder / "model.safetensors", self.variables)
        if self.condition_map:
            write_variables(folder / "condition.safetensors", self.condition_map)
        write_json(folder / "finished.json", self.description)


def write_variables(path: Path, variables: Variables) -> None:
    """Writes variables as safetensors, by path of the leaf, whole or not at all."""
    flat = _flat(variables)  # Every process takes part in gathering what is spread over them.
    if jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A rename replaces the file at once, so a kill never leaves half a file under its name.
        temporary = path.with_name(path.name + ".tmp")
        save_file(flat, temporary)
        temporary.replace(path)


def load(folder: Path) -> SavedModel | None:
    """Reads a finished model; None where there is none.

    One whose files are damaged, or don't match their fingerprint, is announced and counts as not
    finished: whoever asks makes it again, and the checkpoints beside it still hold what was
    trained."""
    if not (folder / "finished.json").exists():
        return None
    try:
        description = json.loads((folder / "finished.json").read_text())
        # The safetensors format has no checksum; only the fingerprint shows a flipped bit.
        variables, condition_map = _read(folder / "model.safetensors"), {}
        whole = fingerprint(variables) == description["fingerprint"]
        if "condition" in description:
            condition_map = _read(folder / "condition.safetensors")
            whole &= fingerprint(condition_map) == description["condition"]["fingerprint"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        log.warning("the finished model in %s can't be read (%s); it is made again", folder, error)
        return None
    # Readable but altered weights are the worse case: they would teach without any error.
    if not whole:
        log.warning(
            "the finished model in %s differs from its fingerprint; it is made again", folder
        )
        return None
    return SavedModel(variables, description, condition_map)


def load_required(folder: Path) -> SavedModel:
    """Reads a finished model of another run.

    Raises:
      ValueError: if there is none, or it is damaged.
    """
    found = load(folder)
    if found is None:
        raise ValueError(
            f"restore: {folder} holds no finished model (model.safetensors and finished.json)"
        )
    return found


def _read(path: Path) -> PyTree:
    return flax.traverse_util.unflatten_dict(load_file(path), sep="/")


def _flat(variables: PyTree) -> dict[str, np.ndarray]:
    # A safetensors file is one flat dictionary, so nested names are joined to paths.
    flat = flax.traverse_util.flatten_dict(dict(variables), sep="/")
    return {path: np.ascontiguousarray(on_host(leaf)) for path, leaf in flat.items()}
