"""The finished model that is exported, apart from the run it came from."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from tokenizers import Tokenizer

from kd_jax.core.json_files import read_facts, read_own
from kd_jax.core.types import Array, Variables
from kd_jax.data.views.text import padding_id
from kd_jax.data.views.tokenizer_file import read_tokenizer
from kd_jax.models import registry, windows
from kd_jax.models.calls import accepted, as_output, mode
from kd_jax.models.head import rescale
from kd_jax.models.layers import transformer
from kd_jax.tasks import CLASSIFICATION, Task, read_task
from kd_jax.training import trained_model

ARGUMENTS = ("images", "input_ids", "attention_mask", "token_type_ids")
"""What modules take, in the order in which they take it."""

DTYPES = {
    "images": np.float32,
    "input_ids": np.int32,
    "attention_mask": np.bool_,
    "token_type_ids": np.int32,
}

log = logging.getLogger(__name__)

REMEDY = "start the run again with its config, and it is written anew"


class Unsupported(ValueError):
    """A format can't hold this student, or what writes it is not installed."""


@dataclass(frozen=True)
class Student:
    """A finished model.

    Attributes:
      name: in its run.
      module: without scanned blocks, whatever it was trained with.
      variables: as the module takes them.
      description: what `finished.json` says.
      tokenizer: the file, None for image models.
      results: the run's results.json, `{}` where it isn't finished.
    """

    name: str
    module: nn.Module
    variables: Variables
    description: Mapping[str, Any]
    tokenizer: Path | None
    results: Mapping[str, Any]

    @property
    def class_names(self) -> list[str]:
        """Returns the names of the K classes."""
        return list(self.description["class_names"])

    def shapes(self, batch: Any, length: Any = None) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns its inputs' shapes by argument.

        Args:
          batch: the number of rows, or a symbol for it.
          length: of texts, in tokens, or a symbol for it; None: the view's `max_length`.
        """
        found = self.description["inputs"]
        # In the fixed order of the arguments, since exported programs take inputs by position.
        return {
            name: jax.ShapeDtypeStruct(
                (batch, *(found[name] if length is None or name == "images" else (length,))),
                DTYPES[name],
            )
            for name in ARGUMENTS
            if name in found
        }

    @cached_property
    def max_length(self) -> int | None:
        """Returns the most tokens that it was trained on; None for images."""
        return self.description["inputs"].get("input_ids", [None])[0]

    @cached_property
    def lengths(self) -> tuple[int | None, ...]:
        """Returns some numbers of tokens that it reads, the largest first; `(None,)` for images.

        The largest alone where the module needs it as a number when it is traced.
        """
        if self.max_length is None:
            return (None,)
        if not self.open_shapes[1]:
            return (self.max_length,)
        return tuple(dict.fromkeys((self.max_length, (self.max_length + 1) // 2, 1)))

    @cached_property
    def open_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], bool]:
        """Returns shapes with symbols for all that is open, and whether the length of texts is."""
        if self.max_length is not None:
            limit = [f"T <= {self.max_length}"]
            shapes = self.shapes(*export.symbolic_shape("B, T", constraints=limit))
            # Only tracing tells; what a module raises there, is of any kind.
            try:
                jax.eval_shape(self.logits, *shapes.values())
            except Exception as error:
                log.debug("the length stays fixed: %s", error)
            else:
                return shapes, True
        return self.shapes(export.symbolic_shape("B")[0]), False

    def ready_tokenizer(self) -> Tokenizer:
        """Returns its tokenizer, set to cut texts to `max_length` and to pad them to the longest
        of a batch, so that whoever opens the file alone reads texts as in training."""
        assert self.tokenizer is not None
        assert self.max_length is not None
        tokenizer = read_tokenizer(self.tokenizer)
        padding = padding_id(tokenizer)
        tokenizer.enable_truncation(self.max_length)
        tokenizer.enable_padding(pad_id=padding, pad_token=tokenizer.id_to_token(padding))
        return tokenizer

    def logits(self, *inputs: Array) -> jax.Array:
        """Computes `[B, K]` of inputs in the order of `shapes`."""
        return apply(self.module, self.variables, dict(zip(self.shapes(1), inputs, strict=True)))


def apply(module: nn.Module, variables: Variables, inputs: Mapping[str, Array]) -> jax.Array:
    """Computes a module's logits `[B, K]`, or `[B, T, K]` of tokens, of its inputs by argument;
    of texts in windows the means over them."""
    own, parts = windows.split(inputs)
    given: dict[str, Any] = own | mode(accepted(type(module).__call__), train=False)
    found: Any = module.apply(variables, **given)
    output = as_output(found, {}, f"the module {type(module).__name__}")
    return windows.join(output, parts).logits


def open_student(workdir: Path, name: str | None = None) -> Student:
    """Opens a finished model of a run.

    Args:
      workdir: the run's folder.
      name: of the model; None: the one that the config compares as the student.

    Raises:
      ValueError: if the folder is no run's, there is no such model, or it isn't finished.
    """
    if not (workdir / "config.json").is_file():
        raise ValueError(f"{workdir} is no run's folder: it has no config.json")
    # The config and not results.json, so that models of an unfinished run can be exported.
    config = read_own(workdir / "config.json", REMEDY)
    name = str(name or config["compare"]["student"])
    if name not in config["models"]:
        raise ValueError(
            f"the run in {workdir} has no model {name!r}; it has"
            f" {', '.join(sorted(config['models']))}"
        )
    # Damaged files count as unfinished here too: nothing wrong may be deployed.
    found = trained_model.load(workdir / name)
    if found is None:
        raise ValueError(
            f"{name!r} in {workdir} is not finished; start the run again and it goes on"
        )
    if "architecture" not in found.description:
        raise ValueError(
            f"{name!r} in {workdir} was finished by an older version, which did not keep what"
            f" export needs"
        )
    # Results only serve the model card, so the export works without them.
    results = read_facts(workdir / "results.json", (), "the model card goes without results")
    tokenizer = workdir / name / "tokenizer.json"
    module, variables = _unscanned(found)
    description = found.description
    task = task_of(description)
    # Who opens an export alone knows nothing of the training rows' mean and deviation.
    if (units := task.into_units()) is not None:
        variables = jax.tree.map(jnp.asarray, rescale(variables, *units))
        description = description | {"task": type(task)().describe()}
    return Student(
        name,
        module,
        variables,
        description,
        tokenizer if tokenizer.is_file() else None,
        results or {},
    )


def task_of(description: Mapping[str, Any]) -> Task:
    """Returns the task that a finished model's description, or an export's, names."""
    # Models of before there were tasks are all classifiers.
    return read_task(description.get("task", CLASSIFICATION.describe()))


def _unscanned(found: trained_model.Contents) -> tuple[nn.Module, Variables]:
    architecture, variables = dict(found.description["architecture"]), found.variables
    # A scan stacks all blocks in one tensor; the formats that people deploy want one for each.
    if architecture.get("scan"):
        architecture["scan"] = False
        variables = {**variables, "params": transformer.unstack_blocks(variables["params"])}
    return registry.build(architecture), jax.tree.map(jnp.asarray, variables)
