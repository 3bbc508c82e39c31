import jax
import jax.numpy as jnp
import pytest

from kd_jax.core import checks


@pytest.mark.parametrize(("student", "teacher"), [((3,), (3, 1)), ((2, 3), (3, 2)), ((3,), ())])
def test_a_pair_that_would_broadcast_is_refused_with_both_shapes(student, teacher):
    with pytest.raises(ValueError, match="maps must have one shape") as refusal:
        checks.require_equal_shapes(jnp.zeros(student), jnp.zeros(teacher), "maps")
    assert str(student) in str(refusal.value)
    assert str(teacher) in str(refusal.value)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bool_])
def test_what_is_not_floating_point_is_refused_by_name_and_dtype(dtype):
    with pytest.raises(ValueError, match=f"scores must be floating point, got {jnp.dtype(dtype)}"):
        checks.require_floating(jnp.zeros(3, dtype), "scores")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_every_floating_dtype_is_accepted(dtype):
    checks.require_floating(jnp.zeros(3, dtype), "scores")


@pytest.mark.parametrize("value", [0, 0.0, -1.5, float("nan")])
def test_a_number_that_is_not_positive_is_refused(value):
    with pytest.raises(ValueError, match=f"margin must be positive, got {value}"):
        checks.require_positive(value, "margin")


def test_a_traced_value_cannot_be_checked_and_passes():
    def check(value):
        checks.require_positive(value, "margin")
        return value

    assert jax.jit(check)(-1.0) == -1.0


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        ([jnp.bfloat16], jnp.float32),
        ([jnp.float16, jnp.bfloat16], jnp.float32),
        ([jnp.float32, jnp.bfloat16], jnp.float32),
        ([jnp.float64, jnp.bfloat16], jnp.float64),
    ],
)
def test_all_are_computed_in_the_widest_dtype_and_float32_at_least(given, computed):
    with jax.enable_x64(True):
        arrays = checks.at_least_float32(*(jnp.ones(2, dtype) for dtype in given))
    assert [array.dtype for array in arrays] == [computed] * len(given)
