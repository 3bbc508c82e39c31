import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import losses


@pytest.mark.parametrize(
    ("size", "rtol"), [(50.0, 1e-4), (1e4, 5e-3)]
)  # float32 near 1e4 has steps of 1e-3.
def test_decoupled_kd_is_exact_where_the_target_takes_everything(size, rtol):
    """In the original the log of the other classes' probability is then that of 0."""
    teacher = jnp.asarray([[size, 0.0, -1.0, 2.0]])
    student = jnp.asarray([[size, 1.0, 0.5, -1.0]])
    labels = jnp.asarray([0])

    def loss(s):
        return losses.decoupled_kd(s, teacher, labels, temperature=1.0, nontarget_weight=8.0)[0]

    value, gradient = jax.value_and_grad(loss)(student)
    p, q = (
        np.exp(x) / np.exp(x).sum()
        for x in (np.array([0.0, -1.0, 2.0]), np.array([1.0, 0.5, -1.0]))
    )
    np.testing.assert_allclose(value, 8 * np.sum(p * np.log(p / q)), rtol=rtol)
    np.testing.assert_allclose(gradient[0, 1:], 8 * (q - p), rtol=rtol, atol=rtol)
    assert np.all(np.isfinite(gradient))
