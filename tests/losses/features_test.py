import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kd_jax import losses

WIDTH = 6


def reference(student, teacher):
    """The mean over the width once more, independently: float64, an explicit sum."""
    difference = np.float64(student) - np.float64(teacher)
    return sum(difference[..., d] ** 2 for d in range(WIDTH)) / WIDTH


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def pair():
    return draw(4, 3, WIDTH), draw(4, 3, WIDTH, seed=1)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_hidden_mse_matches_an_independent_computation(pair, transform):
    np.testing.assert_allclose(transform(losses.hidden_mse)(*pair), reference(*pair), rtol=1e-5)


def test_hidden_mse_is_zero_and_stationary_at_the_teacher(pair):
    value, pull = jax.vjp(lambda s: losses.hidden_mse(s, pair[1]), pair[1])
    np.testing.assert_array_equal(value, 0)
    np.testing.assert_array_equal(*pull(np.ones((4, 3), np.float32)), 0)


def test_no_gradient_of_hidden_mse_reaches_the_teacher(pair):
    gradient = jax.grad(lambda *pair: losses.hidden_mse(*pair).sum(), argnums=1)(*pair)
    np.testing.assert_array_equal(gradient, 0)


def test_gradient_of_hidden_mse_agrees_with_finite_differences(pair):
    with jax.enable_x64(True):
        student, teacher = map(np.float64, pair)
        check_grads(
            lambda s: losses.hidden_mse(s, teacher), (student,), order=1, modes=["fwd", "rev"]
        )


def test_hidden_mse_and_its_gradient_stay_finite_at_extreme_features():
    student = np.full((2, WIDTH), 1e4, np.float32)
    value, gradient = jax.value_and_grad(lambda s: losses.hidden_mse(s, -student).sum())(student)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_float16_features_whose_squares_would_overflow_are_computed_in_float32():
    student, teacher = jnp.full((2, WIDTH), 500.0, jnp.float16), jnp.zeros((2, WIDTH), jnp.float16)
    np.testing.assert_array_equal(losses.hidden_mse(student, teacher), 250_000.0)


def test_hidden_mse_of_bfloat16_is_computed_in_float32(pair):
    small = [jnp.asarray(x, jnp.bfloat16) for x in pair]
    value = losses.hidden_mse(*small)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(
        value, losses.hidden_mse(*(x.astype(jnp.float32) for x in small)), rtol=1e-6
    )


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_hidden_mse_is_one_value_for_every_leading_position(leading):
    student, teacher = draw(*leading, WIDTH), draw(*leading, WIDTH, seed=1)
    value = losses.hidden_mse(student, teacher)
    assert value.shape == leading
    np.testing.assert_allclose(value, reference(student, teacher), rtol=1e-5)


@pytest.mark.usefixtures("own_refusals")
@pytest.mark.parametrize("shape", [(4, 3, 1), (WIDTH,), (4, 1, WIDTH), (4, 3, WIDTH + 1)])
def test_hidden_mse_refuses_a_teacher_of_another_shape_and_names_both(pair, shape):
    with pytest.raises(ValueError, match="one shape") as refusal:
        losses.hidden_mse(pair[0], draw(*shape))
    assert str((4, 3, WIDTH)) in str(refusal.value)
    assert str(shape) in str(refusal.value)


@pytest.mark.usefixtures("own_refusals")
@pytest.mark.parametrize("side", [0, 1])
def test_hidden_mse_refuses_integer_features(pair, side):
    pair = list(pair)
    pair[side] = pair[side].astype(np.int32)
    with pytest.raises(
        ValueError,
        match=f"{['student', 'teacher'][side]} features must be floating point, got int32",
    ):
        losses.hidden_mse(*pair)
