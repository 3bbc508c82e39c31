import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import special

from kd_jax import losses

EAGER_AND_JIT = pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
CLASSES = 7


def kl_reference(student, teacher, temperature):
    """Hinton's formula once more, independently: float64, scipy."""
    p, q = (special.softmax(np.float64(z) / temperature, axis=-1) for z in (teacher, student))
    return temperature**2 * special.rel_entr(p, q).sum(-1)


def cross_entropy_reference(student, labels):
    """-log of the label's probability, one example at a time, float64."""
    rows = np.float64(student).reshape(-1, student.shape[-1])
    picked = [z[k] - np.log(np.exp(z).sum()) for z, k in zip(rows, labels.reshape(-1), strict=True)]
    return -np.reshape(picked, labels.shape)


def draw(*shape, seed=0, scale=2.0):
    return np.random.default_rng(seed).normal(scale=scale, size=shape).astype(np.float32)


@pytest.fixture
def pair():
    return draw(5, CLASSES), draw(5, CLASSES, seed=1)


@pytest.fixture
def labels():
    return np.array([0, 6, 3, 3, 1], np.int32)


def forward_kl(temperature=4.0):
    return lambda student, teacher: losses.soft_target_kl(student, teacher, temperature=temperature)


# soft_target_kl


@EAGER_AND_JIT
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_target_kl_matches_the_paper(pair, temperature, transform):
    loss = transform(forward_kl(temperature))
    np.testing.assert_allclose(loss(*pair), kl_reference(*pair, temperature), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_target_kl_is_zero_and_stationary_at_the_teacher_up_to_a_shift(pair, temperature):
    _, teacher = pair
    value, pull = jax.vjp(
        lambda z: losses.soft_target_kl(z, teacher, temperature=temperature), teacher + 3
    )
    np.testing.assert_allclose(value, 0, atol=1e-5)
    np.testing.assert_allclose(*pull(np.ones(5, np.float32)), 0, atol=1e-5)


def test_soft_target_kl_runs_from_teacher_to_student(pair):
    student, teacher = pair
    assert not np.allclose(
        forward_kl()(student, teacher), kl_reference(teacher, student, 4.0), rtol=1e-2
    )


def test_no_gradient_of_soft_target_kl_reaches_the_teacher(pair):
    gradient = jax.grad(lambda *pair: forward_kl()(*pair).sum(), argnums=1)(*pair)
    np.testing.assert_array_equal(gradient, 0)


def test_gradient_of_soft_target_kl_is_temperature_times_the_difference_of_probabilities(pair):
    student, teacher = pair
    gradient = jax.grad(lambda z: forward_kl(4.0)(z, teacher).sum())(student)
    want = 4 * (special.softmax(student / 4, -1) - special.softmax(teacher / 4, -1))
    np.testing.assert_allclose(gradient, want, rtol=1e-4, atol=1e-6)


def test_gradient_of_soft_target_kl_agrees_with_finite_differences(pair):
    with jax.enable_x64(True):
        student, teacher = map(np.float64, pair)
        check_grads(
            lambda z: forward_kl(2.0)(z, teacher), (student,), order=1, modes=["fwd", "rev"]
        )


def test_the_square_of_the_temperature_keeps_the_size_of_the_gradient():
    student, teacher = draw(5, CLASSES, scale=0.1), draw(5, CLASSES, seed=1, scale=0.1)
    norms = [
        np.linalg.norm(jax.grad(lambda z, t=temperature: forward_kl(t)(z, teacher).sum())(student))
        for temperature in (1.0, 3.0, 10.0)
    ]
    np.testing.assert_allclose(norms, norms[0], rtol=0.05)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_target_kl_and_its_gradient_stay_finite_at_extreme_logits(temperature):
    student = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], np.float32)

    def loss(z, t):
        return forward_kl(temperature)(z, t).sum()

    for teacher in (student, -student, student[:, ::-1]):
        value, gradient = jax.value_and_grad(loss)(student, teacher)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_soft_target_kl_of_small_dtypes_is_computed_in_float32(pair, dtype):
    small = [jnp.asarray(z, dtype) for z in pair]
    value = forward_kl()(*small)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(
        value, forward_kl()(*(z.astype(jnp.float32) for z in small)), rtol=1e-6
    )
    np.testing.assert_allclose(
        value, kl_reference(*(np.asarray(z, np.float64) for z in small), 4.0), rtol=1e-4
    )


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_soft_target_kl_is_one_value_for_every_leading_position(leading):
    student, teacher = draw(*leading, CLASSES), draw(*leading, CLASSES, seed=1)
    value = forward_kl()(student, teacher)
    assert value.shape == leading
    np.testing.assert_allclose(value, kl_reference(student, teacher, 4.0), rtol=1e-4)


