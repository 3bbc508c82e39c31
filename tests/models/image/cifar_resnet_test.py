import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models import registry

PUBLISHED = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}
"""Depth -> millions of parameters, He et al. 2015, table 6."""
CIFAR = dict(name="cifar_resnet", num_classes=10, stem=16, widths=(16, 32, 64), shortcut="pad")


def parameters(**options):
    module = registry.build(CIFAR | options)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(("depth", "millions"), PUBLISHED.items())
def test_parameter_counts_are_the_published_ones(depth, millions):
    assert round(parameters(depth=depth) / 1e6, 2 if millions < 1 else 1) == millions


def test_the_distillation_literatures_wide_network_has_its_published_size():
    """resnet8x4 of RepDistiller for CIFAR-100: 1,233,540 parameters."""
    assert (
        parameters(depth=8, stem=32, widths=(64, 128, 256), shortcut="projection", num_classes=100)
        == 1_233_540
    )


@pytest.fixture(scope="module")
def network():
    module = registry.build(CIFAR | dict(depth=8, stem=4, widths=(4, 6, 8)))
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
    return module, jax.jit(module.init)(jax.random.key(0), images), images


def test_stages_halve_the_size_and_give_maps_before_and_after_the_relu(network):
    module, variables, images = network
    features = module.apply(variables, images).features
    for i, (side, width) in enumerate(((16, 4), (8, 6), (4, 8))):
        assert features[f"block_{i}"].shape == (3, side, side, width)
        np.testing.assert_array_equal(
            np.maximum(features[f"block_{i}_preact"], 0), features[f"block_{i}"]
        )
        assert features[f"block_{i}_preact"].min() < 0
        assert features[f"block_{i}_preact_margin"].shape == (3, width)
    np.testing.assert_allclose(features["pooled"], features["block_2"].mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("depth", [2, 3, 7, 10])
def test_a_depth_that_is_not_six_n_and_two_is_refused(depth):
    with pytest.raises(
        ValueError, match=rf"depth must be 6 n \+ 2 from 8 on, and widths three, got {depth} and"
    ):
        registry.build(CIFAR | dict(depth=depth))
