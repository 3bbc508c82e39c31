import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from kd_jax.core.pytree import checksums
from kd_jax.core.types import Teacher
from kd_jax.models import registry
from kd_jax.models.network import Network
from kd_jax.objective import terms
from kd_jax.objective.objective import Objective, make_objective
from kd_jax.objective.terms import BoundTerm, TermSpec
from kd_jax.tasks import make_task
from kd_jax.tasks.classification import accuracy
from kd_jax.training.state import TrainState
from kd_jax.training.step import FINITE, ModelTraining, PeerGroup, train_step

pytestmark = pytest.mark.slow

ROWS, CLASSES, RATE = 12, 3, 0.1
CNN = dict(name="cnn", num_classes=CLASSES, widths=(4,), batch_norm=True)
VGG = dict(
    name="vgg", num_classes=CLASSES, depth=11, width=0.05, batch_norm=True, head=(6,), dropout=0.5
)
BAG = dict(
    name="bag_of_embeddings",
    num_classes=CLASSES,
    vocabulary_size=9,
    width=5,
    hidden=(),
    dropout=0.0,
)
DROPPING = BAG | dict(hidden=(8,), dropout=0.5)
HARD = dict(term="cross_entropy", weight=0.25)
SOFT = dict(term="soft_target_kl", weight=0.75, temperature=2.0)


@pytest.fixture
def images(make_batch):
    pixels = np.random.default_rng(0).normal(size=(ROWS, 8, 8, 1)).astype(np.float32)
    return make_batch({"v": {"images": pixels}}, rows=ROWS, classes=CLASSES)


@pytest.fixture
def texts(make_batch):
    ids = np.random.default_rng(0).integers(0, 9, (ROWS, 5)).astype(np.int32)
    return make_batch(
        {"v": {"input_ids": ids, "attention_mask": np.ones_like(ids, bool)}},
        rows=ROWS,
        classes=CLASSES,
    )


def make_case(batch, student, teacher, objective, *, update=None, names=("s",), seed=5):
    """A group of like students under one teacher, its first state and the teacher's variables."""
    pupil, big = (Network(registry.build(spec), "v", jnp.float32) for spec in (student, teacher))
    first, frozen = pupil.init(jax.random.key(0), batch), big.init(jax.random.key(1), batch)
    site = TermSpec(
        "v",
        jax.eval_shape(pupil, first, batch),
        {"t": jax.eval_shape(big, frozen, batch)},
        None,
        {"t": "v"},
        np.asarray(batch.labels),
        CLASSES,
    )
    learner = ModelTraining(pupil, make_objective(objective, site), update or optax.sgd(RATE))
    members = {name: learner.init(first, jax.random.key(2)) for name in names}
    group = PeerGroup(dict.fromkeys(names, learner), seed)
    return group, TrainState(jnp.zeros((), jnp.int32), members), {"t": Teacher(frozen, big)}


def advance(case, batch, *, accumulate=1):
    group, state, frozen = case
    parts = jax.tree.map(lambda leaf: leaf.reshape(accumulate, -1, *leaf.shape[1:]), batch)
    return jax.jit(functools.partial(train_step, group=group))(state, frozen, parts)


# One update


def test_an_update_is_the_gradient_of_the_weighted_sum_by_hand(texts):
    """The classifier's gradient, from the paper's formulas: probabilities minus targets, T times
    for soft targets."""
    case = make_case(texts, BAG, BAG, dict(hard=HARD, soft=SOFT))
    group, state, frozen = case
    student, teacher = (
        group.models["s"].network(v, texts)
        for v in (state.models["s"].variables(), frozen["t"].variables)
    )

    def softmax(z):
        return special.softmax(np.float64(z), -1)

    hard = softmax(student.logits) - np.eye(CLASSES)[texts.labels]
    soft = 2 * (softmax(student.logits / 2) - softmax(teacher.logits / 2))
    error = (0.25 * hard + 0.75 * soft) / ROWS
    before = state.models["s"].params["classifier"]
    after = advance(case, texts)[0].models["s"].params["classifier"]
    np.testing.assert_allclose(
        before["bias"] - after["bias"], RATE * error.sum(0), rtol=1e-4, atol=1e-7
    )
    kernel = np.float64(student.features["pooled"]).T @ error
    np.testing.assert_allclose(
        before["kernel"] - after["kernel"], RATE * kernel, rtol=1e-4, atol=1e-7
    )


