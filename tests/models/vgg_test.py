import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import models
from kd_jax.models import vgg


def build(**options):
    spec = {
        "name": "vgg",
        "num_classes": 10,
        "depth": 11,
        "width": 1.0,
        "batch_norm": False,
        "head": (),
        "dropout": 0.0,
    }
    return models.build(spec | options)


def shapes_of(module, side):
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    output, variables = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), images)
    return {key: feature.shape[1:] for key, feature in output.features.items()}, variables


@pytest.mark.parametrize(
    ("side", "sides"),
    [(1, [1] * 5), (8, [4, 2, 1, 1, 1]), (28, [14, 7, 3, 1, 1]), (32, [16, 8, 4, 2, 1]), (224, [112, 56, 28, 14, 7])],
)
def test_features_by_image_size_and_pools_left_out(side, sides):
    features, _ = shapes_of(build(), side)
    want = {f"block_{i}": (s, s, c) for i, (s, c) in enumerate(zip(sides, (64, 128, 256, 512, 512), strict=True))}
    assert features == want | {"pooled": (512,)}


def test_width_and_head():
    features, variables = shapes_of(build(width=0.25, head=(20, 30)), 32)
    assert features["block_4"] == (1, 1, 128)
    assert features["pooled"] == (30,)
    assert variables["params"]["hidden_0"]["kernel"].shape == (128, 20)
    assert shapes_of(build(width=0.001), 8)[0]["block_4"] == (1, 1, 1)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_depth_counts_the_layers_with_weights_of_the_paper(depth):
    _, variables = shapes_of(build(depth=depth), 32)
    convolutions = [name for name in variables["params"] if name.startswith("conv_")]
    assert len(convolutions) + 3 == depth  # The paper's three dense layers.


def test_vgg16_has_the_papers_number_of_convolution_parameters():
    _, variables = shapes_of(build(depth=16), 224)
    layers = {name: leaf for name, leaf in variables["params"].items() if name.startswith("conv_")}
    assert sum(leaf.size for leaf in jax.tree.leaves(layers)) == 14_714_688  # PyTorch's vgg16().features.


def test_batch_norm_replaces_the_bias():
    _, variables = shapes_of(build(batch_norm=True), 8)
    assert set(variables["params"]["conv_0_0"]) == {"conv", "norm"}
    assert set(variables["params"]["conv_0_0"]["conv"]) == {"kernel"}
    assert set(shapes_of(build(), 8)[1]) == {"params"}


@pytest.mark.parametrize("side", [28, 32])
def test_the_signal_survives_the_depth(side):
    module = build(width=0.25, depth=16)
    images = np.random.default_rng(0).normal(size=(2, side, side, 1)).astype(np.float32)
    output, _ = jax.jit(module.init_with_output)(jax.random.key(0), images)
    spread = np.std(output.features["block_4"])
    assert np.isfinite(output.logits).all()
    assert 0.03 < spread < 30  # He's initialization keeps the scale; Linen's default loses a factor of 100 here.


def test_images_of_any_number_type_are_cast_to_the_parameters():
    module = build(width=0.1)
    images = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 1)).astype(np.uint8)
    variables = jax.jit(module.init)(jax.random.key(0), images)
    apply = jax.jit(module.apply)
    assert np.array_equal(apply(variables, images).logits, apply(variables, np.float32(images)).logits)


def test_refuses_images_without_channels():
    with pytest.raises(ValueError, match=r"images must be \[B, H, W, C\], got \(2, 8, 8\)"):
        build().init(jax.random.key(0), np.zeros((2, 8, 8)))


def test_halve_takes_the_largest_and_drops_an_odd_rest():
    x = np.arange(15, dtype=np.float32).reshape(1, 3, 5, 1)
    assert np.array_equal(vgg.halve(x)[0, :, :, 0], [[6, 8]])
    assert vgg.halve(x[:, :1]).shape == (1, 1, 5, 1)
