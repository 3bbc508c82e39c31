"""PyTorch's tensors in one file without a description: torchvision's VGG and ResNet, akamaster's
  CIFAR ResNet.

What the network is follows from the tensors' names and shapes. akamaster's models are those of
https://github.com/akamaster/pytorch_resnet_cifar10.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from kd_jax.models.image import vgg
from kd_jax.models.weights.formats.weight_format import WeightFormat

Tensors = Mapping[str, np.ndarray]


def recognise(tensors: Tensors) -> tuple[WeightFormat, dict[str, Any]]:
    """Recognises a file's layout; returns it and the options of `models.build`, `num_classes`
    included.

    Raises:
      ValueError: if they are of no network that is known.
    """
    for mark, describe in KNOWN.items():
        if mark in tensors:
            return describe(tensors)
    raise ValueError(
        "these tensors are of no known network: neither torchvision's VGG or ResNet nor akamaster's"
        " CIFAR ResNet,"
        f" which have {' or '.join(map(repr, KNOWN))}"
    )


def _akamaster(tensors: Tensors) -> tuple[WeightFormat, dict[str, Any]]:
    # Shortcuts with weights are another network, with the same names otherwise.
    if any(re.match(r"layer\d\.\d+\.(shortcut|downsample)", name) for name in tensors):
        raise ValueError("akamaster's ResNet has no weights in its shortcuts, these tensors have")
    widths = tuple(_size(tensors, f"layer{i}.0.conv1.weight", 0) for i in (1, 2, 3))
    options = {
        "name": "cifar_resnet",
        "depth": 6 * _count(tensors, r"layer1\.(\d+)\.") + 2,
        "shortcut": "pad",
        "stem": _size(tensors, "conv1.weight", 0),
        "widths": widths,
    }
    return AKAMASTER, options | _classes(tensors, "linear")


def _resnet(tensors: Tensors) -> tuple[WeightFormat, dict[str, Any]]:
    bottleneck = "layer1.0.conv3.weight" in tensors
    square = (
        "conv2" if bottleneck else "conv1"
    )  # The 3x3 convolution that the stage's width counts.
    options = {
        "name": "resnet",
        "stem": _size(tensors, "conv1.weight", 0),
        "bottleneck": bottleneck,
        "blocks": tuple(_count(tensors, rf"layer{i}\.(\d+)\.") for i in (1, 2, 3, 4)),
        "widths": tuple(_size(tensors, f"layer{i}.0.{square}.weight", 0) for i in (1, 2, 3, 4)),
    }
    return RESNET, options | _classes(tensors, "fc")


def _resnet_names(layer: str, classifier: str) -> tuple[str, ...]:
    outer = {"conv": "conv1", "norm": "bn1", "classifier": classifier}
    if layer in outer:
        return (outer[layer],)
    block, _, inner = layer.partition("/")
    _, stage, number = block.split("_")
    kind, index = inner.split("_")
    # In torchvision a shortcut is a sequence: 0 is the convolution, 1 its normalization.
    if index == "shortcut":
        return (f"layer{int(stage) + 1}.{number}.downsample.{'0' if kind == 'conv' else '1'}",)
    return (f"layer{int(stage) + 1}.{number}.{'conv' if kind == 'conv' else 'bn'}{int(index) + 1}",)


def _vgg(tensors: Tensors) -> tuple[WeightFormat, dict[str, Any]]:
    convolutions = [
        name for name in tensors if name.startswith("features.") and tensors[name].ndim == 4
    ]
    depths = [
        depth for depth, stages in vgg.CONVOLUTIONS.items() if sum(stages) == len(convolutions)
    ]
    if not depths:
        raise ValueError(
            f"VGG has {sorted(map(sum, vgg.CONVOLUTIONS.values()))} convolutions, not"
            f" {len(convolutions)}"
        )
    batch_norm = "features.1.running_mean" in tensors
    head = tuple(_size(tensors, f"classifier.{i}.weight", 0) for i in (0, 3))
    options = {
        "name": "vgg",
        "depth": depths[0],
        "width": _size(tensors, "features.0.weight", 0) / vgg.CHANNELS[0],
        "batch_norm": batch_norm,
        "keep_bias": batch_norm,
        "head": head,
        "pooling": "flatten",
        "dropout": 0.5,
    }
    places = _vgg_places(depths[0], batch_norm=batch_norm)
    return WeightFormat(lambda layer: (places[layer],), ("classifier",)), options | _classes(
        tensors, "classifier.6"
    )


def _vgg_places(depth: int, *, batch_norm: bool) -> dict[str, str]:
    """Returns layer -> its place in torchvision's sequence.

    Convolution, normalization, ReLU; a pool after each stage.
    """
    places, position = (
        {"hidden_0": "classifier.0", "hidden_1": "classifier.3", "classifier": "classifier.6"},
        0,
    )
    for i, count in enumerate(vgg.CONVOLUTIONS[depth]):
        for j in range(count):
            places |= {
                f"conv_{i}_{j}/conv": f"features.{position}",
                f"conv_{i}_{j}/norm": f"features.{position + 1}",
            }
            # A ReLU and a pool have no tensors but take a number.
            position += 3 if batch_norm else 2
        position += 1
    return places


def _classes(tensors: Tensors, classifier: str) -> dict[str, int]:
    return {"num_classes": _size(tensors, f"{classifier}.weight", 0)}


def _count(tensors: Tensors, pattern: str) -> int:
    return len({found[1] for name in tensors if (found := re.match(pattern, name))})


def _size(tensors: Tensors, name: str, axis: int) -> int:
    if name not in tensors or tensors[name].ndim <= axis:
        raise ValueError(f"the tensor {name!r} is missing or a scalar")
    return tensors[name].shape[axis]


AKAMASTER = WeightFormat(lambda layer: _resnet_names(layer, "linear"), ("classifier",))
RESNET = WeightFormat(lambda layer: _resnet_names(layer, "fc"), ("classifier",))

KNOWN = {"linear.weight": _akamaster, "fc.weight": _resnet, "classifier.6.weight": _vgg}
"""The tensor that marks a network -> what describes it."""