def test_the_reported_loss_is_the_weighted_sum_of_the_reported_terms(texts):
    _, metrics = advance(make_case(texts, BAG, BAG, dict(hard=HARD, soft=SOFT)), texts)
    found = metrics["s"]
    assert set(found) == {"hard", "soft", "accuracy", "loss", "gradient_norm", FINITE}
    want = 0.25 * float(found["hard"].value()) + 0.75 * float(found["soft"].value())
    assert float(found["loss"]) == pytest.approx(want, rel=1e-6)
    assert found["accuracy"].count == ROWS


def test_the_reported_gradient_norm_is_the_unclipped_one(texts):
    objective = dict(hard=HARD)
    free = advance(make_case(texts, BAG, BAG, objective), texts)[1]["s"]
    tight = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(RATE))
    case = make_case(texts, BAG, BAG, objective, update=tight)
    after, clipped = advance(case, texts)
    moved = jax.tree.map(jnp.subtract, after.models["s"].params, case[1].models["s"].params)
    assert float(optax.tree.norm(moved)) == pytest.approx(
        RATE * 1e-3, rel=1e-3
    )  # A difference of float32 parameters.
    assert float(clipped["s"]["gradient_norm"]) == float(free["gradient_norm"]) > 1e-3


@pytest.mark.parametrize(("rate", "finite"), [(RATE, True), (np.inf, False)])
def test_a_parameter_that_overflows_in_the_update_is_told_with_the_metrics(texts, rate, finite):
    """The loss and the gradient of such a step are still finite."""
    case = make_case(texts, BAG, BAG, dict(hard=HARD), update=optax.scale(-rate))
    found = advance(case, texts)[1]["s"]
    assert np.isfinite(found["loss"])
    assert np.isfinite(found["gradient_norm"])
    assert bool(found[FINITE]) is finite


def test_the_mapping_network_is_trained_beside_the_student(images):
    hint = dict(term="hidden_mse", weight=1.0, student="pooled", teacher="pooled", mapping="linear")
    case = make_case(images, CNN, VGG, dict(hard=HARD, hint=hint))
    before, after = case[1].models["s"], advance(case, images)[0].models["s"]
    assert set(before.term_params) == {"hint"}
    assert checksums(before.term_params).keys() == checksums(after.term_params).keys()
    assert all(
        old != checksums(after.term_params)[path]
        for path, old in checksums(before.term_params).items()
        if path.endswith("kernel")
    )
    assert "hint" not in str(jax.tree.structure(after.params))


def test_the_step_counts_and_schedules_read_it(texts):
    fading = dict(HARD, weight=dict(name="linear", start=1.0, stop=0.0, steps=2))
    group, state, frozen = make_case(texts, BAG, BAG, dict(hard=fading))
    shares = []
    for number in range(3):
        assert int(state.step) == number
        state, metrics = advance((group, state, frozen), texts)
        shares.append(float(metrics["s"]["loss"]) / float(metrics["s"]["hard"].value()))
    np.testing.assert_allclose(shares, [1.0, 0.5, 0.0], atol=1e-6)


# The teacher


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_teachers_logits_in_the_step_are_its_own_evaluation_bit_for_bit(
    images, accumulate, monkeypatch
):
    """With dropout and BatchNorm in the teacher, beside a student in training mode."""
    rows = ROWS // accumulate

    def keep(_p, _m, seen):
        return (seen.student.logits[:, 0], seen.teachers["t"].logits)

    def memory(_):
        return ({}, jnp.zeros((rows, CLASSES)))

    monkeypatch.setitem(
        terms.TERMS, "taught", lambda _site: BoundTerm("example", keep, "v", init=memory)
    )
    case = make_case(
        images, CNN, VGG, dict(hard=HARD, soft=SOFT, taught=dict(term="taught", weight=0.0))
    )
    _, _, frozen = case
    state, _ = advance(case, images, accumulate=accumulate)
    last = jax.tree.map(lambda leaf: leaf[-rows:], images)
    alone = jax.jit(lambda teacher, seen: teacher(seen))(frozen["t"], last).logits
    np.testing.assert_array_equal(state.models["s"].term_state["taught"], alone)


