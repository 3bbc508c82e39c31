import functools
import math

import jax
import jax.numpy as jnp
import loss_references as reference
import numpy as np
import pytest
from jax.test_util import check_grads

from kd_jax import losses

ROWS, WIDTH, EXAMPLES, NEGATIVES = 5, 6, 20, 7


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def embeddings(rng):
    return tuple(rng.normal(size=(ROWS, WIDTH)).astype(np.float32) for _ in range(2))


@pytest.fixture
def rows(rng):
    return np.array([3, 11, 0, 7, 19]), rng.integers(0, EXAMPLES, (ROWS, NEGATIVES))


@pytest.fixture
def memory():
    return losses.init_contrast_memory(jax.random.key(0), EXAMPLES, WIDTH)


def loss_of(student, teacher, index, negatives, memory, **options):
    return jax.jit(functools.partial(losses.contrastive_representation, **options))(
        student, teacher, index, negatives, memory
    )


# CRD


@pytest.mark.parametrize("setting", [{}, {"temperature": 0.5, "momentum": 0.9}])
def test_is_the_papers_estimate_and_moves_the_banks(embeddings, rows, memory, setting):
    found, after = loss_of(*embeddings, *rows, memory, **setting)
    wanted, bank_s, bank_t, (z_s, z_t) = reference.contrastive_representation(
        *embeddings, *rows, memory.student, memory.teacher, **setting
    )
    assert found.shape == (ROWS,)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(after.student, bank_s, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.teacher, bank_t, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        (after.student_normalizer, after.teacher_normalizer), (z_s, z_t), rtol=1e-5
    )


def test_the_normalizers_are_fixed_by_the_first_batch(embeddings, rows, memory):
    _, first = loss_of(*embeddings, *rows, memory)
    _, second = loss_of(*(3.0 - e for e in embeddings), *rows, first)
    assert second.student_normalizer == first.student_normalizer > 0
    assert second.teacher_normalizer == first.teacher_normalizer > 0
    assert not np.array_equal(second.student, first.student)


def test_only_the_batchs_rows_move(embeddings, rows, memory):
    _, after = loss_of(*embeddings, *rows, memory)
    moved = np.any(np.asarray(after.student) != np.asarray(memory.student), axis=1)
    np.testing.assert_array_equal(np.flatnonzero(moved), np.sort(rows[0]))
    np.testing.assert_allclose(
        np.linalg.norm(np.asarray(after.student)[rows[0]], axis=1), 1, rtol=1e-5
    )


def test_of_several_examples_with_one_row_the_first_moves_it(embeddings, rows, memory):
    index = np.array([4, 9, 4, 4, 9])
    _, after = loss_of(*embeddings, index, rows[1], memory)
    _, bank_s, bank_t, _ = reference.contrastive_representation(
        *embeddings, index, rows[1], memory.student, memory.teacher
    )
    np.testing.assert_allclose(after.student, bank_s, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.teacher, bank_t, rtol=1e-5, atol=1e-6)


def test_rows_that_do_not_count_neither_cost_nor_move_nor_set_the_normalizers(
    embeddings, rows, memory
):
    index = np.array([4, 9, 4, 7, 9])
    where = np.array([False, True, True, False, True])
    spoiled = tuple(np.where(where[:, None], e, np.nan) for e in embeddings)
    found, after = loss_of(*spoiled, index, rows[1], memory, where=where)
    kept = tuple(e[where] for e in embeddings)
    wanted, alone = loss_of(*kept, index[where], rows[1][where], memory)
    np.testing.assert_allclose(found[where], wanted, rtol=1e-6)
    assert not np.any(found[~where])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), after, alone)


def test_a_batch_without_rows_changes_nothing(embeddings, rows, memory):
    nothing = np.zeros(ROWS, bool)
    found, after = loss_of(*(e * np.nan for e in embeddings), *rows, memory, where=nothing)
    assert not np.any(found)
    jax.tree.map(np.testing.assert_array_equal, after, memory)

    def total(student):
        return losses.contrastive_representation(
            student, embeddings[1], *rows, memory, where=nothing
        )[0].sum()

    assert not np.any(jax.grad(total)(embeddings[0]))


