import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models import registry
from kd_jax.models.image import shufflenet_v1, shufflenet_v2

V1 = dict(
    name="shufflenet_v1", num_classes=10, stem=8, blocks=(2, 1, 2), widths=(16, 24, 48), groups=2
)
V2 = dict(
    name="shufflenet_v2", num_classes=10, stem=4, blocks=(2, 1, 2), widths=(6, 8, 10), last=12
)
OPTIONS = dict(train=False, where=None, axis_name=None)


def test_the_shuffle_deals_the_channels_of_the_groups_in_turn():
    x = jnp.arange(6, dtype=jnp.float32).reshape(1, 1, 1, 6)
    assert np.array_equal(shufflenet_v1.shuffle(x, 2)[0, 0, 0], [0, 3, 1, 4, 2, 5])
    assert np.array_equal(shufflenet_v1.shuffle(x, 3)[0, 0, 0], [0, 2, 4, 1, 3, 5])
    assert np.array_equal(shufflenet_v1.shuffle(x, 1), x)


@pytest.mark.parametrize("spec", [V1, V2], ids=["v1", "v2"])
def test_stages_halve_the_size_and_give_maps_before_and_after_the_relu(spec):
    module = registry.build(spec)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    output, variables = jax.jit(module.init_with_output)(jax.random.key(0), images)
    features = output.features
    assert features["stem"].shape == (2, 16, 16, spec["stem"])
    for i, (side, width) in enumerate(zip((8, 4, 2), spec["widths"], strict=True)):
        assert features[f"block_{i}"].shape == (2, side, side, width)
        np.testing.assert_array_equal(
            np.maximum(features[f"block_{i}_preact"], 0), features[f"block_{i}"]
        )
        assert features[f"block_{i}_preact"].min() < 0
    assert features["pooled"].shape == (2, spec.get("last", spec["widths"][-1]))
    blocks = {name for name in variables["params"] if name.startswith("stage_")}
    assert blocks == {"stage_0_0", "stage_0_1", "stage_1_0", "stage_2_0", "stage_2_1"}


def silenced(block, x, last):
    """A block whose branch gives only zeros: what is left is its shortcut."""
    variables = block.init(jax.random.key(0), x, **OPTIONS)
    variables["params"][last]["scale"] *= 0
    return block.apply(variables, x, **OPTIONS)


def test_v1_adds_the_input_or_appends_its_mean_over_three_by_three_with_the_border():
    x = jnp.asarray(np.random.default_rng(0).uniform(1, 2, size=(2, 6, 6, 8)), jnp.float32)
    kept = silenced(shufflenet_v1.GroupedBottleneck(8, 2, 2, downsample=False), x, "norm_2")
    np.testing.assert_array_equal(kept, x)
    halved = silenced(shufflenet_v1.GroupedBottleneck(16, 2, 2, downsample=True), x, "norm_2")
    assert np.array_equal(halved[..., :8], np.zeros((2, 3, 3, 8)))
    np.testing.assert_allclose(halved[:, 1, 1, 8:], x[:, 1:4, 1:4].mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(halved[:, 0, 0, 8:], x[:, :2, :2].sum(axis=(1, 2)) / 9, rtol=1e-6)


def test_v2_leaves_the_first_half_of_the_channels_as_it_is():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 8)), jnp.float32)
    result = silenced(shufflenet_v2.ShuffleBlock(8, downsample=False), x, "norm_2")
    np.testing.assert_array_equal(result[..., ::2], x[..., :4])
    assert not np.any(result[..., 1::2])


def test_only_the_very_first_convolution_of_v1_after_the_stem_is_without_groups():
    module = registry.build(V1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))[
        "params"
    ]
    inner = {
        name: layer["conv_0"]["kernel"].shape[2]
        for name, layer in shapes.items()
        if name.startswith("stage_")
    }
    assert inner == {
        "stage_0_0": 8,
        "stage_0_1": 8,
        "stage_1_0": 8,
        "stage_2_0": 12,
        "stage_2_1": 24,
    }


@pytest.mark.parametrize(
    ("spec", "change", "message"),
    [
        (V1, dict(blocks=(1, 1)), "blocks and widths must be three each"),
        (V1, dict(widths=(16, 16, 48)), "widths must grow from the stem's 8"),
        (V1, dict(widths=(16, 28, 48)), "multiples of 8, four times the groups"),
        (V1, dict(stem=12, widths=(20, 28, 44)), "multiples of 8, four times the groups"),
        (V1, dict(stem=12), "multiples of 8, four times the groups"),
        (V2, dict(widths=(6, 8)), "blocks and widths must be three each, widths even"),
        (V2, dict(widths=(6, 7, 8)), "blocks and widths must be three each, widths even"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(spec, change, message):
    with pytest.raises(ValueError, match=message):
        registry.build(spec | change)
