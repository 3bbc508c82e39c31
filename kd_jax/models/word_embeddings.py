"""Word embeddings that a model takes over from another one, such as its teacher."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from kd_jax.core.options import check_keys
from kd_jax.core.types import PyTree, Variables
from kd_jax.models.network import WORDS
from kd_jax.models.presets import PRESETS
from kd_jax.models.registry import MODELS
from kd_jax.models.weights.open import Published

KEY = "embeddings"
"""Of a model's section: `dict(from_model=NAME)`, or `dict(pretrained=...)`."""

OPTIONS = {"from_model": False, "pretrained": False, "rank": False, "trainable": False}
PATH = f"params/{WORDS}/embedding"


def check_options(model: Mapping[str, Any]) -> None:
    """Checks the `embeddings` of a model's section, where it has them.

    Raises:
      ValueError: if it isn't a section with one source, or the model has nowhere to put them.
    """
    if KEY not in model:
        return
    options = model[KEY]
    if not isinstance(options, Mapping):
        raise ValueError(
            f"model.{KEY} must be a section such as dict(from_model='teacher'), got {options!r}"
        )
    check_keys(options, OPTIONS, f"model.{KEY}")
    if len({"from_model", "pretrained"} & options.keys()) != 1:
        raise ValueError(f"model.{KEY} must have one of from_model and pretrained")
    for key in ("from_model", "pretrained"):
        if key in options and (not isinstance(options[key], str) or not options[key]):
            raise ValueError(f"model.{KEY}.{key} must be a name, got {options[key]!r}")
    rank = options.get("rank")
    # In Python True is an int.
    if rank is not None and (type(rank) is not int or rank < 1):
        raise ValueError(f"model.{KEY}.rank must be an integer from 1 on or None, got {rank!r}")
    if not isinstance(options.get("trainable", True), bool):
        raise ValueError(
            f"model.{KEY}.trainable must be True or False, got {options['trainable']!r}"
        )
    if "name" not in model:
        raise ValueError(f"model.{KEY} is for a model by name; published weights have their own")
    width_key(model)


def with_width(model: Mapping[str, Any], width: int | None = None) -> dict[str, Any]:
    """Returns a model's section without `embeddings`, and with their width.

    Args:
      model: the section, checked.
      width: of the embeddings; None where they can't be opened yet: any that the model can have.

    Raises:
      ValueError: if the section says another width.
    """
    spec = {key: value for key, value in model.items() if key != KEY}
    if KEY not in model:
        return spec
    key = width_key(spec)
    # Heads of an even width fit every architecture.
    given = spec.setdefault(key, width or 2 * spec.get("heads", 1))
    if width is not None and given != width:
        raise ValueError(
            f"model.{key} is {given}, and the embeddings that it takes over are {width} wide; leave"
            f" it out, or say model.{KEY}.rank={given}"
        )
    return spec


def width_key(model: Mapping[str, Any]) -> str:
    """Returns the option with the width of a model's word embeddings.

    Args:
      model: its section, by name.

    Raises:
      ValueError: if it has none.
    """
    # ELECTRA's are narrower than its blocks.
    if model.get("embedding_width") is not None:
        return "embedding_width"
    name = PRESETS.get(str(model["name"]), model)["name"]
    known = {
        each: next((key for key in ("embedding", "width") if key in fields), None)
        for each, module in MODELS.items()
        if "vocabulary_size" in (fields := {field.name for field in dataclasses.fields(module)})
    }
    key = known.get(name)
    if key is None:
        raise ValueError(
            f"model.{KEY} is for models that read words, {', '.join(sorted(known))}; got {name!r}"
        )
    return key


def table_of(source: Published) -> Any:
    """Returns the word embeddings [V, D] of opened weights, an array or its shape.

    Raises:
      ValueError: if there are none.
    """
    try:
        return source.tensors[source.layout.sources(PATH)[0]]
    # What reads images has no such name, or no tensor of it.
    except (KeyError, ValueError):
        raise ValueError(f"{source.owner} has no word embeddings") from None


def width_of(table: Any, rank: int | None) -> int:
    """Returns the width of what is taken over.

    Raises:
      ValueError: if the rank is larger than the table's width.
    """
    width = table.shape[1]
    if rank is not None and rank > width:
        raise ValueError(f"model.{KEY}.rank is {rank}, and the embeddings are {width} wide")
    return rank or width


def reduce(table: np.ndarray, rank: int | None) -> np.ndarray:
    """Returns embeddings [V, rank] whose inner products are the nearest to those of [V, D].

    These are the left singular vectors times their singular values; None: the table as it is.
    """
    if rank is None:
        return table
    wide = np.asarray(table, np.float64)
    # The Gram matrix is small; singular vectors of the whole table would take long.
    values, vectors = np.linalg.eigh(wide.T @ wide)
    axes = vectors[:, np.argsort(-values)[:rank]]
    # Eigenvectors have no sign of their own.
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), np.arange(rank)] < 0, -1, 1)
    return (wide @ axes).astype(table.dtype)


def check_fit(variables: Variables, rows: int, width: int) -> None:
    """Checks that word embeddings fit a model; shapes in place of its variables will do.

    Raises:
      ValueError: if the model has no place for them, more tokens, or another width.
    """
    params: Any = variables["params"]
    if "embedding" not in params.get(WORDS, {}):
        raise ValueError(f"model.{KEY}: the model has no module {WORDS!r} to put them in")
    tokens, own = params[WORDS]["embedding"].shape
    if rows < tokens:
        raise ValueError(f"model.{KEY} has rows for {rows} tokens, and the view has {tokens}")
    if width != own:
        raise ValueError(f"model.{KEY} is {width} wide, and the model's words are {own} wide")


def put(variables: Variables, table: np.ndarray) -> Variables:
    """Returns variables with other word embeddings, the first rows of a table [V or more, D].

    Raises:
      ValueError: as `check_fit`.
    """
    check_fit(variables, *table.shape)
    params: Any = variables["params"]
    old = params[WORDS]["embedding"]
    new = np.asarray(table[: len(old)], old.dtype)
    return {**variables, "params": {**params, WORDS: {**params[WORDS], "embedding": new}}}


def keep(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns an optimizer that leaves word embeddings as they are, and stores nothing for them."""

    def label(path: tuple[Any, ...], leaf: Any) -> str:
        del leaf
        # Beside the model's parameters stand those of the terms.
        return "keep" if [key.key for key in path[:2]] == ["model", WORDS] else "train"

    def labels(params: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(label, params)

    return optax.partition({"train": optimizer, "keep": optax.set_to_zero()}, labels)