@pytest.mark.usefixtures("own_refusals")
@pytest.mark.parametrize("shape", [(5, 1), (CLASSES,), (1, CLASSES), (5, 8), (5, 1, CLASSES)])
def test_soft_target_kl_refuses_a_teacher_of_another_shape_and_names_both(pair, shape):
    with pytest.raises(ValueError, match="one shape") as refusal:
        forward_kl()(pair[0], draw(*shape))
    assert str((5, CLASSES)) in str(refusal.value)
    assert str(shape) in str(refusal.value)


@pytest.mark.usefixtures("own_refusals")
@pytest.mark.parametrize("side", [0, 1])
def test_soft_target_kl_refuses_integer_logits(pair, side):
    pair = list(pair)
    pair[side] = pair[side].astype(np.int32)
    with pytest.raises(
        ValueError, match=f"{['student', 'teacher'][side]} logits must be floating point, got int32"
    ):
        forward_kl()(*pair)


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(pair, temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
        forward_kl(temperature)(*pair)


def test_a_traced_temperature_gives_what_a_number_gives(pair):
    traced = jax.jit(lambda temperature: forward_kl(temperature)(*pair))
    for temperature in (1.0, 4.0):
        np.testing.assert_allclose(traced(temperature), forward_kl(temperature)(*pair), rtol=1e-5)


# cross_entropy


@EAGER_AND_JIT
def test_cross_entropy_of_classes_matches_an_independent_computation(pair, labels, transform):
    value = transform(losses.cross_entropy)(pair[0], labels)
    np.testing.assert_allclose(value, cross_entropy_reference(pair[0], labels), rtol=1e-5)


@EAGER_AND_JIT
def test_cross_entropy_of_soft_labels_matches_an_independent_computation(pair, transform):
    student, teacher = pair
    soft = special.softmax(teacher, -1)
    want = -(np.float64(soft) * special.log_softmax(np.float64(student), -1)).sum(-1)
    np.testing.assert_allclose(transform(losses.cross_entropy)(student, soft), want, rtol=1e-5)


def test_one_hot_soft_labels_and_classes_give_the_same_cross_entropy(pair, labels):
    one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
    np.testing.assert_array_equal(
        losses.cross_entropy(pair[0], one_hot), losses.cross_entropy(pair[0], labels)
    )


def test_cross_entropy_is_zero_where_the_student_is_certain_and_right(labels):
    certain = 1e4 * np.eye(CLASSES, dtype=np.float32)[labels]
    np.testing.assert_array_equal(losses.cross_entropy(certain, labels), 0)


def test_cross_entropy_is_least_where_the_student_predicts_the_soft_labels(pair):
    soft = special.softmax(pair[1], -1)
    gradient = jax.grad(lambda z: losses.cross_entropy(z, soft).sum())(pair[1])
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    np.testing.assert_allclose(
        losses.cross_entropy(pair[1], soft), special.entr(soft).sum(-1), rtol=1e-5
    )


def test_gradient_of_cross_entropy_is_probabilities_minus_the_label(pair, labels):
    gradient = jax.grad(lambda z: losses.cross_entropy(z, labels).sum())(pair[0])
    np.testing.assert_allclose(
        gradient, special.softmax(pair[0], -1) - np.eye(CLASSES)[labels], rtol=1e-4, atol=1e-6
    )


def test_gradient_of_cross_entropy_agrees_with_finite_differences(pair, labels):
    soft = special.softmax(np.float64(pair[1]), -1)
    with jax.enable_x64(True):
        for targets in (labels, soft):
            check_grads(
                lambda z, y=targets: losses.cross_entropy(z, y),
                (np.float64(pair[0]),),
                1,
                ["fwd", "rev"],
            )


def test_no_gradient_of_cross_entropy_reaches_soft_labels(pair):
    soft = special.softmax(pair[1], -1)
    gradient = jax.grad(lambda y: losses.cross_entropy(pair[0], y).sum())(soft)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("outside", [-1, CLASSES])
def test_a_class_outside_the_range_costs_nothing(pair, outside):
    np.testing.assert_array_equal(losses.cross_entropy(pair[0], np.full(5, outside, np.int32)), 0)


def test_cross_entropy_and_its_gradient_stay_finite_at_extreme_logits():
    student = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], np.float32)
    one_hot = np.eye(3, dtype=np.float32)[[1, 0]]
    for targets in (np.array([1, 0], np.int32), np.array([0, 2], np.int32), one_hot):
        value, gradient = jax.value_and_grad(lambda z, y=targets: losses.cross_entropy(z, y).sum())(
            student
        )
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_a_class_ruled_out_by_both_sides_costs_nothing():
    student = np.array([0.0, 0.0, -np.inf], np.float32)

    def loss(z):
        return losses.cross_entropy(z, np.array([0.5, 0.5, 0.0], np.float32))

    value, gradient = jax.value_and_grad(loss)(student)
    np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_cross_entropy_of_small_dtypes_is_computed_in_float32(pair, labels, dtype):
    small, soft = jnp.asarray(pair[0], dtype), jnp.asarray(special.softmax(pair[1], -1), dtype)
    for targets, wide in ((labels, labels), (soft, soft.astype(jnp.float32))):
        value = losses.cross_entropy(small, targets)
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(
            value, losses.cross_entropy(small.astype(jnp.float32), wide), rtol=1e-6
        )


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_cross_entropy_is_one_value_for_every_leading_position(leading):
    student, targets = draw(*leading, CLASSES), np.full(leading, 2, np.int32)
    for y in (targets, np.eye(CLASSES, dtype=np.float32)[targets]):
        value = losses.cross_entropy(student, y)
        assert value.shape == leading
        np.testing.assert_allclose(value, cross_entropy_reference(student, targets), rtol=1e-5)


