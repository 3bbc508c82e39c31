"""The Python API: a user's own modules, as they are."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import kd_jax as kd
from kd_jax.training.sharding import make_parallel

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 6, 6, 1)), RNG.integers(0, 5, 32)
BATCHES = [(X[i : i + 16], Y[i : i + 16]) for i in (0, 16)]
ONE = make_parallel(backend="jit", data=1, fsdp=1, tensor=1)


@pytest.fixture(autouse=True)
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


class LinenCnn(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 3), name="conv", param_dtype=jnp.float64)(x)
        return nn.Dense(5, name="head", param_dtype=jnp.float64)(nn.relu(x).mean((1, 2)))


class NnxCnn(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 3, (3, 3), rngs=rngs, param_dtype=jnp.float64)
        self.head = nnx.Linear(3, 5, rngs=rngs, param_dtype=jnp.float64)

    def __call__(self, x):
        return self.head(nnx.relu(self.conv(x)).mean((1, 2)))


class Teacher(nnx.Module):
    """With everything that must be off in a teacher: dropout and BatchNorm's batch statistics."""

    def __init__(self, rngs):
        options = dict(rngs=rngs, param_dtype=jnp.float64)
        self.hidden = nnx.Linear(36, 8, **options)
        self.norm, self.drop = nnx.BatchNorm(8, **options), nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(8, 5, **options)

    def __call__(self, x):
        x = self.norm(self.hidden(x.reshape(x.shape[0], -1)))
        return self.head(self.drop(nnx.relu(x)))


