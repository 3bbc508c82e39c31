import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.core import pytree
from kd_jax.core.types import Mean


@pytest.fixture
def leaves():
    return {
        "b": [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(3, np.int32)],
        "a": {"kernel": jnp.ones((2,), jnp.bfloat16)},
        "m": Mean(np.zeros((0, 4), np.float32), True * np.ones(3, bool)),
    }


def test_leaves_stand_by_path_in_sorted_order(leaves):
    assert list(pytree.leaves_by_path(leaves)) == ["a/kernel", "b/0", "b/1", "m/count", "m/total"]


def test_describe_tells_shape_and_dtype(leaves):
    described = pytree.describe(leaves)
    assert described["b/0"] == [[2, 3], "float32"]
    assert described["b/1"] == [[], "int32"]
    assert described["a/kernel"] == [[2], "bfloat16"]


def test_the_fingerprint_is_a_sha256_over_paths_shapes_dtypes_and_bytes():
    array = np.array([[1.5, -2.0]], np.float32)
    want = hashlib.sha256(b"a/w (1, 2) float32\n" + array.tobytes()).hexdigest()
    assert pytree.fingerprint({"a": {"w": array}}) == f"sha256:{want}"


def test_the_fingerprint_does_not_depend_on_the_order_of_keys_nor_on_where_leaves_are(leaves):
    turned = {key: leaves[key] for key in reversed(leaves)}
    assert pytree.fingerprint(turned) == pytree.fingerprint(leaves)
    assert pytree.fingerprint(jax.tree.map(jnp.asarray, leaves)) == pytree.fingerprint(leaves)
    column_major = leaves | {"b": [np.asfortranarray(leaves["b"][0]), leaves["b"][1]]}
    assert pytree.fingerprint(column_major) == pytree.fingerprint(leaves)


@pytest.mark.parametrize(
    "changed",
    [
        {"w": np.array([1, 3], np.float32)},
        {"v": np.array([1, 2], np.float32)},
        {"w": np.array([[1, 2]], np.float32)},
        {"w": np.array([1, 2], np.float32).view(np.int32)},
    ],
    ids=["value", "path", "shape", "dtype"],
)
def test_the_fingerprint_changes_with(changed):
    assert pytree.fingerprint(changed) != pytree.fingerprint({"w": np.array([1, 2], np.float32)})


def test_checksums_differ_only_where_a_bit_differs(leaves):
    before = pytree.checksums(leaves)
    leaves["b"][0].view(np.uint8)[0, 0] ^= 1
    after = pytree.checksums(leaves)
    assert [path for path in before if before[path] != after[path]] == ["b/0"]


def test_a_leaf_spread_over_devices_is_gathered():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    whole = np.arange(16, dtype=np.float32)
    spread = jax.device_put(whole, jax.NamedSharding(mesh, jax.P("x")))
    np.testing.assert_array_equal(pytree.on_host(spread), whole)
    assert pytree.fingerprint({"w": spread}) == pytree.fingerprint({"w": whole})


def test_parameters_are_counted_by_number(leaves):
    assert pytree.count_parameters(leaves) == 6 + 1 + 2 + 0 + 3
    assert pytree.count_parameters({}) == 0


# Numbers that aren't finite


def test_leaves_that_hold_nan_or_infinity_are_named():
    tree = {
        "good": jnp.ones(3),
        "whole": jnp.arange(3),
        "deep": {"nan": jnp.array([0.0, jnp.nan]), "inf": jnp.array([-jnp.inf], jnp.bfloat16)},
    }
    assert pytree.not_finite(tree) == ["deep/inf", "deep/nan"]
    assert pytree.not_finite({"good": tree["good"], "whole": tree["whole"]}) == []
    assert pytree.not_finite({}) == []
    # What a user's own term may keep.
    others = {
        "key": jax.random.key(0),
        "number": 1.0,
        "bad": np.float32(np.inf),
        "none": np.bool_(),
    }
    assert pytree.not_finite(others) == ["bad"]


def test_one_flag_stands_for_a_whole_tree():
    assert pytree.all_finite({"a": jnp.ones(2), "b": jnp.arange(2)})
    assert not pytree.all_finite({"a": jnp.ones(2), "b": jnp.array(jnp.inf)})
    assert pytree.all_finite({})