def test_no_gradient_reaches_the_teachers_variables(images):
    group, state, frozen = make_case(images, CNN, VGG, dict(soft=SOFT))
    parts = jax.tree.map(lambda leaf: leaf[None], images)

    def loss(frozen):
        return train_step(state, frozen, parts, group=group)[1]["s"]["loss"]

    gradients = jax.grad(loss, allow_int=True)(frozen)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradients))
    louder = jax.tree.map(lambda leaf: 2 * leaf, frozen)
    assert float(loss(louder)) != float(loss(frozen))


def test_a_cached_teacher_stands_where_a_live_one_stands(texts):
    from kd_jax.teachers.outputs import StoredTeacher

    live = make_case(texts, BAG, BAG, dict(hard=HARD, soft=SOFT))
    group, state, frozen = live
    known = {"outputs of t": {"logits": np.asarray(frozen["t"](texts).logits)}}
    stored = Teacher({}, StoredTeacher("outputs of t"))
    cached = (PeerGroup(group.models, group.seed), state, {"t": stored})
    want, found = (
        advance(live, texts)[0],
        advance(cached, texts.replace(views={**texts.views, **known}))[0],
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7),
        found.models,
        want.models,
    )


# Randomness


def test_dropout_depends_on_the_seed_and_the_step_alone(texts):
    objective = dict(hard=HARD)
    base = make_case(texts, DROPPING, BAG, objective)
    group, state, frozen = base
    later = state.replace(step=state.step + 1)
    other = make_case(texts, DROPPING, BAG, objective, seed=6)
    first, again, next_step, other_seed = (
        float(advance(case, texts)[1]["s"]["loss"])
        for case in (base, base, (group, later, frozen), other)
    )
    assert first == again
    assert len({first, next_step, other_seed}) == 3


def test_microbatches_draw_dropout_of_their_own(texts):
    same = jax.tree.map(lambda leaf: np.concatenate([leaf[:6], leaf[:6]]), texts)

    def kept(_p, memory, seen):
        return (seen.student.logits[:, 0], (memory[1], seen.student.logits))

    with pytest.MonkeyPatch.context() as patch:

        def memory(_):
            return ({}, (jnp.zeros((6, CLASSES)), jnp.zeros((6, CLASSES))))

        patch.setitem(
            terms.TERMS, "kept", lambda _site: BoundTerm("example", kept, "v", init=memory)
        )
        case = make_case(same, DROPPING, BAG, dict(hard=HARD, kept=dict(term="kept", weight=0.0)))
        before, last = advance(case, same, accumulate=2)[0].models["s"].term_state["kept"]
    assert not np.array_equal(before, last)


# Groups


def test_members_of_a_group_train_as_if_alone(texts):
    objective = dict(hard=HARD, soft=SOFT)
    alone, _ = advance(make_case(texts, BAG, BAG, objective), texts)
    both, metrics = advance(make_case(texts, BAG, BAG, objective, names=("s", "other")), texts)
    assert set(metrics) == set(both.models) == {"s", "other"}
    for name in both.models:
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-6),
            both.models[name],
            alone.models["s"],
        )


# What counts


def test_accuracy_counts_labelled_valid_rows_and_reads_soft_labels_by_their_largest(make_batch):
    logits = np.eye(4, dtype=np.float32)
    batch = make_batch({}, rows=4, labels=np.array([0, 1, 0, 0], np.int32))
    masked = batch.replace(
        valid=np.array([True, True, True, False]), label_valid=np.array([False, True, True, True])
    )
    soft = batch.replace(labels=np.eye(4, dtype=np.float32)[batch.labels] * 0.6 + 0.1)
    for case, want in ((batch, (2, 4)), (masked, (1, 2)), (soft, (2, 4))):
        mean = accuracy(jnp.asarray(logits), case)
        assert (int(mean.total), int(mean.count)) == want


