import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models import registry


def build(**options):
    return registry.build(
        {"name": "cnn", "num_classes": 10, "widths": (8, 16), "batch_norm": False} | options
    )


@pytest.mark.parametrize(
    ("side", "sides"), [(8, [4, 2, 1, 1]), (28, [14, 7, 3, 1]), (3, [1, 1, 1, 1])]
)
def test_features_by_image_size_and_pools_left_out(side, sides):
    module = build(widths=(4, 5, 6, 7))
    images = jax.ShapeDtypeStruct((2, side, side, 1), jnp.float32)
    output, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), images)
    want = {f"block_{i}": (2, s, s, 4 + i) for i, s in enumerate(sides)}
    assert {key: feature.shape for key, feature in output.features.items()} == want | {
        "pooled": (2, 7)
    }


def test_pooled_is_the_mean_over_positions():
    module = build()
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    output, variables = jax.jit(module.init_with_output)(jax.random.key(0), images)
    np.testing.assert_allclose(
        output.features["pooled"], np.mean(output.features["block_1"], (1, 2)), rtol=1e-5
    )
    assert set(variables) == {"params"}
    assert set(jax.eval_shape(build(batch_norm=True).init, jax.random.key(0), images)) == {
        "params",
        "batch_stats",
    }


def test_needs_a_convolution():
    with pytest.raises(ValueError, match="widths must name at least one"):
        build(widths=())