class Deep(nn.Module):
    """A student with dropout and BatchNorm of Linen's own, and a switch for training."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(8, name="hidden", param_dtype=jnp.float64)(x.reshape(x.shape[0], -1))
        x = nn.BatchNorm(use_running_average=not train, param_dtype=jnp.float64)(x)
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x))
        return nn.Dense(5, param_dtype=jnp.float64)(x)


LOSSES = {
    "hard": kd.terms.CrossEntropy(weight=0.3),
    "soft": dict(term="soft_target_kl", weight=0.7, temperature=4.0),
}


def values(module):
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.RngKey))))


def distill(student, teacher, losses=None, steps=6, **options):
    return kd.distill(
        student,
        teacher,
        BATCHES,
        losses=losses or LOSSES,
        optimizer=optax.adam(1e-2),
        steps=steps,
        parallel=ONE,
        **options,
    )


def test_an_nnx_student_and_its_linen_twin_learn_the_same():
    student, teacher = NnxCnn(nnx.Rngs(0)), Teacher(nnx.Rngs(1))
    params = nnx.to_pure_dict(nnx.state(student, nnx.Param))
    before = jax.tree.map(np.asarray, params)
    found, metrics = distill(student, teacher)
    variables, others = distill((LinenCnn(), {"params": params}), teacher)
    nnx.update(student, found)
    np.testing.assert_allclose(student(X), LinenCnn().apply(variables, X), rtol=0, atol=1e-9)
    assert metrics == pytest.approx(others, abs=1e-9)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, dict(variables["params"]))
    assert min(jax.tree.leaves(moved)) > 1e-4


def test_a_teacher_is_left_to_the_bit_as_it_was():
    teacher = Teacher(nnx.Rngs(1))
    before = values(teacher)
    distill(LinenCnn(), teacher)
    jax.tree.map(np.testing.assert_array_equal, before, values(teacher))


def test_a_teacher_runs_in_evaluation_mode():
    teacher = Teacher(nnx.Rngs(1))
    distiller = kd.Distiller(
        LinenCnn(), teacher, losses=LOSSES, optimizer=optax.sgd(0.0), parallel=ONE
    )
    distiller.init(0, BATCHES[0])
    teacher.eval()
    found = distiller.teachers["teacher"](distiller.as_batch(BATCHES[0])).logits
    np.testing.assert_allclose(found, teacher(X[:16]), atol=1e-12)


def test_a_feature_is_found_by_its_path_in_linen_and_in_nnx():
    hint = kd.terms.HiddenMSE(student="hidden", teacher="hidden", mapping="linear")
    _, metrics = distill(Deep(), Teacher(nnx.Rngs(1)), LOSSES | {"hint": hint})
    assert metrics["hint"] > 0
    unknown = kd.terms.HiddenMSE(student="hiden", teacher="hidden", mapping=None)
    with pytest.raises(ValueError, match=r"the student has no layer 'hiden'; it has .*hidden"):
        distill(Deep(), Teacher(nnx.Rngs(1)), {"hint": unknown})


def test_running_statistics_of_a_students_own_are_kept():
    variables, _ = distill(Deep(), Teacher(nnx.Rngs(1)))
    assert np.abs(variables["batch_stats"]["BatchNorm_0"]["mean"]).max() > 1e-3
    logits = Deep().apply(variables, X, train=False)
    assert logits.shape == (32, 5)


@pytest.mark.parametrize("kind", ["function", "linen", "list"])
def test_other_teachers(kind):
    def function(x):
        return x.reshape(x.shape[0], -1)[:, :5]

    linen = (LinenCnn(), LinenCnn().init(jax.random.key(3), X[:1]))
    teacher = {"function": function, "linen": linen, "list": [function, linen]}[kind]
    _, metrics = distill(LinenCnn(), teacher)
    assert np.isfinite(metrics["soft"])
    assert metrics["soft"] > 0


def test_several_named_teachers_are_told_apart_by_their_source():
    teachers = {"a": lambda x: x.reshape(16, -1)[:, :5], "b": Teacher(nnx.Rngs(1))}
    losses = {
        "a": kd.terms.SoftTargetKL(source="a"),
        "b": kd.terms.SoftTargetKL(source="b"),
    }
    _, metrics = distill(LinenCnn(), teachers, losses)
    assert metrics["a"] != metrics["b"]
    with pytest.raises(ValueError, match=r"must say which teacher \(source=...\); there are a, b"):
        distill(LinenCnn(), teachers, {"soft": kd.terms.SoftTargetKL()})


def test_batches_may_be_mappings_and_say_where_things_are():
    batches = [{"image": x, "y": y} for x, y in BATCHES]
    options = dict(losses=LOSSES, optimizer=optax.adam(1e-2), parallel=ONE)
    found, _ = kd.distill(
        LinenCnn(), Teacher(nnx.Rngs(1)), batches, inputs="image", labels="y", **options
    )
    want, _ = kd.distill(LinenCnn(), Teacher(nnx.Rngs(1)), BATCHES, **options)
    jax.tree.map(np.testing.assert_array_equal, found, want)
    with pytest.raises(ValueError, match=r"the batch has no 'inputs'; it has image, y"):
        kd.distill(LinenCnn(), Teacher(nnx.Rngs(1)), batches, **options)


def test_microbatches_add_up():
    options = dict(losses=LOSSES, optimizer=optax.sgd(0.1), parallel=ONE)
    one, two = (
        kd.distill(LinenCnn(), Teacher(nnx.Rngs(1)), BATCHES, accumulate=count, **options)[0]
        for count in (1, 4)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), one, two)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(student=lambda x: x), "student must be a Linen module"),
        (dict(teacher=LinenCnn()), "needs its variables"),
        (dict(teacher=3), "teacher must be"),
        (dict(optimizer=0.1), "optimizer must be an optax transformation, got float"),
        (dict(losses={}), "at least one term"),
        (dict(losses={"x": 1.0}), "'x' must be a term or dict"),
        (dict(losses={"x": dict(term="soft", weight=1.0)}), "unknown term"),
        (dict(batch=(X, Y[:3])), "same rows"),
        (dict(batch=X), "learns from labels, and the batch has none"),
        (dict(teacher=None), "needs a teacher"),
        (dict(accumulate=3), "can't be divided"),
        (dict(teacher=lambda x: x), "student has 5 classes and teacher 'teacher' has 1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(change, words):
    given = dict(
        student=LinenCnn(),
        teacher=Teacher(nnx.Rngs(1)),
        losses=LOSSES,
        optimizer=optax.sgd(0.1),
        accumulate=1,
    ) | {key: value for key, value in change.items() if key != "batch"}
    student, teacher = given.pop("student"), given.pop("teacher")
    with pytest.raises(ValueError, match=words):
        kd.Distiller(student, teacher, parallel=ONE, **given).init(
            0, change.get("batch", BATCHES[0])
        )


def test_a_loss_that_is_not_finite_ends_it():
    with pytest.raises(FloatingPointError, match="at step"):
        kd.distill(
            LinenCnn(),
            Teacher(nnx.Rngs(1)),
            BATCHES,
            losses=LOSSES,
            parallel=ONE,
            steps=4,
            optimizer=optax.sgd(1e300),
        )


def test_batches_that_end_early_are_an_error():
    with pytest.raises(ValueError, match="ended after 2 of 6 steps"):
        kd.distill(
            LinenCnn(),
            Teacher(nnx.Rngs(1)),
            iter(BATCHES),
            losses=LOSSES,
            steps=6,
            parallel=ONE,
            optimizer=optax.sgd(0.1),
        )


def test_a_plain_loss_becomes_a_term(monkeypatch):
    def squared(student_logits, teacher_logits, *, scale=2.0):
        return scale * jnp.square(student_logits - teacher_logits).mean(-1)

    # What is registered here is gone after the test.
    monkeypatch.setitem(kd.terms.TERMS, "squared_logits", None)
    kd.register_term("squared_logits", squared)
    losses = {"own": dict(term="squared_logits", weight=1.0, scale=3.0)}
    _, metrics = distill(LinenCnn(), Teacher(nnx.Rngs(1)), losses)
    assert metrics["own"] > 0
    with pytest.raises(ValueError, match="can't be named 'soft_target_kl'"):
        kd.register_term("soft_target_kl", squared)


def test_the_public_names_are_there():
    for name in kd.__all__:
        assert getattr(kd, name) is not None
    assert set(kd.__all__) <= set(dir(kd))
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        kd.distil  # noqa: B018
