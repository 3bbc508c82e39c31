import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import losses


@pytest.mark.parametrize(
    "loss", [losses.rkd_distance, losses.rkd_angle], ids=lambda loss: loss.__name__
)
def test_copies_that_differ_by_rounding_are_one_example(loss):
    rng = np.random.default_rng(0)
    student, teacher = (rng.normal(size=(5, 7)).astype(np.float32) for _ in range(2))
    student[3] = student[1]
    rounded = student.copy()
    rounded[3] *= 1 + np.finfo(np.float32).eps
    assert not np.array_equal(rounded, student)
    np.testing.assert_allclose(
        loss(jnp.asarray(rounded), teacher), loss(jnp.asarray(student), teacher), rtol=1e-5
    )


def test_examples_that_are_merely_close_are_two():
    student = jnp.asarray([[1.0, 0.0], [1.0, 1e-4], [0.0, 1.0]])
    teacher = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    # Distances 1e-4, 2^.5 and about 2^.5 over their mean, against 0, 2^.5 and 2^.5 over theirs.
    mean = (1e-4 + 2**0.5 + (1 + (1 - 1e-4) ** 2) ** 0.5) / 3
    off = np.array([1e-4 / mean, 2**0.5 / mean - 1, (1 + (1 - 1e-4) ** 2) ** 0.5 / mean - 1])
    np.testing.assert_allclose(losses.rkd_distance(student, teacher), np.sum(off**2) / 9, rtol=1e-4)