def test_rows_that_only_fill_change_neither_update_nor_report(images):
    padded = images.replace(
        views={
            "v": {
                "images": np.where(
                    np.arange(ROWS)[:, None, None, None] < 8, images.views["v"]["images"], 9.0
                )
            }
        },
        valid=np.arange(ROWS) < 8,
        labels=np.where(np.arange(ROWS) < 8, images.labels, 0).astype(np.int32),
    )
    whole = jax.tree.map(lambda leaf: leaf[:8], images)
    objective = dict(hard=HARD, soft=SOFT)
    found, wanted = (
        advance(make_case(batch, CNN, VGG, objective), batch) for batch in (padded, whole)
    )
    compare = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)
    jax.tree.map(compare, found, wanted)


# A moving average of the member as its teacher


def averaging(case, decay):
    group, state, frozen = case
    learner = dataclasses.replace(group.models["s"], decay=decay)
    member = dataclasses.replace(
        state.models["s"], ema=jax.tree.map(jnp.copy, state.models["s"].variables())
    )
    return (
        dataclasses.replace(group, models={"s": learner}),
        TrainState(state.step, {"s": member}),
        frozen,
    )


def test_the_average_is_a_mean_at_first_and_then_decays(images):
    group, state, frozen = averaging(make_case(images, CNN, VGG, dict(hard=HARD)), 0.6)
    seen = []
    for _ in range(4):
        state, _ = advance((group, state, frozen), images)
        seen.append(state.models["s"].variables())
    flat = np.array(
        [
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(variables)])
            for variables in seen
        ]
    )
    want = flat[0]
    for step, keep in ((1, 1 / 2), (2, 0.6), (3, 0.6)):
        want = keep * want + (1 - keep) * flat[step]
    average = state.models["s"].ema
    assert set(average) == {"params", "batch_stats"}
    found = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(average)])
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-7)


def test_a_member_learns_from_its_average_as_from_a_frozen_teacher_of_the_same_weights(texts):
    """One step from an average that differs from the member: the update of a frozen teacher that
    holds it."""
    case = make_case(texts, BAG, BAG, dict(soft=SOFT))
    group, state, frozen = case
    site = TermSpec(
        "v",
        *[jax.eval_shape(frozen["t"], texts)],
        {"ema:s": jax.eval_shape(frozen["t"], texts)},
        None,
        {"ema:s": "v"},
        np.asarray(texts.labels),
        CLASSES,
    )
    own = dataclasses.replace(
        group.models["s"], objective=make_objective(dict(soft=SOFT), site), decay=0.9
    )
    member = dataclasses.replace(
        state.models["s"], ema=jax.tree.map(jnp.copy, frozen["t"].variables)
    )
    averaged = PeerGroup({"s": own}, group.seed), TrainState(state.step, {"s": member}), {}
    by_average, by_teacher = advance(averaged, texts)[0], advance(case, texts)[0]
    assert checksums(by_average.models["s"].params) == checksums(by_teacher.models["s"].params)
    assert checksums(by_teacher.models["s"].params) != checksums(state.models["s"].params)


def test_without_a_decay_nothing_is_averaged(texts):
    after, _ = advance(make_case(texts, BAG, BAG, dict(hard=HARD)), texts)
    assert after.models["s"].ema == {}


# Peers


def make_peers(batch, names=("a", "b")):
    """Two bags that start differently and learn from the labels and from each other, as a group and
    each by itself."""
    network = Network(registry.build(BAG), "v", jnp.float32)
    starts = {name: network.init(jax.random.key(i), batch) for i, name in enumerate(names)}
    shape = jax.eval_shape(network, starts[names[0]], batch)
    learners, alone = {}, {}
    for name, other in (names, names[::-1]):
        site = TermSpec(
            "v",
            shape,
            {f"peer:{other}": shape},
            None,
            {f"peer:{other}": "v"},
            np.asarray(batch.labels),
            CLASSES,
        )
        learners[name] = ModelTraining(
            network,
            make_objective(dict(hard=HARD, soft=SOFT), site),
            optax.sgd(RATE),
            peers=(other,),
        )
        frozen = dataclasses.replace(site, teachers={"t": shape}, teacher_views={"t": "v"})
        learner = ModelTraining(
            network, make_objective(dict(hard=HARD, soft=SOFT), frozen), optax.sgd(RATE)
        )
        state = TrainState(
            jnp.zeros((), jnp.int32), {name: learner.init(starts[name], jax.random.key(2))}
        )
        alone[name] = PeerGroup({name: learner}, 5), state, {"t": Teacher(starts[other], network)}
    members = {name: learners[name].init(starts[name], jax.random.key(2)) for name in names}
    return (PeerGroup(learners, 5), TrainState(jnp.zeros((), jnp.int32), members), {}), alone


