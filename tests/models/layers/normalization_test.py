"""The masked batch normalization: one device on the whole batch is the definition, the devices must
agree with it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models.layers import normalization

pytestmark = pytest.mark.grid

DEVICES, ROWS, SHAPE = 8, 4, (3, 2, 5)
RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, (DEVICES * ROWS, *SHAPE)).astype(np.float32)
# Device d holds 4, 0, 1, 3, ... valid rows.
WHERE = (np.arange(ROWS)[None] < np.array([4, 0, 1, 3, 2, 4, 1, 1])[:, None]).reshape(-1)
VARIABLES = {
    "params": {
        "scale": RNG.normal(1, 0.3, 5).astype(np.float32),
        "bias": RNG.normal(0, 0.3, 5).astype(np.float32),
    },
    "batch_stats": {
        "mean": RNG.normal(0, 1, 5).astype(np.float32),
        "var": RNG.uniform(1, 2, 5).astype(np.float32),
    },
}
NORM = normalization.BatchNorm()


def run(variables, x, where=None, axis_name=None):
    return NORM.apply(
        jax.tree.map(jnp.asarray, variables),
        jnp.asarray(x),
        train=True,
        where=where,
        axis_name=axis_name,
        mutable=["batch_stats"],
    )


def shard(x):
    return x.reshape(DEVICES, ROWS, *x.shape[1:])


def reference(x, where):
    """The paper's formulas and PyTorch's running averages in float64, on the valid rows alone."""
    valid = np.float64(x[where]).reshape(-1, x.shape[-1])
    mean, var = valid.mean(0), valid.var(0)
    variables = jax.tree.map(np.float64, VARIABLES)
    params, running = variables["params"], variables["batch_stats"]
    y = (x - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"]
    new = {
        "mean": 0.9 * running["mean"] + 0.1 * mean,
        "var": 0.9 * running["var"] + 0.1 * valid.var(0, ddof=1),
    }
    return y, new


@pytest.mark.parametrize("where", [WHERE, np.ones_like(WHERE)], ids=["masked", "full"])
def test_matches_the_paper_on_the_valid_rows(where):
    y, state = run(VARIABLES, X, where)
    want, running = reference(X, where)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)
    for key, value in running.items():
        np.testing.assert_allclose(state["batch_stats"][key], value, rtol=1e-5, atol=1e-6)
    if where.all():
        assert np.array_equal(run(VARIABLES, X)[0], y)


def test_eight_devices_with_uneven_masks_equal_one():
    mapped = jax.pmap(lambda v, x, w: run(v, x, w, "data"), axis_name="data", in_axes=(None, 0, 0))
    y, state = mapped(VARIABLES, shard(X), shard(WHERE))
    want, running = run(VARIABLES, X, WHERE)
    np.testing.assert_allclose(np.asarray(y).reshape(X.shape), want, rtol=1e-5, atol=1e-5)
    for key, value in running["batch_stats"].items():
        for device in np.asarray(state["batch_stats"][key]):
            np.testing.assert_allclose(device, value, rtol=1e-5, atol=1e-6)


def test_gradients_of_eight_devices_sum_to_that_of_one():
    weights = RNG.normal(size=X.shape).astype(np.float32)

    def loss(x, params, where, weight, axis_name=None):
        y, _ = run(VARIABLES | {"params": params}, x, where, axis_name)
        return jnp.sum(jnp.where(where[:, None, None, None], y * weight, 0) ** 2)

    def local(params, x, where, weight):
        to_x, to_params = jax.grad(loss, argnums=(0, 1))(x, params, where, weight, "data")
        return to_x, jax.lax.psum(to_params, "data")

    mapped = jax.pmap(local, axis_name="data", in_axes=(None, 0, 0, 0))
    to_x, to_params = mapped(VARIABLES["params"], shard(X), shard(WHERE), shard(weights))
    want_x, want_params = jax.grad(loss, argnums=(0, 1))(X, VARIABLES["params"], WHERE, weights)
    np.testing.assert_allclose(np.asarray(to_x).reshape(X.shape), want_x, rtol=1e-4, atol=1e-4)
    for key, value in want_params.items():
        np.testing.assert_allclose(np.asarray(to_params[key])[0], value, rtol=1e-4, atol=1e-3)


def test_rows_that_do_not_count_change_nothing_even_huge_ones():
    bad = np.where(WHERE[:, None, None, None], X, np.float32(1e30))

    def loss(x):
        y, state = run(VARIABLES, x, WHERE)
        return jnp.sum(jnp.where(WHERE[:, None, None, None], y, 0) ** 3), state

    (value, state), grad = jax.value_and_grad(loss, has_aux=True)(bad)
    (want, want_state), want_grad = jax.value_and_grad(loss, has_aux=True)(X)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(grad[WHERE], want_grad[WHERE], rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state, want_state)


def test_evaluation_uses_the_running_averages_and_changes_nothing():
    y = NORM.apply(jax.tree.map(jnp.asarray, VARIABLES), jnp.asarray(X), train=False, where=WHERE)
    params, running = VARIABLES["params"], VARIABLES["batch_stats"]
    want = (X - running["mean"]) / np.sqrt(np.float64(running["var"]) + 1e-5) * params[
        "scale"
    ] + params["bias"]
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


def test_a_batch_in_which_nothing_counts_leaves_the_running_averages():
    y, state = run(VARIABLES, X, np.zeros_like(WHERE))
    assert np.isfinite(y).all()
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], VARIABLES["batch_stats"])


def test_a_single_value_has_a_finite_running_variance():
    _, state = run(VARIABLES, X[:, :1, :1], np.arange(len(X)) == 3)
    assert np.isfinite(state["batch_stats"]["var"]).all()


def test_variance_survives_a_mean_far_from_zero():
    x = (np.float32(3000) + RNG.normal(0, 0.1, (64, 5))).astype(np.float32)
    _, var, count = normalization.masked_moments(jnp.asarray(x), None, None)
    np.testing.assert_allclose(var, np.float64(x).var(0), rtol=1e-2)
    assert count == 64


def test_initialization_leaves_the_running_averages_at_zero_and_one():
    variables = NORM.init(jax.random.key(0), jnp.asarray(X), train=True)
    assert np.array_equal(variables["batch_stats"]["mean"], np.zeros(5))
    assert np.array_equal(variables["batch_stats"]["var"], np.ones(5))


def test_bfloat16_is_computed_in_float32_and_float64_in_float64():
    with jax.enable_x64(True):
        half = X.astype(jnp.bfloat16)
        y, state = run(VARIABLES, half, WHERE)
        assert y.dtype == jnp.bfloat16
        want, running = reference(np.float32(half), WHERE)
        np.testing.assert_allclose(np.float32(y), want, rtol=0.01, atol=0.01)
        np.testing.assert_allclose(state["batch_stats"]["var"], running["var"], rtol=1e-4)
        wide = jax.tree.map(np.float64, VARIABLES)
        y, state = run(wide, np.float64(X), WHERE)
        want, running = reference(X, WHERE)
        np.testing.assert_allclose(y, want, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(state["batch_stats"]["mean"], running["mean"], rtol=1e-12)


def test_the_margin_is_the_mean_of_the_negative_part_of_a_gaussian():
    rng = np.random.default_rng(0)
    scale, bias = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, -0.3])
    drawn = bias + np.abs(scale) * rng.normal(size=(400_000, 3))
    want = np.array([column[column < 0].mean() for column in drawn.T])
    np.testing.assert_allclose(normalization.negative_margin(scale, bias), want, atol=0.01)


def test_where_nothing_is_negative_the_margin_is_three_spreads_below_zero():
    np.testing.assert_allclose(
        normalization.negative_margin(jnp.array([0.5]), jnp.array([5.0])), [-1.5], rtol=1e-6
    )


# Positions


POSITIONS = np.random.default_rng(1).random(X.shape[:2]) < np.linspace(0.1, 0.9, len(X))[:, None]


@pytest.mark.parametrize("axes", [2, 3])
def test_positions_that_count_match_the_paper(axes):
    where = POSITIONS if axes == 2 else np.random.default_rng(2).random(X.shape[:3]) < 0.4
    y, state = run(VARIABLES, X, where)
    want, running = reference(X, where)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)
    for key, value in running.items():
        np.testing.assert_allclose(state["batch_stats"][key], value, rtol=1e-5, atol=1e-6)


def test_all_positions_of_the_rows_that_count_are_those_rows():
    for each, other in zip(
        jax.tree.leaves(run(VARIABLES, X, np.repeat(WHERE[:, None], X.shape[1], axis=1))),
        jax.tree.leaves(run(VARIABLES, X, WHERE)),
        strict=True,
    ):
        np.testing.assert_allclose(each, other, rtol=1e-6, atol=1e-6)


def test_positions_on_eight_devices_equal_one():
    mapped = jax.pmap(lambda v, x, w: run(v, x, w, "data"), axis_name="data", in_axes=(None, 0, 0))
    y, state = mapped(VARIABLES, shard(X), shard(POSITIONS))
    want, running = run(VARIABLES, X, POSITIONS)
    np.testing.assert_allclose(np.asarray(y).reshape(X.shape), want, rtol=1e-5, atol=1e-5)
    for key, value in running["batch_stats"].items():
        np.testing.assert_allclose(
            np.asarray(state["batch_stats"][key])[3], value, rtol=1e-5, atol=1e-6
        )


def test_positions_that_do_not_count_change_nothing_even_huge_ones():
    def loss(x):
        y, state = run(VARIABLES, x, POSITIONS)
        return jnp.sum(jnp.where(POSITIONS[:, :, None, None], y, 0) ** 3), state

    bad = np.where(POSITIONS[:, :, None, None], X, np.float32(1e30))
    (value, state), grad = jax.value_and_grad(loss, has_aux=True)(bad)
    (want, want_state), want_grad = jax.value_and_grad(loss, has_aux=True)(X)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(grad[POSITIONS], want_grad[POSITIONS], rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state, want_state)


@pytest.mark.usefixtures("own_refusals")
@pytest.mark.parametrize("shape", [(), (1,), (32, 1), (3, 32), X.shape])
def test_refuses_a_mask_of_another_shape(shape):
    message = (
        rf"where must have the shape of leading axes of \(32, 3, 2\), got {re.escape(str(shape))}"
    )
    with pytest.raises(ValueError, match=message):
        run(VARIABLES, X, np.ones(shape, bool))
