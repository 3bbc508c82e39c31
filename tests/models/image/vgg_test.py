import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_layers

from kd_jax.models import registry
from kd_jax.models.image import vgg


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
    return registry.build(spec | options)


def shapes_of(module, side):
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    output, variables = jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x), images
    )
    return {key: feature.shape[1:] for key, feature in output.features.items()}, variables


@pytest.mark.parametrize(
    ("side", "sides"),
    [
        (1, [1] * 5),
        (8, [4, 2, 1, 1, 1]),
        (28, [14, 7, 3, 1, 1]),
        (32, [16, 8, 4, 2, 1]),
        (224, [112, 56, 28, 14, 7]),
    ],
)
def test_features_by_image_size_and_pools_left_out(side, sides):
    features, _ = shapes_of(build(), side)
    want = {
        f"block_{i}": (s, s, c)
        for i, (s, c) in enumerate(zip(sides, (64, 128, 256, 512, 512), strict=True))
    }
    before = {
        f"block_{i}_preact": (s, s, want[f"block_{i}"][2]) for i, s in enumerate([side, *sides[:4]])
    }
    assert features == want | before | {"pooled": (512,)}


def test_width_and_head():
    features, variables = shapes_of(build(width=0.25, head=(20, 30)), 32)
    assert features["block_4"] == (1, 1, 128)
    assert features["pooled"] == (30,)
    assert variables["params"]["hidden_0"]["kernel"].shape == (128, 20)
    assert shapes_of(build(width=0.001), 8)[0]["block_4"] == (1, 1, 1)


@pytest.mark.parametrize("depth", [8, 11, 13, 16, 19])
def test_depth_counts_the_layers_with_weights_of_the_paper(depth):
    _, variables = shapes_of(build(depth=depth), 32)
    convolutions = [name for name in variables["params"] if name.startswith("conv_")]
    assert len(convolutions) + 3 == depth  # The paper's three dense layers.


def test_vgg16_has_the_papers_number_of_convolution_parameters():
    _, variables = shapes_of(build(depth=16), 224)
    layers = {name: leaf for name, leaf in variables["params"].items() if name.startswith("conv_")}
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(layers)) == 14_714_688
    )  # PyTorch's vgg16().features.


def test_batch_norm_replaces_the_bias_unless_it_is_kept():
    _, variables = shapes_of(build(batch_norm=True), 8)
    assert set(variables["params"]["conv_0_0"]) == {"conv", "norm"}
    assert set(variables["params"]["conv_0_0"]["conv"]) == {"kernel"}
    _, variables = shapes_of(build(batch_norm=True, keep_bias=True), 8)
    assert set(variables["params"]["conv_0_0"]["conv"]) == {"kernel", "bias"}
    assert set(shapes_of(build(), 8)[1]) == {"params"}


@pytest.mark.parametrize("side", [28, 32])
def test_the_signal_survives_the_depth(side):
    module = build(width=0.25, depth=16)
    images = np.random.default_rng(0).normal(size=(2, side, side, 1)).astype(np.float32)
    output, _ = jax.jit(module.init_with_output)(jax.random.key(0), images)
    spread = np.std(output.features["block_4"])
    assert np.isfinite(output.logits).all()
    assert (
        0.03 < spread < 30
    )  # He's initialization keeps the scale; Linen's default loses a factor of 100 here.


def test_images_of_any_number_type_are_cast_to_the_parameters():
    module = build(width=0.1)
    images = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 1)).astype(np.uint8)
    variables = jax.jit(module.init)(jax.random.key(0), images)
    apply = jax.jit(module.apply)
    assert np.array_equal(
        apply(variables, images).logits, apply(variables, np.float32(images)).logits
    )


@pytest.mark.usefixtures("own_refusals")
def test_refuses_images_without_channels():
    with pytest.raises(ValueError, match=r"images must be \[B, H, W, C\], got \(2, 8, 8\)"):
        build().init(jax.random.key(0), np.zeros((2, 8, 8)))


def test_halve_takes_the_largest_and_drops_an_odd_rest():
    x = jnp.arange(15, dtype=jnp.float32).reshape(1, 3, 5, 1)
    assert np.array_equal(vgg.halve(x)[0, :, :, 0], [[6, 8]])
    assert vgg.halve(x[:, :1]).shape == (1, 1, 5, 1)


