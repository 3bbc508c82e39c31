import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import losses
from kd_jax.losses import Head

pytestmark = pytest.mark.grid

TOKENS, CLASSES, OURS, THEIRS = 13, 11, 5, 7
PAIRS = {
    "soft_target_kl": (losses.fused_soft_target_kl, losses.soft_target_kl, {"temperature": 1.0}),
    "soft_target_kl at 3": (
        losses.fused_soft_target_kl,
        losses.soft_target_kl,
        {"temperature": 3.0},
    ),
    "reverse_kl at 2": (losses.fused_reverse_kl, losses.reverse_kl, {"temperature": 2.0}),
    "jensen_shannon": (losses.fused_jensen_shannon, losses.jensen_shannon, {"beta": 0.3}),
    "jensen_shannon at 0": (losses.fused_jensen_shannon, losses.jensen_shannon, {"beta": 0.0}),
    "jensen_shannon at 1": (losses.fused_jensen_shannon, losses.jensen_shannon, {"beta": 1.0}),
}
every_pair = pytest.mark.parametrize(("fused", "plain", "settings"), PAIRS.values(), ids=PAIRS)


def heads(*, bias=True, dtype=np.float32, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape) * scale, dtype)

    def make(width):
        return Head(draw(TOKENS, width), draw(width, CLASSES), draw(CLASSES) if bias else None)

    return make(OURS), make(THEIRS)


def logits(head):
    product = head.hidden.astype(
        jnp.promote_types(jnp.float32, head.hidden.dtype)
    ) @ head.kernel.astype(jnp.promote_types(jnp.float32, head.kernel.dtype))
    return product if head.bias is None else product + head.bias[None].astype(product.dtype)


def summed(plain, settings, weights=None):
    def total(student, teacher):
        values = plain(logits(student), logits(teacher), **settings)
        return jnp.sum(values if weights is None else jnp.where(weights != 0, weights * values, 0))

    return total


def assert_same(found, wanted, rtol=2e-5):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * np.abs(theirs).max())


@every_pair
@pytest.mark.parametrize("chunk", [1, 4, 13, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_value_and_gradient_are_those_of_the_plain_form(fused, plain, settings, chunk, bias):
    student, teacher = heads(bias=bias)
    ours = jax.jit(jax.value_and_grad(functools.partial(fused, chunk=chunk, **settings)))(
        student, teacher
    )
    assert_same(ours, jax.value_and_grad(summed(plain, settings))(student, teacher))


@every_pair
def test_the_value_alone_is_the_same(fused, plain, settings):
    student, teacher = heads()
    np.testing.assert_allclose(
        fused(student, teacher, chunk=4, **settings),
        summed(plain, settings)(student, teacher),
        rtol=1e-5,
    )


@every_pair
def test_weights_are_those_of_the_tokens_and_what_weighs_nothing_may_be_anything(
    fused, plain, settings
):
    student, teacher = heads()
    weights = np.random.default_rng(1).random(TOKENS).astype(np.float32)
    weights[[2, 12]] = 0
    want = jax.value_and_grad(summed(plain, settings, weights))(student, teacher)

    def spoil(head):
        return head._replace(hidden=head.hidden.at[jnp.array([2, 12])].set(jnp.nan))

    found = jax.value_and_grad(functools.partial(fused, weights=weights, chunk=4, **settings))(
        spoil(student), spoil(teacher)
    )
    assert_same(found, want)


@every_pair
def test_the_gradient_of_a_scaled_sum_is_scaled(fused, plain, settings):
    student, teacher = heads()

    def scaled(function):
        return jax.grad(lambda s: jnp.square(function(s, teacher)))(student)

    assert_same(
        scaled(functools.partial(fused, chunk=5, **settings)), scaled(summed(plain, settings))
    )


@every_pair
def test_the_teacher_learns_nothing(fused, plain, settings):
    del plain
    student, teacher = heads()
    gradient = jax.grad(functools.partial(fused, chunk=5, **settings), argnums=1)(student, teacher)
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), gradient)


@every_pair
def test_bfloat16_heads_are_computed_in_float32_and_keep_their_dtype(fused, plain, settings):
    student, teacher = heads(dtype=jnp.bfloat16)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (student, teacher))
    value, gradient = jax.value_and_grad(functools.partial(fused, chunk=4, **settings))(
        student, teacher
    )
    want, slope = jax.value_and_grad(summed(plain, settings))(*wide)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, want, rtol=1e-5)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.bfloat16)}
    assert_same(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gradient), slope, rtol=2e-2)


@every_pair
def test_saturated_logits_are_finite(fused, plain, settings):
    student, teacher = heads(scale=100.0)
    value, gradient = jax.value_and_grad(functools.partial(fused, chunk=4, **settings))(
        student, teacher
    )
    np.testing.assert_allclose(value, summed(plain, settings)(student, teacher), rtol=1e-5)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_a_traced_setting_compiles_once():
    student, teacher = heads()
    compiled = jax.jit(lambda t: losses.fused_soft_target_kl(student, teacher, temperature=t))
    want = [summed(losses.soft_target_kl, {"temperature": t})(student, teacher) for t in (1.0, 4.0)]
    np.testing.assert_allclose([compiled(1.0), compiled(4.0)], want, rtol=1e-5)
    assert compiled._cache_size() == 1


def test_the_logits_of_all_tokens_are_never_held():
    tokens, width, vocabulary = 64, 4, 4096
    head = Head(
        *(
            jax.ShapeDtypeStruct(shape, jnp.float32)
            for shape in ((tokens, width), (width, vocabulary))
        )
    )
    loss = functools.partial(losses.fused_soft_target_kl, chunk=4)
    memory = jax.jit(jax.value_and_grad(loss)).lower(head, head).compile().memory_analysis()
    assert memory.temp_size_in_bytes < tokens * vocabulary * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(student=Head(jnp.zeros((13, 6)), jnp.zeros((5, 11)))),
            r"\[N, D\] and \[D, V\], got \(13, 6\) and",
        ),
        (
            dict(student=Head(jnp.zeros((13, 5)), jnp.zeros((5, 12)))),
            r"one shape, got \(13, 12\) and \(13, 11\)",
        ),
        (
            dict(student=Head(jnp.zeros((13, 5), int), jnp.zeros((5, 11)))),
            "must be floating point, got int32",
        ),
        (
            dict(teacher=Head(jnp.zeros((13, 5)), jnp.zeros((5, 11)), jnp.zeros(3))),
            r"teacher bias must be \(11,\)",
        ),
        (
            dict(weights=jnp.ones(4)),
            r"weights must have shape \(13,\), one for each token, got \(4,\)",
        ),
        (dict(temperature=0.0), "temperature must be positive, got 0.0"),
        (dict(chunk=0), "chunk must be a whole number from 1 on, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    student, teacher = heads()
    with pytest.raises(ValueError, match=message):
        losses.fused_soft_target_kl(**(dict(student=student, teacher=teacher) | change))


def test_a_beta_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"beta must lie between 0 and 1, got 1\.5"):
        losses.fused_jensen_shannon(*heads(), beta=1.5)