@pytest.mark.usefixtures("own_refusals")
@pytest.mark.parametrize(
    "labels", [np.zeros((5, 1), np.int32), np.zeros((), np.int32), np.zeros(4, np.int32)]
)
def test_classes_must_have_the_leading_shape_of_the_logits(pair, labels):
    with pytest.raises(ValueError, match="leading shape") as refusal:
        losses.cross_entropy(pair[0], labels)
    assert "(5,)" in str(refusal.value)
    assert str(labels.shape) in str(refusal.value)


@pytest.mark.usefixtures("own_refusals")
@pytest.mark.parametrize("shape", [(5,), (5, 1), (CLASSES,), (5, CLASSES + 1)])
def test_soft_labels_must_have_the_shape_of_the_logits(pair, shape):
    with pytest.raises(ValueError, match="soft labels must have the logits' shape") as refusal:
        losses.cross_entropy(pair[0], np.zeros(shape, np.float32))
    assert str((5, CLASSES)) in str(refusal.value)
    assert str(shape) in str(refusal.value)


@pytest.mark.usefixtures("own_refusals")
def test_cross_entropy_refuses_integer_logits(labels):
    with pytest.raises(ValueError, match="student logits must be floating point, got int32"):
        losses.cross_entropy(np.zeros((5, CLASSES), np.int32), labels)
