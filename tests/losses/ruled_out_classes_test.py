"""Logits of minus infinity, by which a teacher rules classes out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import losses
from kd_jax.losses.fused import Head

OUT = -np.inf
STUDENT = np.array([[1, 2, 3, 0], [0.5, -1, 2, 1]], np.float64)
TEACHER = np.array([[2, OUT, 1, 0], [0, 1, OUT, OUT]], np.float64)


def probabilities(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def kl(p, q):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * (np.log(p) - np.log(q)), 0).sum(-1)


P, Q = probabilities(TEACHER), probabilities(STUDENT)


def decoupled(label):
    """Target against the rest, and among the rest, at the weights 1 and 8."""
    found = []
    for p, q in zip(P, Q, strict=True):
        two = [np.array([each[label], 1 - each[label]]) for each in (p, q)]
        rest = [np.delete(each, label) / np.delete(each, label).sum() for each in (p, q)]
        found.append(kl(*two) + 8 * kl(*rest))
    return np.array(found)


def standardized():
    rows = []
    for s, t in zip(STUDENT, TEACHER, strict=True):
        both = np.isfinite(t)
        z, y = ((each - each[both].mean()) / (each[both].std(ddof=1) + 1e-7) for each in (s, t))
        rows.append(4 * kl(probabilities(y / 2), probabilities(z / 2)))
    return np.array(rows)


def mixture(share):
    return share * P + (1 - share) * Q


LABELS = np.array([0, 0], np.int32)
CASES = {
    "soft_target_kl": (dict(temperature=1.0), kl(P, Q), [1.208368, 2.509567]),
    "jensen_shannon": (
        dict(beta=0.5),
        0.5 * kl(P, mixture(0.5)) + 0.5 * kl(Q, mixture(0.5)),
        [0.261622, 0.500170],
    ),
    "skew_kl": (dict(alpha=0.1), kl(P, mixture(0.1)), [0.870557, 1.609596]),
    "skew_reverse_kl": (dict(alpha=0.1), kl(Q, mixture(0.9)), None),
    "total_variation": ({}, 0.5 * np.abs(P - Q).sum(-1), None),
    "standardized_kl": (dict(temperature=2.0), standardized(), None),
    "decoupled_kd": (dict(temperature=1.0), decoupled(0), None),
}


def call(name, student, teacher, settings):
    extra = (jnp.asarray(LABELS),) if name == "decoupled_kd" else ()
    return getattr(losses, name)(student, teacher, *extra, **settings)


@pytest.mark.parametrize("compiled", [False, True], ids=["", "jit"])
@pytest.mark.parametrize("name", CASES)
def test_the_value_is_that_of_the_formula_and_the_gradient_is_finite(name, compiled):
    settings, want, told = CASES[name]

    def total(student):
        return call(name, student, jnp.asarray(TEACHER, jnp.float32), settings).sum()

    def values(student):
        return call(name, student, jnp.asarray(TEACHER, jnp.float32), settings)

    slope = jax.grad(total)
    if compiled:
        values, slope = jax.jit(values), jax.jit(slope)
    student = jnp.asarray(STUDENT, jnp.float32)
    np.testing.assert_allclose(values(student), want, rtol=2e-5)
    if told is not None:
        np.testing.assert_allclose(want, told, atol=1e-6)
    assert np.isfinite(slope(student)).all()


@pytest.mark.parametrize("name", CASES)
def test_a_class_that_both_rule_out_adds_nothing(name):
    """As if there were no such class; but for a target that is never it."""
    settings = CASES[name][0]
    student = jnp.asarray(STUDENT, jnp.float32).at[:, 3].set(OUT)
    teacher = jnp.asarray(TEACHER, jnp.float32).at[:, 3].set(OUT)
    with_it = call(name, student, teacher, settings)
    without = call(name, student[:, :3], teacher[:, :3], settings)
    np.testing.assert_allclose(with_it, without, rtol=2e-5, atol=1e-6)
    slope = jax.grad(lambda each: call(name, each, teacher, settings).sum())(student)
    assert np.isfinite(slope).all()


def test_a_student_that_seeks_what_only_the_teacher_rules_out_is_infinitely_far():
    found = losses.reverse_kl(jnp.asarray(STUDENT), jnp.asarray(TEACHER))
    assert np.isposinf(found).all()
    forward = losses.soft_target_kl(jnp.asarray(TEACHER), jnp.asarray(STUDENT))
    assert np.isposinf(forward).all()


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_ends_of_jensen_shannon_are_the_two_divergences(beta):
    student, teacher = jnp.asarray(STUDENT, jnp.float32), jnp.asarray(TEACHER, jnp.float32)
    found = losses.jensen_shannon(student, teacher, beta=beta)
    np.testing.assert_allclose(found, kl(P, Q) if beta == 0 else [np.inf] * 2, rtol=2e-5)


@pytest.mark.parametrize("name", ["soft_target_kl", "jensen_shannon"])
def test_fused_and_plain_agree(name):
    """A head of an identity whose bias rules the classes out gives these logits."""
    rows = jnp.asarray(STUDENT[:1], jnp.float32)
    bias = jnp.asarray([0, OUT, 0, 0], jnp.float32)
    identity = jnp.eye(4, dtype=jnp.float32)
    student = Head(rows, identity, jnp.zeros(4))
    teacher = Head(rows * 0.5, identity, bias)
    setting = {"temperature": 2.0} if name == "soft_target_kl" else {"beta": 0.3}

    def fused(each):
        found = getattr(losses, f"fused_{name}")(Head(each, *student[1:]), teacher, **setting)
        return jnp.sum(found)

    def plain(each):
        return jnp.sum(getattr(losses, name)(each, rows * 0.5 + bias[None], **setting))

    (one, slope), (other, want) = (jax.value_and_grad(each)(rows) for each in (fused, plain))
    np.testing.assert_allclose(one, other, rtol=2e-5)
    np.testing.assert_allclose(slope, want, rtol=2e-4, atol=1e-6)
