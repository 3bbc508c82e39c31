import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models import registry

SPEC = dict(name="wide_resnet", num_classes=10, depth=16, widen=2)


def test_the_stages_widen_and_the_stem_does_not():
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    output, _ = jax.eval_shape(
        lambda x: registry.build(SPEC).init_with_output(jax.random.key(0), x), images
    )
    shapes = {name: feature.shape[1:] for name, feature in output.features.items()}
    want = {"stem": (32, 32, 16), "pooled": (128,)}
    for i, (side, width) in enumerate(((32, 32), (16, 64), (8, 128))):
        want |= {f"block_{i}": (side, side, width), f"block_{i}_preact": (side, side, width)}
        want[f"block_{i}_preact_margin"] = (width,)
    assert shapes == want


def test_maps_before_the_relu_are_the_blocks_through_the_normalization_that_follows():
    module = registry.build(SPEC | dict(depth=10, widen=1))
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    output, variables = jax.jit(module.init_with_output)(jax.random.key(0), images)
    scales = {0: ("stage_1_0", "norm_0"), 1: ("stage_2_0", "norm_0"), 2: ("norm",)}
    for names in scales.values():
        layer = variables["params"]
        for name in names:
            layer = layer[name]
        layer["scale"], layer["bias"] = 2 * layer["scale"], layer["bias"] + 0.5
    features = jax.jit(module.apply)(variables, images).features
    for i in scales:
        # Fresh statistics are 0 and 1, so what is left of a normalization is its scale and bias.
        want = 2 * features[f"block_{i}"] / np.sqrt(1 + 1e-5) + 0.5
        np.testing.assert_allclose(features[f"block_{i}_preact"], want, rtol=1e-5, atol=1e-6)
        # The mean of N(0.5, 2^2) below 0.
        np.testing.assert_allclose(
            features[f"block_{i}_preact_margin"], np.full((2, 16 * 2**i), -1.42711), atol=1e-4
        )
    want = np.maximum(features["block_2_preact"], 0).mean(axis=(1, 2))
    np.testing.assert_allclose(features["pooled"], want, rtol=1e-5)
    assert output.features["block_0"].min() < 0


def test_a_shortcut_has_a_layer_only_where_the_channels_change():
    for widen, layers in ((1, [False, True, True]), (2, [True, True, True])):
        module = registry.build(SPEC | dict(widen=widen))
        shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
        assert ["conv_shortcut" in shapes[f"stage_{i}_0"] for i in range(3)] == layers
        assert not any("conv_shortcut" in shapes[f"stage_{i}_1"] for i in range(3))


@pytest.mark.parametrize("depth", [4, 8, 14])
def test_a_depth_that_is_not_six_n_and_four_is_refused(depth):
    with pytest.raises(ValueError, match=rf"depth must be 6 n \+ 4 from 10 on, got {depth}"):
        registry.build(SPEC | dict(depth=depth))
