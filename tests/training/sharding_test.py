"""One step, two backends, any number of devices: the same training, to float64's last digits."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import term_specs
from sharded_training import (
    BAG,
    CNN,
    ENCODER,
    HARD,
    LAYOUTS,
    RESNET,
    ROWS,
    SOFT,
    STEPS,
    image_batch,
    make_case,
    text_batch,
    train,
)

from kd_jax.core.pytree import leaves_by_path
from kd_jax.models.projectors.conditioning import make_condition
from kd_jax.objective import terms
from kd_jax.objective.objective import make_objective
from kd_jax.objective.terms import BoundTerm, TermSpec
from kd_jax.training.mixup import Mixing
from kd_jax.training.sharding import make_parallel
from kd_jax.training.state import TrainState

pytestmark = pytest.mark.grid


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def spread(site):
    """A term over the whole batch: the squared distances between all pairs of examples."""

    def values(_params, memory, seen):
        logits, valid = seen.student.logits, seen.batch.valid
        pairs = logits[:, None, :] - logits[None, :, :]
        together = valid[:, None] & valid[None, :]
        return jnp.sum(jnp.square(pairs).sum(-1) * together) / jnp.sum(together), memory

    return BoundTerm("batch", values, site.view)


def image_case(dtype=jnp.float64):
    hint = dict(term="hidden_mse", weight=0.5, student="pooled", teacher="pooled", mapping="linear")
    objective = dict(hard=HARD, soft=SOFT, hint=hint)
    return make_case(CNN, dict(CNN, widths=(4, 6)), objective, image_batch(0), dtype)


def text_case():
    hint = dict(
        term="hidden_mse", weight=0.5, student="embeddings", teacher="block_0", mapping="linear"
    )
    return make_case(BAG, ENCODER, dict(hard=HARD, soft=SOFT, hint=hint), text_batch(0))


def resnet_case():
    """Every term there is on images, at once."""
    return make_case(
        RESNET,
        dict(RESNET, widths=(4, 8, 12)),
        term_specs.objective(term_specs.ON_IMAGES, 1e-2),
        image_batch(0),
    )


def mixed(make, **options):
    """The case with mixing, one of two candidates kept: partners come from all devices."""
    group, state, frozen = make()
    mixing = Mixing(
        probability=1.0, share=0.7, concentration=1.0, candidates=2, num_classes=3, **options
    )
    return dataclasses.replace(group, mixing=mixing), state, frozen


def conditioned(make, batch, output):
    """The case with a student that is given the teacher's output half of the time."""
    group, state, frozen = make()
    learner, member = group.models["s"], state.models["s"]
    taught = jax.eval_shape(frozen["t"], batch)
    spec = dict(on="t", output=output, map="mlp", drop=0.5)
    shape = learner.network.signal_shape(member.variables(), batch)
    condition = make_condition(spec, taught, shape, jnp.float64, learner.objective.terms)
    learner = dataclasses.replace(learner, condition=condition)
    state = TrainState(state.step, {"s": learner.init(member.variables(), jax.random.key(9))})
    return dataclasses.replace(group, models={"s": learner}), state, frozen


def mutual(make):
    """The case's student and another of its kind that it learns from, and which learns from it."""
    group, state, frozen = make()
    learner = group.models["s"]
    student = jax.eval_shape(learner.network, state.models["s"].variables(), image_batch(0))
    site = TermSpec("v", student, {"peer": student}, None, {"peer": "v"}, np.arange(ROWS) % 3, 3)
    learners = {}
    for name, other in (("s", "p"), ("p", "s")):
        objective = make_objective(
            dict(hard=HARD, soft=SOFT),
            dataclasses.replace(site, teachers={f"peer:{other}": student}),
        )
        learners[name] = dataclasses.replace(learner, objective=objective, peers=(other,))
    fresh = learner.network.init(jax.random.key(4), image_batch(0))
    starts = {"s": state.models["s"].variables(), "p": fresh}
    members = {name: learners[name].init(starts[name], jax.random.key(9)) for name in learners}
    return dataclasses.replace(group, models=learners), TrainState(state.step, members), frozen


