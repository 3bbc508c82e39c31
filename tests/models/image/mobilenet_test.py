import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models import registry
from kd_jax.models.image import mobilenet

SPEC = dict(name="mobilenet_v2", num_classes=10, width=0.5, expansion=6)


def shapes_of(side, **options):
    module = registry.build(SPEC | options)
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    output, variables = jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x), images
    )
    return {name: feature.shape[1:] for name, feature in output.features.items()}, variables


def test_there_is_a_feature_for_each_size():
    shapes, _ = shapes_of(32)
    want = {"stem": (16, 16, 16), "pooled": (1280,)}
    for i, (side, width) in enumerate(((16, 12), (8, 16), (4, 48), (2, 160))):
        want |= {f"block_{i}": (side, side, width), f"block_{i}_preact": (side, side, width)}
        want[f"block_{i}_preact_margin"] = (width,)
    assert shapes == want


@pytest.mark.parametrize(
    ("width", "stem", "last"), [(0.01, 1, 1280), (1.0, 32, 1280), (1.4, 44, 1792)]
)
def test_channels_are_rounded_down_and_the_last_never_narrower_than_published(width, stem, last):
    shapes, _ = shapes_of(32, width=width)
    assert (shapes["stem"][-1], shapes["pooled"]) == (stem, (last,))


def test_the_first_block_expands_nothing_and_the_others_as_told():
    _, variables = shapes_of(32, expansion=3)
    assert variables["params"]["stage_0_0"]["conv_1"]["kernel"].shape == (3, 3, 1, 16)
    assert variables["params"]["stage_1_0"]["conv_1"]["kernel"].shape == (3, 3, 1, 3 * 8)


@pytest.mark.parametrize(
    ("channels", "stride", "added"), [(4, 1, True), (5, 1, False), (4, 2, False)]
)
def test_a_block_is_added_to_its_input_where_it_fits(channels, stride, added):
    block = mobilenet.InvertedResidual(channels, 2, stride)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 4)), jnp.float32)
    options = dict(train=False, where=None, axis_name=None)
    variables = block.init(jax.random.key(0), x, **options)
    variables["params"]["norm_2"]["scale"] *= 0
    result, _ = block.apply(variables, x, **options)
    np.testing.assert_array_equal(
        result, x if added else np.zeros((2, 6 // stride, 6 // stride, channels))
    )
