"""A teacher's output in a student's input: what is added, for whom, and what learns from it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kd_jax.core.pytree import checksums
from kd_jax.core.rng import stream
from kd_jax.core.types import ModelOutput, Teacher
from kd_jax.models import registry
from kd_jax.models.network import DTYPES, Network
from kd_jax.models.projectors.conditioning import CONDITION, make_condition, read, training_signal
from kd_jax.objective.objective import make_objective
from kd_jax.objective.terms import StepContext, TermSpec
from kd_jax.training.state import TrainState
from kd_jax.training.step import ModelTraining, PeerGroup, train_step

pytestmark = pytest.mark.slow

ROWS, CLASSES = 12, 3
CNN = dict(name="cnn", num_classes=CLASSES, widths=(4,), batch_norm=True)
BAG = dict(
    name="bag_of_embeddings",
    num_classes=CLASSES,
    vocabulary_size=9,
    width=5,
    hidden=(8,),
    dropout=0.5,
)
VIT = dict(
    name="vit",
    num_classes=CLASSES,
    image_size=8,
    patch=4,
    width=8,
    layers=1,
    heads=2,
    intermediate=8,
    dropout=0.0,
    distillation=False,
)
TEXT_CNN = dict(
    name="text_cnn",
    num_classes=CLASSES,
    vocabulary_size=9,
    width=5,
    filters=4,
    kernels=(2,),
    dropout=0.0,
)
BILSTM = dict(
    name="bilstm",
    num_classes=CLASSES,
    vocabulary_size=9,
    width=5,
    state=4,
    layers=1,
    head=(),
    dropout=0.0,
)
TEXT_VGG = dict(
    name="text_vgg",
    num_classes=CLASSES,
    vocabulary_size=9,
    embedding=5,
    depth=11,
    width=0.05,
    batch_norm=True,
    head=(),
    dropout=0.0,
)
ENCODER = dict(
    name="encoder",
    num_classes=CLASSES,
    vocabulary_size=9,
    width=8,
    embedding_width=5,
    layers=2,
    heads=2,
    intermediate=8,
    max_positions=16,
    type_vocabulary=2,
    dropout=0.0,
    pooling="cls",
    scan=True,
)
ZOO = {
    "cnn": CNN,
    "vit": VIT,
    "bag": BAG,
    "text_cnn": TEXT_CNN,
    "bilstm": BILSTM,
    "text_vgg": TEXT_VGG,
    "encoder": ENCODER,
}
SPEC = dict(on="t", output="logits", map="linear", drop=0.5)
SOFT = dict(soft=dict(term="soft_target_kl", weight=1.0, temperature=2.0))


@pytest.fixture
def images(make_batch):
    pixels = np.random.default_rng(0).normal(size=(ROWS, 8, 8, 1)).astype(np.float32)
    return make_batch({"v": {"images": pixels}}, rows=ROWS, classes=CLASSES)


@pytest.fixture
def texts(make_batch):
    ids = np.random.default_rng(0).integers(0, 9, (ROWS, 5)).astype(np.int32)
    mask = np.arange(5) < np.random.default_rng(1).integers(1, 6, (ROWS, 1))
    return make_batch({"v": {"input_ids": ids, "attention_mask": mask}}, rows=ROWS, classes=CLASSES)


@pytest.fixture
def batch_for(images, texts):
    return lambda spec: texts if "vocabulary_size" in spec else images


def network(spec, dtype="float32"):
    return Network(registry.build(spec), "v", DTYPES[dtype])


def taught(rows=ROWS, width=CLASSES):
    logits = np.random.default_rng(2).normal(size=(rows, width)).astype(np.float32)
    return ModelOutput(
        jnp.asarray(logits), {"pooled": jnp.ones((rows, 7)), "block_0": jnp.ones((rows, 2, 2, 7))}
    )


def condition_of(pupil, variables, batch, **options):
    spec = SPEC | options
    return make_condition(spec, taught(), pupil.signal_shape(variables, batch), jnp.float32, SOFT)


def loud(params):
    """A map that is no longer at its start."""
    keys = iter(jax.random.split(jax.random.key(3), len(jax.tree.leaves(params))))
    return jax.tree.map(lambda leaf: jax.random.normal(next(keys), leaf.shape, leaf.dtype), params)


def make_case(batch, student, *, drop=0.5, seed=5, output="logits", rate=0.1):
    pupil, big = (
        network(student),
        network(dict(student, widths=(6,)) if student is CNN else student),
    )
    first, frozen = pupil.init(jax.random.key(0), batch), big.init(jax.random.key(1), batch)
    shapes = {"t": jax.eval_shape(big, frozen, batch)}
    site = TermSpec(
        "v",
        jax.eval_shape(pupil, first, batch),
        shapes,
        None,
        {"t": "v"},
        np.asarray(batch.labels),
        CLASSES,
    )
    spec = SPEC | dict(drop=drop, output=output)
    condition = make_condition(
        spec, shapes["t"], pupil.signal_shape(first, batch), jnp.float32, SOFT
    )
    learner = ModelTraining(pupil, make_objective(SOFT, site), optax.sgd(rate), None, condition)
    state = TrainState(jnp.zeros((), jnp.int32), {"s": learner.init(first, jax.random.key(2))})
    return PeerGroup({"s": learner}, seed), state, {"t": Teacher(frozen, big)}


def advance(case, batch):
    group, state, frozen = case
    return jax.jit(functools.partial(train_step, group=group))(
        state, frozen, jax.tree.map(lambda x: x[None], batch)
    )


# Where nothing is added


@pytest.mark.parametrize("spec", ZOO.values(), ids=ZOO)
def test_a_signal_of_zero_and_none_are_the_plain_student_to_the_bit(spec, batch_for):
    pupil, batch = network(spec), batch_for(spec)
    variables = pupil.init(jax.random.key(0), batch)
    zeros = np.zeros((ROWS, *pupil.signal_shape(variables, batch)), np.float32)
    plain = pupil.module.apply(variables, **batch.views["v"], train=False).logits
    for signal in (None, zeros):
        np.testing.assert_array_equal(pupil(variables, batch, signal).logits, plain)
    train = functools.partial(
        pupil.train, variables, batch, dropout_key=jax.random.key(1), axis_name=None
    )
    jax.tree.map(np.testing.assert_array_equal, train(signal=zeros), train())


@pytest.mark.parametrize("spec", ZOO.values(), ids=ZOO)
def test_any_architecture_reads_the_signal_example_by_example(spec, batch_for):
    pupil, batch = network(spec), batch_for(spec)
    variables = pupil.init(jax.random.key(0), batch)
    signal = np.zeros((ROWS, *pupil.signal_shape(variables, batch)), np.float32)
    signal[3] = 2 * np.random.default_rng(0).normal(size=signal.shape[1:])
    different = np.any(
        np.asarray(pupil(variables, batch, signal).logits != pupil(variables, batch).logits),
        axis=-1,
    )
    np.testing.assert_array_equal(different, np.arange(ROWS) == 3)


def test_an_image_gets_its_signal_added_pixel_by_pixel(images):
    pupil = network(CNN)
    variables = pupil.init(jax.random.key(0), images)
    signal = np.random.default_rng(0).normal(size=(ROWS, 8, 8, 1)).astype(np.float32)
    other = images.replace(views={"v": {"images": images.views["v"]["images"] + signal}})
    np.testing.assert_array_equal(
        pupil(variables, images, signal).logits, pupil(variables, other).logits
    )


def test_a_text_gets_one_vector_added_to_each_word_embedding(texts):
    pupil = network(BAG)
    variables = pupil.init(jax.random.key(0), texts)
    signal = np.random.default_rng(0).normal(size=(ROWS, 5)).astype(np.float32)
    found = pupil(variables, texts, signal).features["embeddings"]
    np.testing.assert_array_equal(
        found, pupil(variables, texts).features["embeddings"] + signal[:, None]
    )


def test_a_mixed_text_gets_it_once(texts):
    pupil = network(BAG)
    variables = pupil.init(jax.random.key(0), texts)
    partner = {
        "partner_ids": texts.views["v"]["input_ids"][::-1],
        "weight": np.full(ROWS, 0.25, np.float32),
    }
    mixed = texts.replace(views={"v": texts.views["v"] | partner})
    signal = np.random.default_rng(0).normal(size=(ROWS, 5)).astype(np.float32)
    found = pupil(variables, mixed, signal).features["embeddings"]
    np.testing.assert_allclose(
        found, pupil(variables, mixed).features["embeddings"] + signal[:, None], atol=1e-6
    )


# The map


@pytest.mark.parametrize("name", ["linear", "mlp", "regressor"])
@pytest.mark.parametrize("output", ["logits", "probabilities", "pooled"])
def test_a_map_starts_at_zero_and_reads_what_the_section_names(images, name, output):
    pupil = network(CNN)
    variables = pupil.init(jax.random.key(0), images)
    condition = condition_of(pupil, variables, images, map=name, output=output)
    params = condition.init(jax.random.key(1))
    signal = condition.signal(params, taught())
    assert signal.shape == (ROWS, 8, 8, 1)
    assert not np.any(signal)
    # Only the last affine map is at 0: the gradient finds its way.
    gradient = jax.grad(lambda p: jnp.sum(condition.signal(p, taught())))(params)
    assert np.any(gradient[max(gradient)]["kernel"])
    want = condition.mapping.apply({"params": loud(params)}, read(taught(), output)).reshape(
        ROWS, 8, 8, 1
    )
    np.testing.assert_array_equal(condition.signal(loud(params), taught()), want)
    assert np.any(want)


def test_probabilities_are_the_softmax_of_the_logits():
    np.testing.assert_allclose(jnp.sum(read(taught(), "probabilities"), axis=-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(read(taught(), "probabilities"), jax.nn.softmax(taught().logits))


# The draw


def test_each_example_is_withheld_by_itself_as_often_as_the_section_says(images):
    pupil = network(CNN)
    variables = pupil.init(jax.random.key(0), images)

    def given(drop):
        return condition_of(pupil, variables, images, drop=drop).given(
            jax.random.key(0), 4000, None
        )

    assert np.mean(given(0.3)) == pytest.approx(0.7, abs=0.03)  # Four standard deviations.
    assert np.all(given(0.0))
    runs = np.flatnonzero(np.diff(np.asarray(given(0.5)).astype(int))).size
    assert runs == pytest.approx(2000, abs=130)


def test_the_draw_depends_on_seed_and_step_alone(texts):
    """With everything withheld or nothing but the draw between them, the losses tell the draws
    apart."""
    case = make_case(texts, TEXT_CNN)
    group, state, frozen = case
    member = state.models["s"]
    member = member.replace(term_params={CONDITION: loud(member.term_params[CONDITION])})
    state = TrainState(state.step, {"s": member})
    later, other = state.replace(step=state.step + 1), dataclasses.replace(group, seed=6)
    losses = [
        float(advance((g, s, frozen), texts)[1]["s"]["loss"])
        for g, s in ((group, state), (group, state), (group, later), (other, state))
    ]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_who_is_given_the_condition_gets_the_whole_signal_and_the_others_nothing(images):
    group, state, _ = make_case(images, VIT)
    condition = group.models["s"].condition
    params = loud(state.models["s"].term_params[CONDITION])
    found = training_signal(
        condition, {CONDITION: params}, {"t": taught()}, jax.random.key(0), None
    )
    given = np.asarray(condition.given(jax.random.key(0), ROWS, None))
    assert 0 < given.sum() < ROWS
    np.testing.assert_array_equal(found[given], condition.signal(params, taught())[given])
    assert not np.any(found[~given])
    assert training_signal(None, {}, {"t": taught()}, jax.random.key(0), None) is None


def test_a_step_trains_on_what_was_drawn_for_its_microbatch(images):
    group, state, frozen = make_case(images, VIT)
    learner, member = group.models["s"], state.models["s"]
    member = member.replace(term_params={CONDITION: loud(member.term_params[CONDITION])})
    key = jax.random.split(stream(group.seed, "step", 0), 1)[0]
    said = {"t": frozen["t"](images)}
    signal = training_signal(learner.condition, member.term_params, said, key, None)
    output, _ = learner.network.train(
        member.variables(), images, dropout_key=key, axis_name=None, signal=signal
    )
    means, _ = learner.objective.sums(
        member.term_params, {}, StepContext(output, said, images, 0, key)
    )
    _, metrics = advance((group, TrainState(state.step, {"s": member}), frozen), images)
    assert float(metrics["s"]["loss"]) == pytest.approx(float(means["soft"].value()), rel=1e-4)


# Learning


@pytest.mark.parametrize("spec", [CNN, TEXT_CNN], ids=["images", "texts"])
def test_the_gradient_reaches_the_map_and_not_the_teacher(spec, batch_for):
    batch = batch_for(spec)
    case = make_case(batch, spec)
    group, state, frozen = case
    before = checksums(state.models["s"].term_params)
    after = checksums(advance(case, batch)[0].models["s"].term_params)
    assert before.keys() == {"condition/dense/bias", "condition/dense/kernel"} == after.keys()
    assert all(before[path] != after[path] for path in before)
    member = state.models["s"].replace(
        term_params={CONDITION: loud(state.models["s"].term_params[CONDITION])}
    )
    louder, parts = (
        TrainState(state.step, {"s": member}),
        jax.tree.map(lambda leaf: leaf[None], batch),
    )

    def loss(frozen):
        return train_step(louder, frozen, parts, group=group)[1]["s"]["loss"]

    assert all(not np.any(leaf) for leaf in jax.tree.leaves(jax.grad(loss)(frozen)))


def test_training_starts_from_the_plain_student(images):
    group, state, frozen = make_case(images, CNN, drop=0.0)
    learner = dataclasses.replace(group.models["s"], condition=None)
    plain = dataclasses.replace(group, models={"s": learner}), state, frozen
    found, wanted = (
        advance(case, images)[1]["s"]["loss"] for case in ((group, state, frozen), plain)
    )
    assert float(found) == float(wanted)


def test_a_learner_without_a_condition_has_no_map(images):
    group, _, _ = make_case(images, CNN)
    learner = dataclasses.replace(group.models["s"], condition=None)
    variables = learner.network.init(jax.random.key(0), images)
    assert learner.init(variables, jax.random.key(0)).term_params == {}


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(output="head"),
            r"^'t' has no condition.output 'head'; with one vector an example it has logits,"
            r" pooled, probabilities$",
        ),
        (
            dict(output="block_0"),
            r"^condition.output must have one vector .*, and 'block_0' of 't' has shape \(12, 2, 2,"
            r" 7\);",
        ),
        (dict(map="none"), r"^no mapping 'none'; there are \['connector'"),
        (
            dict(map="connector"),
            r"^condition.map 'connector' normalizes by the batch.*; use linear, mlp, regressor$",
        ),
        (dict(map="convolution"), r"^condition.map 'convolution' normalizes"),
    ],
)
def test_what_does_not_fit_the_teacher_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_condition(SPEC | options, taught(), (8, 8, 1), jnp.float32, SOFT)


def test_a_term_by_the_maps_name_is_refused():
    with pytest.raises(
        ValueError, match=r"^a term of its objective can't be named 'condition' beside a condition$"
    ):
        make_condition(SPEC, taught(), (5,), jnp.float32, {"condition": SOFT["soft"]})