def encoder_case():
    """Every kind of term that reads tokens, at once."""
    return make_case(
        dict(ENCODER, layers=2),
        dict(ENCODER, width=16, layers=2),
        term_specs.objective(term_specs.ON_TEXTS, 1e-2),
        text_batch(0),
    )


CASES = {
    "images, BatchNorm": (image_case, image_batch, 1, STEPS),
    "images, BatchNorm, valid rows uneven": (
        image_case,
        functools.partial(image_batch, valid_rows=21),
        1,
        STEPS,
    ),
    "images, BatchNorm, accumulation": (image_case, image_batch, 4, STEPS),
    "text, masks uneven": (text_case, text_batch, 1, STEPS),
    "text, masks uneven, accumulation": (text_case, text_batch, 2, STEPS),
    "images, cutmix": (
        functools.partial(mixed, image_case, kind="cutmix"),
        functools.partial(image_batch, valid_rows=21),
        2,
        STEPS,
    ),
    "text, mixup": (functools.partial(mixed, text_case, kind="mixup"), text_batch, 1, STEPS),
    "images, conditioned, accumulation": (
        lambda: conditioned(image_case, image_batch(0), "logits"),
        functools.partial(image_batch, valid_rows=21),
        2,
        5,
    ),
    "text, conditioned, mixup": (
        lambda: conditioned(
            functools.partial(mixed, text_case, kind="mixup"), text_batch(0), "pooled"
        ),
        text_batch,
        1,
        5,
    ),
    "images, peers, accumulation": (
        lambda: mutual(image_case),
        functools.partial(image_batch, valid_rows=21),
        2,
        5,
    ),
    "every term on images": (resnet_case, functools.partial(image_batch, valid_rows=21), 1, 3),
    "every term on texts": (encoder_case, text_batch, 1, 3),
}


@functools.cache
def reference(case):
    build, make_batch, accumulate, steps = CASES[case]
    return train(build(), make_batch, LAYOUTS["jit on 1 device"], accumulate, steps)


ALL_TERMS = [case for case in CASES if case.startswith("every")]
EIGHT = ("jit on 8 devices", "pmap on 8 devices")
IN_CI = (
    "images, BatchNorm, valid rows uneven",
    "text, masks uneven, accumulation",
    "images, peers, accumulation",
)
# Every term at once compiles for minutes, and the other cases and layouts differ little from these.
WHERE = [
    pytest.param(case, layout, marks=() if layout in EIGHT and case in IN_CI else pytest.mark.soak)
    for case in CASES
    for layout in (EIGHT if case in ALL_TERMS else list(LAYOUTS)[1:])
]


@pytest.mark.parametrize(("case", "layout"), WHERE)
def test_devices_and_backends_agree(case, layout):
    build, make_batch, accumulate, steps = CASES[case]
    losses, state = train(build(), make_batch, LAYOUTS[layout], accumulate, steps)
    expected_losses, expected = reference(case)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-9)
    chex.assert_trees_all_close(state, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", list(LAYOUTS)[1:])
def test_a_term_over_the_batch_sees_the_global_batch(layout, monkeypatch):
    monkeypatch.setitem(terms.TERMS, "spread", spread)
    objective = dict(hard=HARD, spread=dict(term="spread", weight=1e-2))
    make_batch = functools.partial(image_batch, valid_rows=21)
    case = make_case(CNN, CNN, objective, image_batch(0))
    expected_losses, expected = train(case, make_batch, LAYOUTS["jit on 1 device"])
    losses, state = train(case, make_batch, LAYOUTS[layout])
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-9)
    chex.assert_trees_all_close(state, expected, rtol=1e-9, atol=1e-9)


