"""Teachers' logits in fewer numbers and bits: what is exact, and how large the error is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.core.types import LOGITS
from kd_jax.losses.logits import soft_target_kl
from kd_jax.teachers.compression import PLACES, REST, Compression, check_fits, expand

K = 1000
LOGITS_OF_TEXTS = jnp.asarray(
    # A few likely classes and a long tail, as language models have them.
    np.random.default_rng(0).normal(size=(6, 4, K)) * 2 - 3 * np.log(1 + np.arange(K)),
    jnp.float32,
)


def kept(logits=LOGITS_OF_TEXTS, **options):
    compression = Compression(**options)
    found = jax.jit(compression.compress)(logits)
    assert sorted(found) == sorted((LOGITS, *compression.names))
    return expand(found, logits.shape[-1])


@pytest.mark.parametrize("k", [K, K + 5])
def test_all_of_them_are_as_they_were(k):
    np.testing.assert_array_equal(kept(top_k=k), LOGITS_OF_TEXTS)
    np.testing.assert_array_equal(kept(), LOGITS_OF_TEXTS)


@pytest.mark.parametrize("k", [1, 8, 64])
def test_the_largest_keep_their_probabilities_and_the_others_share_the_rest(k):
    found = np.asarray(jax.nn.softmax(kept(top_k=k)))
    wanted = np.asarray(jax.nn.softmax(LOGITS_OF_TEXTS))
    order = np.argsort(-wanted, axis=-1)
    head, tail = order[..., :k], order[..., k:]
    at = np.take_along_axis
    np.testing.assert_allclose(at(found, head, -1), at(wanted, head, -1), rtol=2e-6)
    rest = at(found, tail, -1)
    np.testing.assert_allclose(rest, np.broadcast_to(rest[..., :1], rest.shape), rtol=1e-6)
    np.testing.assert_allclose(rest.sum(-1), at(wanted, tail, -1).sum(-1), rtol=2e-5)


def test_the_error_falls_with_k():
    errors = [
        float(soft_target_kl(kept(top_k=k)[0], LOGITS_OF_TEXTS[0], temperature=1.0).mean())
        for k in (1, 8, 64, 512)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 1
    assert errors[2] < 0.05
    assert errors[3] < 1e-3


@pytest.mark.parametrize(("dtype", "relative"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_fewer_bits_cost_what_the_format_rounds(dtype, relative):
    found = kept(dtype=dtype)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, LOGITS_OF_TEXTS, rtol=relative)
    error = soft_target_kl(found[0], LOGITS_OF_TEXTS[0], temperature=1.0).mean()
    assert float(error) < (1e-5 if dtype == "float16" else 1e-3)


def test_places_take_as_few_bits_as_the_classes_need():
    few = Compression(top_k=2).compress(jnp.zeros((1, 2**16)))
    many = jax.eval_shape(Compression(top_k=2).compress, jnp.zeros((1, 2**16 + 1)))
    assert (few[PLACES].dtype, many[PLACES].dtype) == (jnp.uint16, jnp.uint32)
    assert few[REST].shape == (1,)


def test_classes_that_are_ruled_out_stay_so():
    logits = jnp.asarray([[1.0, -np.inf, 0.0, -np.inf]])
    np.testing.assert_array_equal(kept(logits, top_k=4), logits)
    np.testing.assert_array_equal(kept(logits, top_k=2), logits)


def test_double_precision_stays():
    with jax.enable_x64(True):
        logits = jnp.asarray(LOGITS_OF_TEXTS, jnp.float64) / 3
        found = kept(logits, top_k=K)
        assert found.dtype == jnp.float64
        np.testing.assert_array_equal(found, logits)


def test_very_small_logits_rule_out_no_class():
    found = kept(jnp.asarray([[0.0, -1e6, -np.inf]]), dtype="float16")
    assert np.isfinite(found[0, 1])
    assert np.isneginf(found[0, 2])


def test_logits_beyond_the_dtype_are_refused():
    large = np.asarray(Compression(dtype="float16").compress(jnp.full((1, 2), 1e5))[LOGITS])
    with pytest.raises(ValueError, match=r"models.teacher: a logit is larger than float16 holds"):
        check_fits(large, "teacher")
    check_fits(np.array([[-np.inf, 0.0]], np.float16), "teacher")
