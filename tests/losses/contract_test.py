"""What holds for every loss, each checked against its paper's formula in float64."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from loss_cases import CASES, batch, equal, is_teacher, one_size, scalar

from kd_jax import losses

pytestmark = pytest.mark.grid

BY_NAME = {case.name: case for case in CASES}
ELSEWHERE = {
    "cross_entropy",
    "contrastive_representation",
    "init_contrast_memory",
    "sample_negatives",
    "ContrastMemory",
    "VARIATIONAL_START",
    "Head",
    "fused_jensen_shannon",
    "fused_reverse_kl",
    "fused_soft_target_kl",
}
"""What has tests of its own: no teacher, or a memory."""

every_loss = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
MASKED = [case for case in CASES if case.where]
every_masked_loss = pytest.mark.parametrize("case", MASKED, ids=[case.name for case in MASKED])
EXACT = dict(rtol=2e-5, atol=2e-6)


def function_of(case, **setting):
    return partial(getattr(losses, case.name), **setting)


def arrays_of(case, variant=0, seed=0):
    return case.make(np.random.default_rng([seed, variant]), variant)


def trained(arrays):
    """Names of the arguments that get a gradient."""
    return [
        n for n, a in arrays.items() if not is_teacher(n) and np.issubdtype(a.dtype, np.floating)
    ]


def gradients(case, arrays, **setting):
    """Gradient of the sum, by trained argument."""
    names = trained(arrays)

    def total(*own):
        return jnp.sum(
            function_of(case, **setting)(*(arrays | dict(zip(names, own, strict=True))).values())
        )

    found = jax.grad(total, argnums=tuple(range(len(names))))(
        *(jnp.asarray(arrays[n]) for n in names)
    )
    return dict(zip(names, found, strict=True))


def test_every_loss_is_in_the_table():
    assert set(losses.__all__) == {case.name for case in CASES} | ELSEWHERE


@every_loss
@pytest.mark.parametrize("variant", range(3))
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_is_the_papers_formula_in_the_documented_shape(case, variant, transform):
    arrays = arrays_of(case, variant)
    for setting in case.settings:
        found = transform(function_of(case, **setting))(*arrays.values())
        assert found.shape == case.shape(arrays)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(
            found, case.reference(arrays, **setting), **EXACT, err_msg=str(setting)
        )


@every_loss
def test_hyperparameters_may_be_traced(case):
    """Schedules change them; a traced value must give what the number gives."""
    arrays = arrays_of(case)
    for setting in case.settings:
        traced = {k: v for k, v in setting.items() if k not in ("p", "order")}
        fixed = {k: v for k, v in setting.items() if k in ("p", "order")}
        found = jax.jit(
            lambda values, fixed=fixed: function_of(case, **fixed, **values)(*arrays.values())
        )(traced)
        np.testing.assert_allclose(found, function_of(case, **setting)(*arrays.values()), **EXACT)


@every_loss
@pytest.mark.parametrize("variant", range(3))
def test_is_least_where_student_and_teacher_agree(case, variant):
    arrays = arrays_of(case, variant)
    agreeing = equal(case, arrays)
    found = np.asarray(function_of(case)(*agreeing.values()))
    np.testing.assert_allclose(
        found, np.broadcast_to(case.least(agreeing), found.shape), atol=2e-6, rtol=1e-5
    )
    other = np.asarray(function_of(case)(*arrays.values()))
    if case.name not in (
        "deit_hard",
        "overhaul",
        "activation_boundary",
        "info_nce",
        "binary_cross_entropy",
    ):  # Their least is not at equality.
        assert np.all(other >= found - 1e-6)
        assert np.any(other > found + 1e-4) or first_is_trivial(arrays)


def first_is_trivial(arrays):
    """A map of one row, where some losses see no difference."""
    return any(a.ndim == 4 and 1 in a.shape[1:3] for a in arrays.values())


@every_loss
def test_no_gradient_reaches_the_teacher(case):
    arrays = arrays_of(case)
    names = [n for n, a in arrays.items() if is_teacher(n) and np.issubdtype(a.dtype, np.floating)]
    assert names

    def total(*teachers):
        return jnp.sum(
            function_of(case)(*(arrays | dict(zip(names, teachers, strict=True))).values())
        )

    found = jax.grad(total, argnums=tuple(range(len(names))))(
        *(jnp.asarray(arrays[n]) for n in names)
    )
    assert all(not np.any(gradient) for gradient in found)
    assert any(np.any(gradient) for gradient in gradients(case, arrays).values())


@every_loss
def test_the_gradient_is_that_of_finite_differences(case):
    with jax.enable_x64(True):
        arrays = {
            n: np.float64(a) if np.issubdtype(a.dtype, np.floating) else a
            for n, a in arrays_of(case).items()
        }
        names = trained(arrays)

        def loss(*own):
            return function_of(case, **case.settings[-1])(
                *(arrays | dict(zip(names, own, strict=True))).values()
            )

        check_grads(
            loss,
            tuple(arrays[n] for n in names),
            order=1,
            modes=["rev"],
            atol=1e-6,
            rtol=1e-5,
            eps=1e-6,
        )


@every_loss
def test_in_float64_it_is_computed_in_float64(case):
    with jax.enable_x64(True):
        arrays = {
            n: np.float64(a) if np.issubdtype(a.dtype, np.floating) else a
            for n, a in arrays_of(case).items()
        }
        found = function_of(case)(*arrays.values())
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, case.reference(arrays), rtol=1e-7, atol=1e-9)


@every_loss
def test_bfloat16_is_computed_in_float32(case):
    arrays = {n: jnp.asarray(a) for n, a in arrays_of(case).items()}
    small = {
        n: a.astype(jnp.bfloat16) if jnp.issubdtype(a.dtype, jnp.floating) else a
        for n, a in arrays.items()
    }
    wide = {n: a.astype(jnp.float32) if a.dtype == jnp.bfloat16 else a for n, a in small.items()}
    found = function_of(case)(*small.values())
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, function_of(case)(*wide.values()))


@every_loss
@pytest.mark.parametrize("size", [1e4, 0.0, 1e-30])
def test_value_and_gradient_are_finite_at_extremes(case, size):
    """Saturated predictions, zero vectors, vectors whose squares underflow."""
    arrays = arrays_of(case)
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and name not in (
            "teacher_log_probs",
            "log_scale",
            "margin",
        ):
            arrays[name] = np.where(array > 0, np.float32(size), -np.float32(size))
    if case.name == "topk_kl":
        with np.errstate(divide="ignore"):
            log_p = np.log(np.float32([1, 0, 0, 0]))
        arrays["teacher_log_probs"] = np.broadcast_to(log_p, arrays["teacher_log_probs"].shape)
    assert np.all(np.isfinite(function_of(case)(*arrays.values())))
    for name, gradient in gradients(case, arrays).items():
        assert np.all(np.isfinite(gradient)), name


@every_loss
def test_the_order_of_examples_only_orders_the_result(case):
    if not case.permutes:
        pytest.skip("it reads the examples in their order")
    arrays = arrays_of(case)
    rows = batch(arrays)[0]
    order = np.roll(np.arange(rows), 1)
    shuffled = {
        n: a[order] if a.shape[:1] == (rows,) and n not in ("margin", "log_scale") else a
        for n, a in arrays.items()
    }
    found, wanted = (np.asarray(function_of(case)(*each.values())) for each in (shuffled, arrays))
    np.testing.assert_allclose(found, wanted if case.shape is scalar else wanted[order], **EXACT)


# What counts


def dropped(arrays, where):
    """The arrays without what doesn't count, for a loss over rows."""
    rows = where.reshape(-1)
    return {n: a.reshape(rows.size, *a.shape[where.ndim :])[rows] for n, a in arrays.items()}