def test_blocks_are_the_maps_before_the_relu_rectified_and_pooled():
    module = build(depth=8, width=0.1, batch_norm=True, pools=3)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    features = jax.jit(module.init_with_output)(jax.random.key(0), images)[0].features
    for i in range(5):
        before = features[f"block_{i}_preact"]
        assert before.min() < 0
        pool = vgg.halve if i < 3 else np.asarray
        np.testing.assert_array_equal(features[f"block_{i}"], pool(jnp.maximum(before, 0)))
        # Fresh normalizations have mean 0 and spread 1: the expected negative part is -sqrt(2 /
        # pi).
        np.testing.assert_allclose(
            features[f"block_{i}_preact_margin"],
            np.full((2, before.shape[-1]), -0.79788),
            atol=1e-4,
        )
    assert features["block_4"].shape[1:3] == (4, 4)


def test_flattening_takes_channels_first_and_averages_into_seven_by_seven():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 14, 21, 3)), jnp.float32)
    want = x.reshape(2, 7, 2, 7, 3, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2).reshape(2, 147)
    np.testing.assert_allclose(vgg.flattened(x), want, rtol=1e-5, atol=1e-6)
    assert np.array_equal(
        vgg.flattened(x[:, :7, :7]), x[:, :7, :7].transpose(0, 3, 1, 2).reshape(2, 147)
    )


def test_after_flattening_the_first_hidden_layer_sees_everything():
    module = build(depth=8, width=0.05, pooling="flatten", head=(9, 8), dropout=0.5)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), images)

    def hidden(train, layer):
        rngs = {"dropout": jax.random.key(1)}
        return module.apply(
            variables,
            images,
            train=train,
            rngs=rngs,
            capture_intermediates=True,
            mutable=["intermediates"],
        )[1]["intermediates"][layer]["__call__"][0]

    np.testing.assert_array_equal(hidden(True, "hidden_0"), hidden(False, "hidden_0"))
    assert not np.allclose(hidden(True, "hidden_1"), hidden(False, "hidden_1"))


def published_form(torch, channels, hidden, classes, batch_norm):
    """VGG11 as torchvision has it, narrower."""
    layers, inner = [], 3
    for width, count in zip(channels, (1, 1, 2, 2, 2), strict=True):
        for _ in range(count):
            norm = [torch.nn.BatchNorm2d(width)] if batch_norm else []
            layers += [torch.nn.Conv2d(inner, width, 3, padding=1), *norm, torch.nn.ReLU()]
            inner = width
        layers.append(torch.nn.MaxPool2d(2, 2))
    layers += [torch.nn.AdaptiveAvgPool2d(7), torch.nn.Flatten()]
    for width in hidden:
        layers += [torch.nn.LazyLinear(width), torch.nn.ReLU(), torch.nn.Dropout(0.5)]
    return torch.nn.Sequential(*layers, torch.nn.LazyLinear(classes))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("size", [(224, 224), (75, 250), (45, 33)])
def test_the_published_form_computes_what_pytorch_computes(batch_norm, size):
    torch = pytest.importorskip("torch")
    original = published_form(torch, (6, 13, 26, 51, 51), (9, 8), 5, batch_norm)
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    torch_layers.result(torch, original, images)  # It learns the widths of its dense layers.
    layers = torch_layers.randomized(torch, original)
    kinds = ("conv", "norm") if batch_norm else ("conv",)
    counts = enumerate((1, 1, 2, 2, 2))
    paths = [f"conv_{i}_{j}/{kind}" for i, count in counts for j in range(count) for kind in kinds]
    variables = torch_layers.variables(layers, [*paths, "hidden_0", "hidden_1", "classifier"])
    options = dict(
        width=0.1,
        batch_norm=batch_norm,
        keep_bias=True,
        pooling="flatten",
        head=(9, 8),
        dropout=0.5,
    )
    output = jax.jit(build(num_classes=5, **options).apply)(variables, images)
    want = torch_layers.result(torch, original, images).numpy()
    assert want.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(output.logits, want, rtol=1e-4, atol=1e-5)