def test_the_gradient_is_that_of_finite_differences_on_both_sides_and_none_reaches_the_banks(
    embeddings, rows, memory
):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), memory)
        _, warm = losses.contrastive_representation(*embeddings, *rows, wide)

        def loss(s, t):
            return losses.contrastive_representation(s, t, *rows, warm)[0]

        check_grads(
            loss,
            tuple(np.float64(e) for e in embeddings),
            order=1,
            modes=["rev"],
            rtol=1e-5,
            atol=1e-6,
        )
    banks = jax.grad(lambda m: losses.contrastive_representation(*embeddings, *rows, m)[0].sum())(
        memory
    )
    assert not np.any(banks.student)
    assert not np.any(banks.teacher)


def test_it_falls_when_student_and_teacher_embeddings_meet(rng, rows, memory):
    teacher = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    _, warm = loss_of(teacher, teacher, *rows, memory, momentum=0.0)
    away, together = (loss_of(s, teacher, *rows, warm)[0].mean() for s in (-teacher, teacher))
    assert together < away


@pytest.mark.parametrize("size", [0.0, 1e4])
def test_value_and_gradient_are_finite_at_extremes(embeddings, rows, memory, size):
    def total(student, teacher):
        return losses.contrastive_representation(student, teacher, *rows, memory)[0].sum()

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(
        *(jnp.sign(e) * size for e in embeddings)
    )
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in gradients)


def test_bfloat16_is_computed_in_float32(embeddings, rows, memory):
    small = tuple(jnp.asarray(e, jnp.bfloat16) for e in embeddings)
    found, _ = loss_of(*small, *rows, memory)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(
        found, loss_of(*(e.astype(jnp.float32) for e in small), *rows, memory)[0]
    )


@pytest.mark.usefixtures("own_refusals")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": np.ones((ROWS, 3), np.float32)}, r"one shape, got \(5, 3\) and \(5, 6\)"),
        ({"student": np.ones((ROWS, WIDTH), np.int32)}, "must be floating point, got int32"),
        ({"index": np.zeros(2, np.int32)}, r"need index \[5\].* got \(2,\)"),
        ({"negatives": np.zeros((2, 4), np.int32)}, r"negatives \[5, K\]"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"momentum": 1.5}, "momentum must lie between 0 and 1, got 1.5"),
        ({"where": np.ones(3, bool)}, r"where must have shape \(5,\)"),
    ],
)
def test_what_does_not_fit_is_refused(embeddings, rows, memory, change, message):
    arguments = dict(
        student=embeddings[0],
        teacher=embeddings[1],
        index=rows[0],
        negatives=rows[1],
        memory=memory,
    )
    with pytest.raises(ValueError, match=message):
        losses.contrastive_representation(**(arguments | change))


def test_a_new_memory_is_uniform_within_the_papers_bound():
    memory = losses.init_contrast_memory(jax.random.key(3), 2_000, 12)
    bound = math.sqrt(3 / 12)
    for bank in (memory.student, memory.teacher):
        assert bank.shape == (2_000, 12)
        assert np.abs(bank).max() <= bound
        assert np.std(bank) == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert not np.array_equal(memory.student, memory.teacher)


# Negatives


def sorted_by_class(classes):
    order = np.argsort(classes, kind="stable").astype(np.int32)
    starts = np.searchsorted(classes[order], np.arange(classes.max() + 2)).astype(np.int32)
    return order, starts


def test_negatives_are_of_other_classes_and_all_of_them_are_drawn_alike():
    classes = np.array([0, 2, 1, 0, 2, 2, 1, 0, 2, 2])
    labels = np.array([0, 1, 2])
    drawn = np.asarray(
        losses.sample_negatives(jax.random.key(0), labels, *sorted_by_class(classes), 30_000)
    )
    assert drawn.shape == (3, 30_000)
    for label, found in zip(labels, drawn, strict=True):
        counts = np.bincount(found, minlength=len(classes))
        assert not np.any(counts[classes == label])
        others = counts[classes != label]
        np.testing.assert_allclose(others / others.sum(), 1 / len(others), rtol=0.05)


def test_an_example_without_a_label_has_all_others_as_negatives():
    classes = np.array([0, 1, 1])
    drawn = losses.sample_negatives(
        jax.random.key(0), np.array([-1, 7]), *sorted_by_class(classes), 200
    )
    assert all(set(np.asarray(row).tolist()) == {0, 1, 2} for row in drawn)


def test_with_one_class_there_are_still_negatives():
    drawn = losses.sample_negatives(
        jax.random.key(0), np.array([0]), *sorted_by_class(np.zeros(4, int)), 50
    )
    assert set(np.asarray(drawn).ravel().tolist()) <= {0, 1, 2, 3}


# InfoNCE


def test_one_example_alone_costs_nothing():
    assert losses.info_nce(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32)) == 0
