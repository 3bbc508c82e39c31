"""How a published format describes a network and names its tensors, both ways."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.core.types import Variables

LEAVES = {
    "kernel": "weight",
    "embedding": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
"""Our leaf -> PyTorch's."""

LANGUAGE_HEAD = ("language_dense", "language_norm", "language_bias")
"""Layers of a head that predicts tokens; its last product is the table of word embeddings."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightFormat:
    """One published format of one family of networks.

    Attributes:
      names: path of a layer of ours, such as `block_0/qkv`, or of a parameter that stands alone,
        such as `class_token` -> the file's names, whose tensors lie side by side along our last
        axis.
      heads: layers that are made anew where the file has none, or one for another number of
        classes.
      prefix: of the names of everything but the task's own layers; a file of the bare network goes
        without.
      outside: layers whose names have no prefix.
      unused: beginnings of the names of tensors that a file may hold and no module of ours needs.
      alone: parameters that stand alone, without weight and bias.
      options: config.json's content -> the options of `models.build`, without `num_classes`; None
        where there is no config.json.
      config: options of a module -> what config.json says of it; ValueError where the format can't
        say it. None where there is no config.json.
      architecture: the class of transformers that opens a folder of this format.
      bare: the class that opens the network without the task's own layers; none for images.
      others: `predicts` of a module, other than "example" -> the format of the same network that
        gives these.
    """

    names: Callable[[str], tuple[str, ...]]
    heads: tuple[str, ...]
    prefix: str = ""
    outside: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    options: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    config: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    architecture: str = ""
    bare: str = ""
    others: "Mapping[str, WeightFormat]" = field(default_factory=dict)

    def of(self, predicts: str) -> "WeightFormat":
        """Returns the format of the network that gives other predictions.

        Raises:
          ValueError: if there is none.
        """
        if predicts == "example":
            return self
        if predicts not in self.others:
            raise ValueError(f"{self.architecture} has no counterpart that predicts by {predicts}")
        return self.others[predicts]

    def sources(self, leaf: str, *, prefixed: bool = False) -> list[str]:
        """Returns the file's names of what makes up a leaf, `params/block_0/qkv/bias` -> three of
        them.
        """
        layer, last = leaf.partition("/")[2], ""
        if layer not in self.alone:
            layer, _, kind = layer.rpartition("/")
            last = f".{LEAVES[kind]}"
        prefix = self.prefix if prefixed and layer not in self.outside else ""
        return [f"{prefix}{name}{last}" for name in self.names(layer)]


class Own(WeightFormat):
    """Our own format: a leaf is named by its path and kept as it is.

    Args:
      heads: as `WeightFormat.heads`.
    """

    def __init__(self, heads: tuple[str, ...] = ("classifier", "distillation_classifier")):
        super().__init__(lambda layer: (layer,), heads)

    def of(self, predicts: str) -> "WeightFormat":
        """Returns the same names with the heads of other predictions."""
        others = {"embedding": (), "vocabulary": LANGUAGE_HEAD}
        return Own(others[predicts]) if predicts in others else Own()

    def sources(self, leaf: str, *, prefixed: bool = False) -> list[str]:
        """Returns the leaf itself."""
        del prefixed
        return [leaf]


def read(
    layout: WeightFormat,
    tensors: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    owner: str,
) -> dict[str, jax.Array]:
    """Turns a file's tensors into our leaves, in float32.

    Args:
      layout: of the file.
      tensors: by the file's names, without prefix.
      shapes: path of a leaf, `params/...` or `batch_stats/...` -> the shape it must have.
      owner: the file, for messages.

    Raises:
      ValueError: naming what is missing, misshapen or left over.
    """
    # Every tensor is accounted for, so that no part of a network is left random in silence.
    used = {name for leaf in shapes for name in layout.sources(leaf)}
    if missing := sorted(used - set(tensors)):
        hint = (
            '; without a trained pooler use pooling="mean"'
            if missing[0].startswith("pooler.")
            else ""
        )
        raise ValueError(f"{owner} lacks the tensors {missing}{hint}")
    left = sorted(set(tensors) - used)
    # A language model's head, for example, is no part of a classifier.
    harmless = [name for name in left if name.startswith(layout.unused)] if layout.unused else []
    if extra := sorted(set(left) - set(harmless)):
        raise ValueError(f"{owner} has tensors that belong to nothing in the module: {extra}")
    if harmless:
        log.debug("%s: not used, as this module has no such part: %s", owner, harmless)
    return {
        leaf: _assemble(layout.sources(leaf), tensors, shape, owner)
        for leaf, shape in shapes.items()
    }


def _assemble(
    names: list[str], tensors: Mapping[str, np.ndarray], shape: tuple[int, ...], owner: str
) -> jax.Array:
    # Our leaf may join several tensors, such as query, key and value.
    part = (*shape[:-1], shape[-1] // len(names))
    for name in names:
        want, tensor = outwards(np.broadcast_to(0.0, part), name).shape, tensors[name]
        if tensor.shape != want or not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise ValueError(
                f"{owner}: tensor {name!r} must be floats {want}, got {tensor.dtype} {tensor.shape}"
            )
    return jnp.asarray(
        np.concatenate([inwards(tensors[name], name) for name in names], axis=-1), jnp.float32
    )


def write(layout: WeightFormat, variables: Variables) -> dict[str, np.ndarray]:
    """Turns our variables into a file's tensors, by their full names; the inverse of `read`."""
    tensors = {}
    for leaf, value in flax.traverse_util.flatten_dict(dict(variables), sep="/").items():
        # Names as the format's own library writes them.
        names = layout.sources(leaf, prefixed=True)
        for name, part in zip(names, np.split(np.asarray(value), len(names), axis=-1), strict=True):
            tensors[name] = np.ascontiguousarray(outwards(part, name))
    return tensors


def inwards(tensor: np.ndarray, name: str) -> np.ndarray:
    """Transposes a tensor of PyTorch's as we keep it: kernels [out, in, ...] become [..., in,
    out].
    """
    if not _is_kernel(tensor, name):
        return tensor
    return np.moveaxis(tensor, (0, 1), (-1, -2))


def outwards(array: np.ndarray, name: str) -> np.ndarray:
    """Inverts `inwards`."""
    if not _is_kernel(array, name):
        return array
    return np.moveaxis(array, (-1, -2), (0, 1))


def _is_kernel(array: np.ndarray, name: str) -> bool:
    tables = ("embeddings.weight", "relative_attention_bias.weight")
    return name.endswith(".weight") and array.ndim >= 2 and not name.endswith(tables)