def garbage(arrays, where):
    """The arrays with nonsense where nothing counts; only those of `where`'s size are touched."""
    found = {}
    for name, array in arrays.items():
        fits = array.shape[: where.ndim] == where.shape and array.ndim > where.ndim
        counts = where.reshape(*where.shape, *[1] * (array.ndim - where.ndim)) if fits else True
        found[name] = np.where(counts, array, np.nan) if fits else array
    return found


def where_of(case, arrays, seed=3):
    rng = np.random.default_rng(seed)
    if case.where == "rows":
        any_leading_axes = case.name in ("dist", "class_correlation", "batch_correlation")
        where = (
            rng.random(
                next(iter(arrays.values())).shape[:-1] if any_leading_axes else batch(arrays)
            )
            < 0.7
        )
        where.reshape(-1)[:2] = True
        where.reshape(-1)[-1] = False
        return where
    larger = max((a for a in arrays.values() if a.ndim == 4), key=lambda a: a.shape[1] * a.shape[2])
    where = rng.random(larger.shape[:3]) < 0.7
    where[:, 0, 0], where[:, -1, -1] = True, False
    return where


@every_masked_loss
@pytest.mark.parametrize("variant", range(3))
def test_what_does_not_count_is_as_if_it_were_not_there(case, variant):
    arrays = arrays_of(case, variant)
    where = where_of(case, arrays)
    found = np.asarray(jax.jit(function_of(case))(*garbage(arrays, where).values(), where=where))
    if case.where == "rows":
        wanted = case.reference(dropped(arrays, where))
        found = found if case.shape is scalar else found[where]
    else:
        wanted = case.reference(arrays, where=where)
    np.testing.assert_allclose(found, wanted, **EXACT)


