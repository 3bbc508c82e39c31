import jax
import numpy as np
import pytest

from kd_jax.models.projectors import projectors


@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 4), (3, 2, 2, 4)])
def test_linear_maps_the_last_axis_of_any_feature(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    module = projectors.build_projector("linear", 7)
    y, variables = module.init_with_output(jax.random.key(0), x)
    variables["params"]["dense"]["bias"] = np.arange(7, dtype=np.float32)
    y = module.apply(variables, x)
    want = x @ np.asarray(variables["params"]["dense"]["kernel"]) + np.arange(7)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_the_dtype_follows_the_parameters(dtype):
    x = np.ones((3, 4), np.float32)
    module = projectors.build_projector("linear", 7)
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda p: p.astype(dtype), module.init(jax.random.key(0), x))
        assert module.apply(variables, x).dtype == dtype


@pytest.mark.usefixtures("own_refusals")
@pytest.mark.parametrize(
    ("name", "width", "message"),
    [
        ("none", 7, r"no mapping 'none'; there are \['connector', 'convolution', 'linear', "),
        ("linear", 0, "positive whole number, got 0"),
        ("linear", 7.0, "positive whole number, got 7.0"),
        ("linear", True, "positive whole number, got True"),
    ],
)
def test_refuses_bad_arguments(name, width, message):
    with pytest.raises(ValueError, match=message):
        projectors.build_projector(name, width)