def test_each_peer_moves_as_if_the_other_s_weights_before_the_step_were_a_frozen_teacher(texts):
    together, alone = make_peers(texts)
    found = advance(together, texts)[0].models
    for name, case in alone.items():
        want = advance(case, texts)[0].models[name]
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7),
            found[name].params,
            want.params,
        )
        assert not np.allclose(
            found[name].params["classifier"]["bias"],
            case[1].models[name].params["classifier"]["bias"],
        )


@pytest.mark.parametrize("asked", [False, True])
def test_no_gradient_reaches_a_peer_through_a_term_that_would_let_it(texts, asked):
    """`a` learns from nothing but a term that grows with the logits of `b`, who has nothing to
    learn from."""

    def grows(_params, memory, seen):
        logits = (
            seen.teacher_logits["peer:b"](seen.batch) if asked else seen.teachers["peer:b"].logits
        )
        return logits.sum(axis=-1) + seen.student.logits.sum(axis=-1), memory

    def nothing(_params, memory, seen):
        return jnp.zeros(seen.batch.valid.shape), memory

    (group, state, _), _ = make_peers(texts)
    weights = {"only": lambda _: jnp.ones(())}
    learners = {}
    for name, values in (("a", grows), ("b", nothing)):
        objective = Objective({"only": BoundTerm("example", values, "v")}, weights)
        learners[name] = dataclasses.replace(group.models[name], objective=objective)
    after = advance((PeerGroup(learners, 5), state, {}), texts)[0].models
    assert checksums(after["b"].params) == checksums(state.models["b"].params)
    assert checksums(after["a"].params) != checksums(state.models["a"].params)


def test_members_of_a_group_draw_dropout_of_their_own(texts):
    """Else two that start alike would stay alike; the first draws as it would alone."""
    group, state, frozen = make_case(texts, DROPPING, BAG, dict(hard=HARD), names=("a", "b"))
    after = advance((group, state, frozen), texts)[0].models
    single = advance(make_case(texts, DROPPING, BAG, dict(hard=HARD), names=("a",)), texts)[
        0
    ].models
    assert checksums(after["a"].params) == checksums(single["a"].params)
    assert checksums(after["a"].params) != checksums(after["b"].params)


def test_a_reported_metric_is_of_the_students_own_words(texts):
    """Equal with a teacher that reads one word of each text and with one that reads all of them."""
    own = np.tile(np.arange(5), (ROWS, 1))
    labels = np.random.default_rng(1).integers(0, CLASSES, (ROWS, 5)).astype(np.int32)
    tagging = make_task("tagging").fitted(labels, ("B-x", "I-x", "O"))
    views = {"v": texts.views["v"] | {"positions": own}}
    batch = texts.replace(views=views, labels=labels, positions=np.ones_like(own, bool))
    lstm = dict(name="bilstm", num_classes=CLASSES, vocabulary_size=9, width=4, state=4, layers=1)
    lstm |= dict(head=(), dropout=0.0, predicts="token")
    group, state, frozen = make_case(batch, lstm, lstm, dict(hard=HARD))
    case = dataclasses.replace(group, task=tagging), state, frozen
    _, all_read = advance(case, batch)
    _, few_read = advance(case, batch.replace(positions=own == 0))
    for name in ("token_accuracy", "hard"):
        assert few_read["s"][name].count == all_read["s"][name].count == own.size
        np.testing.assert_array_equal(few_read["s"][name].total, all_read["s"][name].total)
