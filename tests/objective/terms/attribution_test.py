"""Attribution matching as a term: against linear networks by hand, inside the step, and what it
refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from term_specs import mean_of

from kd_jax.analysis.attribution import attribution_matching
from kd_jax.core.rng import fold_name, stream
from kd_jax.core.types import ModelOutput, Teacher
from kd_jax.models import registry
from kd_jax.models.network import Network
from kd_jax.objective.objective import bind_term, make_objective
from kd_jax.objective.terms import StepContext, TermSpec
from kd_jax.training.state import TrainState
from kd_jax.training.step import ModelTraining, PeerGroup, train_step

pytestmark = pytest.mark.grid

ROWS, CLASSES, TOKENS, KEY = 4, 3, 5, jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES = {"images": RNG.normal(size=(ROWS, 4, 4, 1)).astype(np.float32)}
IDS = np.array([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0], [2, 5, 7, 3, 0], [2, 9, 8, 7, 3]], np.int32)
TEXTS = {"input_ids": IDS, "attention_mask": IDS != 0}
VIEWS = {"images": IMAGES, "texts": TEXTS}
ON_IMAGES = dict(players=(2, 2), value="shapley", draws=4, examples=None, baseline=0.25)
ON_TEXTS = dict(
    players="tokens", value="banzhaf", draws=1, examples=None, baseline=None, fixed_ids=(2, 3)
)
WEIGHTS = {
    name: RNG.normal(size=(16, CLASSES)).astype(np.float32) for name in ("student", "teacher")
}


def linear(weights):
    """Logits that are sums over pixels, or over the tokens that count."""

    def logits_of(batch):
        view = batch.views["v"]
        if "images" in view:
            return view["images"].reshape(-1, 16) @ weights
        return jnp.einsum(
            "nt,ntk->nk",
            view["attention_mask"].astype(jnp.float32),
            jnp.asarray(weights)[view["input_ids"]],
        )

    return logits_of


def site_of(kind, *, teacher_view="v", cached=()):
    shape = ModelOutput(jax.ShapeDtypeStruct((1, CLASSES), jnp.float32), {})
    inputs = {
        "v": jax.eval_shape(
            lambda view: {name: leaf[:1] for name, leaf in view.items()}, VIEWS[kind]
        )
    }
    return TermSpec(
        "v",
        shape,
        {"big": shape},
        TOKENS if kind == "texts" else None,
        {"big": teacher_view},
        np.zeros(ROWS, np.int32),
        CLASSES,
        inputs,
        cached,
    )


def make(kind, site=None, **options):
    spec = {"images": ON_IMAGES, "texts": ON_TEXTS}[kind] | options
    return bind_term({"term": "attribution_matching"} | spec, site or site_of(kind))


def seen_of(kind, make_batch, student=None, **fields):
    batch = make_batch({"v": VIEWS[kind]}, rows=ROWS, classes=CLASSES, **fields)
    models_of = {
        name: linear(weights)
        for name, weights in (
            WEIGHTS | ({"student": student} if student is not None else {})
        ).items()
    }
    outputs = {name: ModelOutput(model(batch), {}) for name, model in models_of.items()}
    return StepContext(
        outputs["student"],
        {"big": outputs["teacher"]},
        batch,
        0,
        KEY,
        None,
        models_of["student"],
        {"big": models_of["teacher"]},
    )


def attributions_by_hand(kind, classes):
    """A linear network's parts are worth what they hold, whatever is drawn: `[B, M]` of student and
    teacher."""
    found = {}
    for name, weights in WEIGHTS.items():
        if kind == "images":
            held = (IMAGES["images"].reshape(ROWS, 16) - 0.25)[..., None] * weights
            held = (
                held.reshape(ROWS, 2, 2, 2, 2, CLASSES).sum(axis=(2, 4)).reshape(ROWS, 4, CLASSES)
            )
        else:
            held = weights[IDS] * (IDS > 3)[..., None]
        found[name] = held[np.arange(ROWS), :, classes]
    return found["student"], found["teacher"], None if kind == "images" else IDS > 3


@pytest.mark.parametrize(
    "value", [dict(value="shapley", draws=4), dict(value="banzhaf", draws=1)], ids=str
)
@pytest.mark.parametrize("kind", list(VIEWS))
def test_it_is_the_difference_of_the_attributions_of_the_class_that_the_teacher_predicts(
    kind, value, make_batch
):
    seen = seen_of(kind, make_batch)
    classes = np.argmax(np.asarray(seen.teachers["big"].logits), axis=1)
    assert (classes != np.argmax(np.asarray(seen.student.logits), axis=1)).any()
    student, teacher, where = attributions_by_hand(kind, classes)
    want = attribution_matching(student, teacher, where=where)
    found, memory = make(kind, **value).compute({}, {}, seen)
    assert memory == {}
    assert np.min(want) > 1e-3
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", list(VIEWS))
def test_a_student_whose_logits_are_the_teachers_scaled_has_nothing_to_learn(kind, make_batch):
    seen = seen_of(kind, make_batch, student=3 * WEIGHTS["teacher"])
    np.testing.assert_allclose(make(kind).compute({}, {}, seen)[0], 0, atol=1e-6)


def test_another_baseline_is_another_attribution(make_batch):
    seen = seen_of("images", make_batch)
    found = [make("images", baseline=baseline).compute({}, {}, seen)[0] for baseline in (0.25, 2.0)]
    assert not np.allclose(*found, rtol=1e-2)


def test_a_hidden_token_may_be_replaced_instead(make_batch):
    seen = seen_of("texts", make_batch)
    found = make("texts", baseline=4).compute({}, {}, seen)[0]
    classes = np.argmax(np.asarray(seen.teachers["big"].logits), axis=1)
    held = [(weights[IDS] - weights[4]) * (IDS > 3)[..., None] for weights in WEIGHTS.values()]
    both = [each[np.arange(ROWS), :, classes] for each in held]
    np.testing.assert_allclose(
        found, attribution_matching(*both, where=IDS > 3), rtol=1e-4, atol=1e-6
    )


def test_of_some_examples_the_first_valid_ones_count(make_batch):
    valid = np.array([True, False, True, True])
    seen = seen_of("images", make_batch, valid=valid)
    each = np.asarray(make("images").compute({}, {}, seen)[0])
    for examples, counted in ((1, [0]), (3, [0, 2]), (9, [0, 2, 3])):
        term = make("images", examples=examples)
        assert (term.kind, int(term.count(seen.batch))) == ("batch", 1)
        np.testing.assert_allclose(
            mean_of(term, {}, {}, seen)[0].value(), each[counted].mean(), rtol=1e-5
        )


def test_other_keys_draw_other_coalitions(make_batch):
    seen = seen_of("images", make_batch)

    def bent(logits_of):
        return lambda batch: jnp.tanh(logits_of(batch))

    found = [
        make("images").compute(
            {},
            {},
            StepContext(
                seen.student,
                seen.teachers,
                seen.batch,
                0,
                jax.random.key(key),
                None,
                bent(seen.student_logits),
                {"big": bent(seen.teacher_logits["big"])},
            ),
        )[0]
        for key in (0, 0, 1)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2], rtol=1e-3)


# Inside the step

CNN = dict(name="cnn", num_classes=CLASSES, widths=(4,), batch_norm=True)
DROPPING = dict(
    name="vgg", num_classes=CLASSES, depth=11, width=0.05, batch_norm=True, head=(6,), dropout=0.5
)


def step_case(batch, student, spec):
    pupil, big = (Network(registry.build(each), "v", jnp.float32) for each in (student, CNN))
    first, frozen = pupil.init(jax.random.key(0), batch), big.init(jax.random.key(1), batch)
    inputs = {
        "v": jax.eval_shape(
            lambda view: {name: leaf[:1] for name, leaf in view.items()}, batch.views["v"]
        )
    }
    site = TermSpec(
        "v",
        jax.eval_shape(pupil, first, batch),
        {"big": jax.eval_shape(big, frozen, batch)},
        None,
        {"big": "v"},
        np.asarray(batch.labels),
        CLASSES,
        inputs,
    )
    objective = make_objective(
        dict(match=dict(term="attribution_matching", weight=1.0) | spec), site
    )
    learner = ModelTraining(pupil, objective, optax.sgd(0.1))
    state = TrainState(jnp.zeros((), jnp.int32), {"s": learner.init(first, jax.random.key(2))})
    return PeerGroup({"s": learner}, seed=5), state, {"big": Teacher(frozen, big)}


@pytest.mark.parametrize("examples", [None, 3])
def test_the_step_asks_the_student_that_is_trained_without_dropout_and_by_stored_statistics(
    examples, make_batch
):
    pixels = RNG.normal(size=(ROWS, 8, 8, 1)).astype(np.float32)
    batch = make_batch({"v": {"images": pixels}}, rows=ROWS, classes=CLASSES)
    spec = dict(players=(2, 2), value="banzhaf", draws=2, examples=examples, baseline=0.0)
    group, state, frozen = step_case(batch, DROPPING, spec)
    parts = jax.tree.map(lambda leaf: leaf[None], batch)
    after, metrics = jax.jit(functools.partial(train_step, group=group))(state, frozen, parts)
    learner, big = group.models["s"], frozen["big"]
    key = jax.random.split(stream(5, "step", 0), 1)[0]
    student = state.models["s"].variables()
    seen = StepContext(
        learner.network(student, batch),
        {"big": big(batch)},
        batch,
        0,
        fold_name(key, "match"),
        None,
        lambda shown: learner.network(student, shown).logits,
        {"big": big.logits},
    )
    want = mean_of(learner.objective.terms["match"], {}, {}, seen)[0].value()
    assert float(want) > 1e-3
    assert float(metrics["s"]["match"].value()) == pytest.approx(float(want), rel=1e-4)
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), after.models["s"].params, student["params"]
    )
    assert max(jax.tree.leaves(moved)) > 1e-6


def test_a_student_that_learns_by_it_alone_comes_to_rest_on_the_same_patches(make_batch):
    pixels = RNG.normal(size=(ROWS, 8, 8, 1)).astype(np.float32)
    batch = make_batch({"v": {"images": pixels}}, rows=ROWS, classes=CLASSES)
    spec = dict(players=(2, 2), value="shapley", draws=4, examples=None, baseline=0.0)
    group, state, frozen = step_case(batch, dict(CNN, widths=(8,)), spec)
    step = jax.jit(functools.partial(train_step, group=group))
    losses = []
    for _ in range(60):
        state, metrics = step(state, frozen, jax.tree.map(lambda leaf: leaf[None], batch))
        losses.append(float(metrics["s"]["match"].value()))
    assert losses[-1] < 0.3 * losses[0]


# Refusals


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("images", dict(value="owen"), "unknown value 'owen'; there are banzhaf, shapley"),
        (
            "images",
            dict(draws=5),
            "draws of orders of joining must be an even number from 4 on, got 5",
        ),
        (
            "images",
            dict(draws=2),
            "draws of orders of joining must be an even number from 4 on, got 2",
        ),
        ("images", dict(value="banzhaf", draws=0), "draws must be a whole number from 1 on, got 0"),
        ("images", dict(examples=0), "examples must be None or a whole number from 1 on, got 0"),
        (
            "images",
            dict(players="tokens"),
            r"pictures have no tokens: players must be \(rows, columns\)",
        ),
        (
            "images",
            dict(players="patches"),
            r"players must be \(rows, columns\), with a baseline .*, got 'patches'",
        ),
        ("images", dict(players=(2, 0)), "each of players must be a whole number from 1 on, got 0"),
        (
            "images",
            dict(players=(2, 2, 2)),
            r"players must be \(rows, columns\), .* got \(2, 2, 2\)",
        ),
        (
            "images",
            dict(baseline=None),
            r"players must be \(rows, columns\), with a baseline and .*, baseline None",
        ),
        (
            "images",
            dict(fixed_ids=(1,)),
            r"players must be .* and no fixed_ids, got .* fixed_ids \(1,\)",
        ),
        (
            "images",
            dict(players=(3, 2)),
            r"a grid of \(3, 2\) patches doesn't divide images of 4 x 4",
        ),
        ("texts", dict(players=(2, 2)), r"players must be 'tokens', got \(2, 2\)"),
        ("texts", dict(baseline=1.5), "baseline must be a whole number from 0 on, got 1.5"),
        (
            "texts",
            dict(patches=3),
            "'attribution_matching' has no option 'patches'; its options are baseline, draws,",
        ),
    ],
)
def test_an_option_that_does_not_fit_is_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        make(kind, **options)


def test_a_teacher_of_another_tokenizer_is_refused():
    with pytest.raises(ValueError, match="token by token it can't be compared with 'big'"):
        make("texts", site_of("texts", teacher_view="w"))


def test_a_cached_teacher_is_refused():
    with pytest.raises(
        ValueError, match="teacher 'big' can't be asked about masked examples while it is cached"
    ):
        make("images", site_of("images", cached=("big",)))


def test_mixed_texts_are_refused(make_batch):
    seen = seen_of("texts", make_batch)
    seen.batch.views["v"] = seen.batch.views["v"] | {
        "partner_ids": IDS,
        "weight": np.ones(ROWS, np.float32),
    }
    with pytest.raises(
        ValueError,
        match=r"attributions of mixed texts are not defined: training.mixing must be None",
    ):
        make("texts").compute({}, {}, seen)