@every_masked_loss
def test_what_does_not_count_gets_no_gradient_and_spoils_none(case):
    arrays = arrays_of(case)
    where = where_of(case, arrays)
    found = gradients(case, garbage(arrays, where), where=where)
    for name, gradient in found.items():
        assert np.all(np.isfinite(gradient)), name
        if gradient.shape[: where.ndim] == where.shape and gradient.ndim > where.ndim:
            assert not np.any(np.asarray(gradient)[~where]), name


@every_masked_loss
def test_a_mask_of_nothing_gives_zero_and_a_finite_gradient(case):
    arrays = arrays_of(case)
    where = np.zeros_like(where_of(case, arrays))
    nonsense = garbage(arrays, where)
    np.testing.assert_array_equal(
        function_of(case)(*nonsense.values(), where=where), np.zeros(case.shape(arrays))
    )
    assert all(
        np.all(np.isfinite(gradient))
        for gradient in gradients(case, nonsense, where=where).values()
    )


@pytest.mark.usefixtures("own_refusals")
@every_masked_loss
def test_a_where_of_another_shape_is_refused(case):
    arrays = arrays_of(case)
    with pytest.raises(ValueError, match="where must have shape"):
        function_of(case)(*arrays.values(), where=np.ones(99, bool))


@pytest.mark.parametrize("variant", range(3))
def test_flow_of_solution_leaves_out_positions(variant):
    case = BY_NAME["flow_of_solution"]
    arrays = one_size(np.random.default_rng(variant), variant)
    where = where_of(case, arrays)
    found = losses.flow_of_solution(*garbage(arrays, where).values(), where=where)
    np.testing.assert_allclose(found, case.reference(arrays, where=where), **EXACT)
    assert not np.any(losses.flow_of_solution(*arrays.values(), where=np.zeros_like(where)))


# Refusals


@pytest.mark.usefixtures("own_refusals")
@every_loss
def test_a_shape_that_does_not_fit_is_refused_with_both_shapes(case):
    arrays = arrays_of(case)
    name = next(
        n
        for n, a in arrays.items()
        if is_teacher(n) and n != "margin" and np.issubdtype(a.dtype, np.floating)
    )
    wrong = np.concatenate([arrays[name]] * 2)
    with pytest.raises(ValueError, match=re.escape(str(wrong.shape))) as error:
        function_of(case)(*(arrays | {name: wrong}).values())
    assert any(str(a.shape) in str(error.value) for n, a in arrays.items() if n != name)


@pytest.mark.usefixtures("own_refusals")
@every_loss
@pytest.mark.parametrize("owner", ["student", "teacher"])
def test_integers_are_refused(case, owner):
    arrays = arrays_of(case)
    names = [
        n
        for n, a in arrays.items()
        if n.startswith(("student", "distillation") if owner == "student" else owner)
        and np.issubdtype(a.dtype, np.floating)
    ]
    for name in names:
        with pytest.raises(ValueError, match="must be floating point, got int32"):
            function_of(case)(*(arrays | {name: arrays[name].astype(np.int32)}).values())


REFUSED = [(case, *bad) for case in CASES for bad in case.bad]


@pytest.mark.parametrize(
    ("case", "setting", "message"), REFUSED, ids=[f"{c.name} {s}" for c, s, _ in REFUSED]
)
def test_a_hyperparameter_out_of_range_is_refused_by_name(case, setting, message):
    with pytest.raises(ValueError, match=message):
        function_of(case, **setting)(*arrays_of(case).values())


@every_loss
def test_a_nan_that_counts_is_not_hidden(case):
    arrays = arrays_of(case)
    name = trained(arrays)[0]
    spoiled = arrays[name].copy()
    spoiled.reshape(-1)[0] = np.nan
    assert np.any(np.isnan(function_of(case)(*(arrays | {name: spoiled}).values())))
