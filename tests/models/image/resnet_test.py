import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_layers

from kd_jax.models import registry

SMALL = dict(name="resnet", num_classes=5, stem=6, blocks=(1, 2, 1, 1), widths=(4, 5, 6, 7))


def original_of(bottleneck):
    """transformers' ResNet of the same sizes, and the paths of its layers, in its order, in
    ours."""
    transformers = pytest.importorskip("transformers")
    widths = [4 * width if bottleneck else width for width in SMALL["widths"]]
    config = transformers.ResNetConfig(
        embedding_size=6,
        hidden_sizes=widths,
        depths=list(SMALL["blocks"]),
        num_labels=5,
        layer_type="bottleneck" if bottleneck else "basic",
    )
    paths = ["conv", "norm"]
    for stage, count in enumerate(SMALL["blocks"]):
        for i in range(count):
            layers = ["shortcut"] * (not i) + list(range(3 if bottleneck else 2))
            paths += [
                f"stage_{stage}_{i}/{kind}_{layer}" for layer in layers for kind in ("conv", "norm")
            ]
    return transformers.ResNetForImageClassification(config), [*paths, "classifier"]


@pytest.mark.parametrize("size", [(64, 64), (45, 71)])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_it_computes_what_transformers_computes(bottleneck, size):
    torch = pytest.importorskip("torch")
    original, paths = original_of(bottleneck)
    variables = torch_layers.variables(torch_layers.randomized(torch, original), paths)
    images = np.random.default_rng(0).normal(size=(3, *size, 3)).astype(np.float32)
    output = jax.jit(registry.build(SMALL | dict(bottleneck=bottleneck)).apply)(variables, images)
    want = torch_layers.result(torch, original, images).logits.numpy()
    assert want.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(output.logits, want, rtol=1e-4, atol=1e-5)


def test_stages_give_maps_before_and_after_the_relu_at_a_quarter_of_the_size_and_below():
    module = registry.build(SMALL | dict(bottleneck=True))
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    features = jax.jit(module.init_with_output)(jax.random.key(0), images)[0].features
    assert features["stem"].shape == (2, 16, 16, 6)
    for i, (side, width) in enumerate(((8, 16), (4, 20), (2, 24), (1, 28))):
        assert features[f"block_{i}"].shape == (2, side, side, width)
        np.testing.assert_array_equal(
            np.maximum(features[f"block_{i}_preact"], 0), features[f"block_{i}"]
        )
        assert features[f"block_{i}_preact"].min() < 0
        assert features[f"block_{i}_preact_margin"].shape == (2, width)
    np.testing.assert_allclose(features["pooled"], features["block_3"].mean(axis=(1, 2)), rtol=1e-5)


def test_the_cifar_entry_keeps_the_size():
    module = registry.build(SMALL | dict(bottleneck=True, entry="cifar"))
    images = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    features = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), images)[
        0
    ].features
    assert [
        features[name].shape[1] for name in ("stem", "block_0", "block_1", "block_2", "block_3")
    ] == [
        16,
        16,
        8,
        4,
        2,
    ]


def test_a_basic_block_has_no_shortcut_layer_where_nothing_changes():
    module = registry.build(SMALL | dict(bottleneck=False, stem=4))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    assert "conv_shortcut" not in shapes["stage_0_0"]
    assert "conv_shortcut" in shapes["stage_1_0"]
    assert "conv_shortcut" not in shapes["stage_1_1"]


@pytest.mark.parametrize("change", [dict(blocks=(1, 1, 1)), dict(widths=(4, 4, 4, 4, 4))])
def test_other_than_four_stages_are_refused(change):
    with pytest.raises(ValueError, match="blocks and widths must be four each, got"):
        registry.build(SMALL | dict(bottleneck=True) | change)
