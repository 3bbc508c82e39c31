"""A finished model: ready to teach and to be evaluated, and as safetensors with its description on
disk."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import flax.traverse_util
import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from kd_jax.config.schema import ModelPlan
from kd_jax.core import seal
from kd_jax.core.json_files import write_json
from kd_jax.core.pytree import fingerprint, on_host
from kd_jax.core.types import PyTree, Variables
from kd_jax.data.source import Source
from kd_jax.models.projectors.conditioning import Condition

log = logging.getLogger("kd_jax")


class StoredOnly(Protocol):
    """Outputs of a model that isn't here."""

    def on(self, source: Source) -> Any:
        """Returns its `teachers.outputs.Outputs` on a source's rows; None if it has none."""
        ...


class Held:
    """A finished model's variables: on the devices from their first use until they are let go.

    Args:
      variables: the arrays, or shapes in their place.
      place: puts them on the devices; None: they stay as they are.
    """

    def __init__(self, variables: Variables, place: Callable[[Variables], Variables] | None = None):
        self._variables, self._place, self._placed = variables, place, False

    @property
    def shapes(self) -> Variables:
        """Returns their shapes and dtypes, wherever they are."""
        return jax.eval_shape(lambda variables: variables, self._variables)

    def __call__(self) -> Variables:
        """Returns the variables, on the devices."""
        if not self._placed and self._place is not None:
            self._variables, self._placed = self._place(self._variables), True
        return self._variables

    def release(self) -> None:
        """Moves them into the host's memory, until they are used again.

        What is spread over processes is gathered, so all of them have to call it.
        """
        # Also those that were trained here and not yet asked for. Copied, since NumPy's view of an
        # array of a CPU device holds that.
        self._variables = jax.tree.map(
            lambda leaf: np.require(on_host(leaf), requirements="O"), self._variables
        )
        self._placed = False


@dataclass(frozen=True)
class TrainedModel:
    """A model that won't change any more.

    Attributes:
      plan: its section.
      network: how it is applied; an ensemble stands where a network stands.
      held: gives its variables; None: it has none of its own, see `members` and `stored`.
      description: what `finished.json` says of it: "spec", as the config has it; "architecture",
        what `registry.build` makes the module of; "view", "inputs" (name -> shape of one example),
        "columns" of the data, "dtype", "class_names", "fingerprint", "train_seconds", "step";
        "condition", where there is one.
      home: the folder it was trained in, where its outputs are kept.
      views: what it reads of a batch.
      condition: the teacher's output that it may be given, or None.
      condition_map: parameters of the map from that output to its input, which it needs with that
        teacher only.
      stored: where only its outputs on the data are known, these; its network reads them.
      members: of an ensemble, by name; their variables are its own.
    """

    plan: ModelPlan
    network: Any
    held: Held | None
    description: Mapping[str, Any]
    home: Path
    views: tuple[Mapping[str, Any], ...]
    condition: Condition | None = None
    condition_map: PyTree = field(default_factory=dict)
    stored: StoredOnly | None = None
    members: Mapping[str, "TrainedModel"] = field(default_factory=dict)

    @property
    def variables(self) -> Variables:
        """Returns parameters and BatchNorm statistics, on the devices; the knowledge mapping
        network is not among them."""
        if self.held is None:
            return {name: member.variables for name, member in self.members.items()}
        return self.held()

    @property
    def shapes(self) -> Variables:
        """Returns the shapes and dtypes of its variables, wherever they are."""
        if self.held is None:
            return {name: member.shapes for name, member in self.members.items()}
        return self.held.shapes

    def release(self) -> None:
        """Lets the devices go on without its variables, until they are used again."""
        for member in self.members.values():
            member.release()
        if self.held is not None:
            self.held.release()

    @property
    def parameters(self) -> int | None:
        """Counts its parameters, BatchNorm statistics left out; None where nobody knows them."""
        return self.description["parameters"]


class Contents(NamedTuple):
    """What lies on disk of a finished model; see `TrainedModel`, the arrays in memory."""

    variables: Variables
    description: dict[str, Any]
    condition_map: PyTree


def save(folder: Path, contents: Contents, tokenizer: str | None = None) -> None:
    """Writes `model.safetensors`, then `finished.json`, whose presence says that all is whole.

    The map of a condition is in `condition.safetensors`: `model.safetensors` is the student alone.

    Args:
      folder: where; made if need be.
      contents: of the model.
      tokenizer: the JSON of the tokenizer that it reads texts with, for `tokenizer.json`.
    """
    write_variables(folder / "model.safetensors", contents.variables)
    if contents.condition_map:
        write_variables(folder / "condition.safetensors", contents.condition_map)
    # The model means nothing without its tokenizer, so both lie in one folder.
    if tokenizer is not None and jax.process_index() == 0:
        temporary = folder / f"{seal.TOKENIZER}.tmp"
        temporary.write_text(tokenizer, encoding="utf-8")
        temporary.replace(folder / seal.TOKENIZER)
    write_json(folder / "finished.json", seal.seal(contents.description, tokenizer))


def write_variables(path: Path, variables: Variables) -> None:
    """Writes variables as safetensors, by path of the leaf, whole or not at all."""
    flat = _flat(variables)  # Every process takes part in gathering what is spread over them.
    if jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A rename replaces the file at once, so a kill never leaves half a file under its name.
        temporary = path.with_name(path.name + ".tmp")
        save_file(flat, temporary)
        temporary.replace(path)


def load(folder: Path) -> Contents | None:
    """Reads a finished model; None where there is none.

    One whose files are damaged, or don't match their checksums, is announced and counts as not
    finished: whoever asks makes it again, and the checkpoints beside it still hold what was
    trained."""
    if not (folder / "finished.json").exists():
        return None
    try:
        description = json.loads((folder / "finished.json").read_text())
        altered = seal.problem(folder, "finished.json", description)
        # The safetensors format has no checksum; only the fingerprint shows a flipped bit.
        variables, condition_map = _read(folder / "model.safetensors"), {}
        if fingerprint(variables) != description["fingerprint"]:
            altered = "model.safetensors differs from its fingerprint"
        if "condition" in description:
            condition_map = _read(folder / "condition.safetensors")
            if fingerprint(condition_map) != description["condition"]["fingerprint"]:
                altered = "condition.safetensors differs from its fingerprint"
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        log.warning("the finished model in %s can't be read (%s); it is made again", folder, error)
        return None
    # Readable but altered files are the worse case: they would teach without any error.
    if altered:
        log.warning("the finished model in %s was altered (%s); it is made again", folder, altered)
        return None
    return Contents(variables, description, condition_map)


def load_required(folder: Path) -> Contents:
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
