"""An npz file of a CIFAR ResNet in the layout of akamaster's PyTorch models -> a Linen module and its variables.

https://github.com/akamaster/pytorch_resnet_cifar10 names its tensors conv1, bn1, layerS.I.convN, layerS.I.bnN, linear;
kernels are [out, in, height, width].
"""

import logging
import pathlib
import re
import zipfile
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from kd_jax import models
from kd_jax.types import Variables

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
"""Our leaf -> the file's."""

OUTER = {"conv": "conv1", "norm": "bn1", "classifier": "linear"}
"""Our layer outside the blocks -> the file's."""

log = logging.getLogger(__name__)


def load(path: pathlib.Path, num_classes: int | None = None, *, seed: int = 0,
         **overrides: Any) -> tuple[nn.Module, Variables]:  # fmt: skip
    """Loads a CIFAR ResNet of any depth and width with parameter-free shortcuts.

    Args:
      path: the npz file; pickled objects in it are refused.
      num_classes: K; None: as many as the file's classifier has.
      seed: of the classifier, where the file's has another number of classes; a warning says so.
      **overrides: none; the file says it all.

    Returns:
      The module, as `models.build` builds it, and its variables in float32.

    Raises:
      ValueError: if the file is absent, damaged or no such network, if tensors are missing, have another shape or
        belong to nothing in the module, or if there are overrides.
    """
    if overrides:
        raise ValueError(f"{path} fixes all options of the model; drop {', '.join(sorted(overrides))}")
    tensors = _read(path)
    classes = num_classes or tensors["linear.weight"].shape[0]
    module = models.build(_options(path, tensors) | {"num_classes": classes})
    image = jax.ShapeDtypeStruct((1, 32, 32, tensors["conv1.weight"].shape[1]), jnp.float32)
    expected: Any = flax.traverse_util.flatten_dict(jax.eval_shape(module.init, jax.random.key(0), image), sep="/")
    leaves = {path: leaf.shape for path, leaf in expected.items()}
    if tensors["linear.weight"].shape[0] != classes:
        log.warning("%s has no classifier for %d classes; a random one takes its place", path, classes)
        kernel = nn.initializers.lecun_normal()(jax.random.key(seed), leaves["params/classifier/kernel"], jnp.float32)
        tensors |= {"linear.weight": np.asarray(kernel).T, "linear.bias": np.zeros(classes, np.float32)}
    if extra := sorted(set(tensors) - {source_of(leaf) for leaf in leaves}):
        raise ValueError(f"{path} has tensors that belong to nothing in the module: {extra}")
    found = {leaf: _parameter(path, source_of(leaf), shape, tensors) for leaf, shape in leaves.items()}
    return module, flax.traverse_util.unflatten_dict(found, sep="/")


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            tensors = {name: file[name] for name in file.files if not name.endswith("num_batches_tracked")}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is no npz file of arrays, or is damaged: {error}") from error
    if missing := sorted({"conv1.weight", "linear.weight", "layer3.0.conv1.weight"} - set(tensors)):
        raise ValueError(f"{path} is no CIFAR ResNet in akamaster's layout: it lacks {missing}")
    return tensors


def _options(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    blocks = {name.split(".")[1] for name in tensors if name.startswith("layer1.")}
    if any(re.match(r"layer\d\.\d+\.(shortcut|downsample)", name) for name in tensors):
        raise ValueError(f"{path} has shortcuts with weights; only option A, without, is supported")
    widths = tuple(tensors.get(f"layer{i}.0.conv1.weight", np.zeros(1)).shape[0] for i in (1, 2, 3))
    stem = tensors["conv1.weight"].shape[0]
    return {"name": "cifar_resnet", "depth": 6 * len(blocks) + 2, "stem": stem, "widths": widths, "shortcut": "pad"}


def source_of(leaf: str) -> str:
    """The file's name of one of our leaves: `params/stage_0_1/conv_0/kernel` -> `layer1.1.conv1.weight`."""
    _, *block, layer, last = leaf.split("/")
    if not block:
        return f"{OUTER[layer]}.{LEAVES[last]}"
    _, stage, number = block[0].split("_")
    kind, index = layer.split("_")
    kind = {"conv": "conv", "norm": "bn"}[kind]
    return f"layer{int(stage) + 1}.{number}.{kind}{int(index) + 1}.{LEAVES[last]}"


def _parameter(path: pathlib.Path, name: str, shape: tuple[int, ...], tensors: dict[str, np.ndarray]) -> jax.Array:
    if name not in tensors:
        raise ValueError(f"{path} lacks the tensor {name!r}")
    tensor = tensors[name]
    tensor = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
    if tensor.shape != shape or not np.issubdtype(tensor.dtype, np.floating):
        raise ValueError(
            f"{path}: tensor {name!r} must be floats, {shape} as kernels are here, got {tensor.dtype} {tensor.shape}"
        )
    return jnp.asarray(tensor, jnp.float32)