def test_every_collective_is_needed_for_the_agreement(monkeypatch):
    """Takes the step's collectives out, one after another; each time one device and eight must
    disagree."""
    monkeypatch.setitem(terms.TERMS, "spread", spread)
    objective = dict(hard=HARD, spread=dict(term="spread", weight=1e-2))
    make_batch = functools.partial(image_batch, valid_rows=21)
    case = make_case(dict(CNN, widths=(8,)), CNN, objective, image_batch(0))
    expected_losses, expected = train(case, make_batch, LAYOUTS["jit on 1 device"], steps=3)
    called = []

    def patch(name, left_out):
        real = getattr(jax.lax, name)

        def collective(tree, *arguments, **options):
            called.append(name)
            return tree if len(called) - 1 == left_out else real(tree, *arguments, **options)

        monkeypatch.setattr(jax.lax, name, collective)
        return lambda: monkeypatch.setattr(jax.lax, name, real)

    def agree(left_out):
        called.clear()
        undo = [patch(name, left_out) for name in ("psum", "all_gather")]
        try:
            losses, state = train(case, make_batch, LAYOUTS["pmap on 8 devices"], steps=3)
        finally:
            for each in undo:
                each()
        try:
            np.testing.assert_allclose(losses, expected_losses, rtol=1e-9)
            chex.assert_trees_all_close(state, expected, rtol=1e-9, atol=1e-9)
        except AssertionError:
            return False
        return True

    assert agree(left_out=None)
    # The terms' counts; rows for the term over the batch; BatchNorm's count, mean and variance;
    # gradients and logs.
    assert sorted(called) == ["all_gather", *["psum"] * 5]
    for number, name in enumerate(tuple(called)):
        assert not agree(left_out=number), f"without collective {number}, {name}, nothing changes"


def test_accumulation_changes_nothing_without_batch_statistics():
    whole, state = train(text_case(), text_batch, LAYOUTS["jit on 1 device"], accumulate=1)
    parts, accumulated = train(text_case(), text_batch, LAYOUTS["jit on 1 device"], accumulate=4)
    np.testing.assert_allclose(parts, whole, rtol=1e-9)
    chex.assert_trees_all_close(accumulated, state, rtol=1e-9, atol=1e-9)


def test_float32_losses_agree_to_1e_5():
    with jax.enable_x64(False):
        case = image_case(jnp.float32)
        expected, _ = train(case, image_batch, LAYOUTS["jit on 1 device"])
        for layout in list(LAYOUTS)[1:]:
            losses, _ = train(case, image_batch, LAYOUTS[layout])
            np.testing.assert_allclose(losses[:10], expected[:10], rtol=1e-5)


def test_fsdp_keeps_a_part_of_each_parameter_on_each_device():
    parallel = make_parallel(backend="jit", data=2, fsdp=4, tensor=1)
    _, state, _ = image_case()
    placed = parallel.place(state)
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    on_one = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(placed))
    indivisible = sum(
        leaf.nbytes for leaf in jax.tree.leaves(state) if not any(n % 4 == 0 for n in leaf.shape)
    )
    assert on_one == (whole - indivisible) / 4 + indivisible
    for path, leaf in leaves_by_path(placed).items():
        largest = max((n for n in leaf.shape if n % 4 == 0), default=None)
        if largest is not None:
            assert leaf.addressable_shards[0].data.shape != leaf.shape, path


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (
            dict(backend="xmap", data=1, fsdp=1, tensor=1),
            "unknown parallel.backend 'xmap'; there are jit, pmap",
        ),
        (
            dict(backend="pmap", data=1, fsdp=1, tensor=2),
            "parallel.tensor must be at least 1, and 1 under pmap, got 2",
        ),
        (dict(backend="pmap", data=1, fsdp=2, tensor=1), "1 under pmap, got 2"),
        (
            dict(backend="jit", data=16, fsdp=1, tensor=1),
            "data=16 x fsdp=1 x tensor=1 devices and there are 8",
        ),
    ],
)
def test_a_layout_that_cannot_be_had_is_refused(layout, message):
    with pytest.raises(ValueError, match=message):
        make_parallel(**layout)


def test_a_batch_that_does_not_divide_is_refused():
    parallel = make_parallel(backend="jit", data=8, fsdp=1, tensor=1)
    with pytest.raises(
        ValueError,
        match=r"batch_size 20 can't be divided into 1 microbatch\(es\) over 8 device\(s\)",
    ):
        parallel.check_batch(20, 1)
