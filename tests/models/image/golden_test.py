"""The vision families against values of the distillation benchmark's original PyTorch code
(tests/golden/vision.npz).

The original networks, in evaluation mode and float64, held the weights that `weights` makes here,
read `images` and gave the logits, and of each feature the figures of `summary`; margins are of the
batch normalizations it names for OFD."""

import math
import zlib

import flax.traverse_util
import jax
import numpy as np
import pytest
from paths import TESTS

from kd_jax.models import registry

pytestmark = pytest.mark.grid

GOLDEN = TESTS / "golden" / "vision.npz"
NETWORKS = {
    "vgg8": (32, {"name": "vgg8_cifar"}),
    "vgg8_on_64x64": (64, {"name": "vgg8_cifar", "pools": 4}),
    "vgg13": (32, {"name": "vgg13_cifar"}),
    "resnet20": (32, {"name": "resnet20"}),
    "resnet8x4": (32, {"name": "resnet8x4"}),
    "resnet_bottleneck": (32, {"name": "resnet50_cifar", "blocks": (1, 1, 1, 2)}),
    "wrn_16_2": (32, {"name": "wrn_16_2"}),
    "wrn_40_1": (32, {"name": "wrn_40_1"}),
    "mobile_half": (32, {"name": "mobilenet_v2_half"}),
    "shuffle_v1": (32, {"name": "shufflenet_v1_cifar"}),
    "shuffle_v2": (32, {"name": "shufflenet_v2_cifar"}),
}
"""The original network -> the images' side, our options."""
MESSAGE = "the value of the original code; correct the model, never the stored value"


def images(side):
    return np.random.default_rng(side).normal(size=(2, side, side, 3)).astype(np.float32)


def weights(module, side):
    """Every leaf drawn by a generator seeded with its path, so that no order and no library
    matters."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), images(side))
    leaves = flax.traverse_util.flatten_dict(shapes, sep="/")
    drawn = {path: draw(path, leaf.shape) for path, leaf in leaves.items()}
    return flax.traverse_util.unflatten_dict(drawn, sep="/")


def draw(path, shape):
    rng, kind = np.random.default_rng(zlib.crc32(path.encode())), path.rsplit("/", 1)[-1]
    if kind == "kernel":
        return np.float32(rng.normal(size=shape) / math.sqrt(math.prod(shape[:-1])))
    low, high = {"scale": (0.5, 1.5), "bias": (-0.5, 0.5), "mean": (-0.5, 0.5), "var": (0.5, 1.5)}[
        kind
    ]
    return np.float32(rng.uniform(low, high, shape))


def summary(feature):
    """Mean, standard deviation, and a sum in which each value has its own weight."""
    flat = np.asarray(feature, np.float64).ravel()
    return np.array(
        [
            flat.mean(),
            flat.std(),
            (flat * np.cos(0.37 * np.arange(flat.size))).sum() / math.sqrt(flat.size),
        ]
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_agrees_with_the_benchmarks_own_code(network):
    side, spec = NETWORKS[network]
    module = registry.build(spec | {"num_classes": 100})
    output = jax.jit(module.apply)(weights(module, side), images(side))
    with np.load(GOLDEN) as file:
        stored = {
            name.removeprefix(f"{network}/"): file[name]
            for name in file
            if name.startswith(f"{network}/")
        }
    logits = stored.pop("logits")
    assert logits.std() > 0.3
    np.testing.assert_allclose(output.logits, logits, rtol=0, atol=1e-4, err_msg=MESSAGE)
    assert {"block_0", "block_1", "block_2", "pooled"} < set(stored)
    for name, figures in stored.items():
        np.testing.assert_allclose(
            summary(output.features[name]), figures, rtol=0, atol=1e-4, err_msg=f"{name}: {MESSAGE}"
        )


def test_the_stored_values_are_of_these_networks():
    with np.load(GOLDEN) as file:
        assert {name.split("/")[0] for name in file} == set(NETWORKS)
