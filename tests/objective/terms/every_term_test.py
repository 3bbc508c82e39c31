"""What holds for every term of an objective, on images and on texts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from term_specs import ON_IMAGES, ON_NUMBERS, ON_SETS, ON_TEXTS, mean_of

from kd_jax import losses
from kd_jax.core.types import Batch, ModelOutput
from kd_jax.objective.objective import bind_term
from kd_jax.objective.terms import TERMS, StepContext, TermSpec

pytestmark = pytest.mark.grid

ROWS, CLASSES, TOKENS, EXAMPLES, KEY = 6, 3, 5, 30, jax.random.key(0)
LABELS = np.arange(EXAMPLES, dtype=np.int32) % CLASSES
CASES = [("images", name, spec) for name, spec in ON_IMAGES.items()] + [
    (kind, name, spec)
    for kind, specs in (("texts", ON_TEXTS), ("sets", ON_SETS), ("numbers", ON_NUMBERS))
    for name, spec in specs.items()
]
every_term = pytest.mark.parametrize(
    ("kind", "name", "spec"), CASES, ids=[f"{name} on {kind}" for kind, name, _ in CASES]
)


def layers_of(kind, rng, width):
    def array(*shape):
        return rng.normal(size=(ROWS, *shape))

    if kind == "texts":
        return {"pooled": array(width), "block_0": array(TOKENS, width)} | {
            f"attention_{i}": array(2, TOKENS, TOKENS) for i in range(2)
        }
    layers = {"pooled": array(width)}
    for i, (side, channels) in enumerate(((8, 4), (4, 8), (2, width))):
        layers |= {f"block_{i}": np.maximum(array(side, side, channels), 0)}
        layers |= {f"block_{i}_preact": array(side, side, channels)}
        layers |= {
            f"block_{i}_preact_margin": np.tile(-np.abs(rng.normal(size=channels)), (ROWS, 1))
        }
    return layers


def output_of(kind, seed, width):
    rng = np.random.default_rng(seed)
    output = ModelOutput(rng.normal(size=(ROWS, CLASSES)), layers_of(kind, rng, width))
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), output)


def batch_of(kind, valid):
    mask = np.arange(TOKENS) < np.array([5, 3, 1, 4, 2, 5])[:, None]
    ids = np.arange(ROWS * TOKENS, dtype=np.int32).reshape(ROWS, TOKENS)
    images = np.linspace(-1, 1, ROWS * 64).reshape(ROWS, 8, 8, 1)
    views = {"texts": {"input_ids": ids, "attention_mask": mask}, "images": {"images": images}}
    index = np.array([3, 29, 11, 8, 1, 16], np.int32)
    labels = LABELS[index]
    # Their terms look at outputs and labels alone, whatever the model reads.
    if kind in ("sets", "numbers"):
        labels = np.random.default_rng(2).normal(size=(ROWS, CLASSES)).astype(np.float32)
        labels = labels if kind == "numbers" else np.float32(labels > 0)
    view = views.get(kind, views["images"])
    return Batch(index, {"v": view}, labels, np.ones(ROWS, bool), np.asarray(valid))


def asked(output, batch):
    """A model that gives each example of the batch its own logits, by how much of it is shown."""

    def logits_of(shown):
        parts = jax.tree.leaves(
            {name: leaf for name, leaf in shown.views["v"].items() if name != "input_ids"}
        )[0]
        parts = jnp.sin(jnp.asarray(parts, jnp.float32).reshape(parts.shape[0], -1))
        rows = jnp.argmax(shown.index[:, None] == jnp.asarray(batch.index)[None], axis=1)
        weights = jnp.cos(
            jnp.arange(parts.shape[1] * CLASSES, dtype=jnp.float32).reshape(-1, CLASSES)
        )
        # The teacher's features are wider, so that its attributions are others.
        return output.logits[rows] * jnp.tanh(
            parts @ jnp.cos(weights * output.features["pooled"].shape[1])
        )

    return logits_of


class Case:
    """A term with its parameters, and what it sees: a student of width 8, a teacher of width 12."""

    def __init__(self, kind, name, spec, valid=(True,) * ROWS):
        self.batch = batch_of(kind, valid)
        self.student, self.teacher = output_of(kind, 0, 8), output_of(kind, 1, 12)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), (self.student, self.teacher)
        )
        inputs = {
            "v": jax.eval_shape(
                lambda view: jax.tree.map(lambda leaf: leaf[:1], view), self.batch.views["v"]
            )
        }
        tokens = TOKENS if kind == "texts" else None
        site = TermSpec(
            "v", shapes[0], {"big": shapes[1]}, tokens, {"big": "v"}, LABELS, CLASSES, inputs
        )
        self.term = bind_term({"term": name} | spec, site)
        self.params, self.memory = self.term.init(KEY)

    def mean(self, student=None, teacher=None, params=None, memory=None, step=0):
        student, teacher = student or self.student, teacher or self.teacher
        seen = StepContext(
            student,
            {"big": teacher},
            self.batch,
            step,
            KEY,
            None,
            asked(student, self.batch),
            {"big": asked(teacher, self.batch)},
        )
        return mean_of(
            self.term,
            self.params if params is None else params,
            self.memory if memory is None else memory,
            seen,
        )

    def loss(self, *arguments):
        return self.mean(*arguments)[0].value()


def largest(tree):
    return max((float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(tree)), default=0.0)


def test_every_term_is_tried():
    assert {name for _, name, _ in CASES} == set(TERMS)


def test_every_loss_of_the_library_has_a_term():
    no_term = {
        "ContrastMemory",
        "init_contrast_memory",
        "sample_negatives",
        "VARIATIONAL_START",
        "Head",
        "fused_jensen_shannon",
        "fused_reverse_kl",
        "fused_soft_target_kl",
    }
    assert set(losses.__all__) - no_term <= set(TERMS)


@every_term
def test_it_teaches_the_student_and_its_own_parameters_and_never_the_teacher(kind, name, spec):
    case = Case(kind, name, spec)
    gradients = jax.grad(case.loss, argnums=(0, 1, 2))(case.student, case.teacher, case.params)
    student, teacher, params = gradients
    assert np.isfinite(largest(gradients))
    assert largest(student) > 0
    assert largest(teacher) == 0
    for path, leaf in jax.tree.leaves_with_path(params):
        assert largest(leaf) > 0, path


@every_term
def test_rows_that_only_fill_change_nothing(kind, name, spec):
    valid = np.array([True, True, False, True, True, False])
    case = Case(kind, name, spec, valid)

    def spoil(leaf):
        return jnp.where(valid.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 1e3)

    spoiled = jax.tree.map(spoil, (case.student, case.teacher))
    (want, memory), (found, other) = case.mean(), case.mean(*spoiled)
    np.testing.assert_allclose(found.value(), want.value(), rtol=1e-5)
    assert found.count == want.count
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), other, memory)


@every_term
def test_they_get_no_gradient(kind, name, spec):
    valid = np.array([True, True, False, True, True, False])
    case = Case(kind, name, spec, valid)
    student = jax.grad(case.loss)(case.student)
    assert largest(jax.tree.map(lambda leaf: leaf[~valid], student)) == 0
    assert largest(student) > 0


@every_term
def test_nothing_valid_is_a_loss_of_zero_with_a_finite_gradient(kind, name, spec):
    case = Case(kind, name, spec, [False] * ROWS)
    value, gradients = jax.value_and_grad(case.loss, argnums=(0, 2))(
        case.student, case.teacher, case.params
    )
    assert value == 0
    assert largest(gradients) == 0


@pytest.mark.parametrize("name", [pytest.param(name, id=f"{name} on texts") for name in ON_TEXTS])
def test_tokens_that_only_fill_change_nothing(name):
    case = Case("texts", name, ON_TEXTS[name])
    mask = case.batch.views["v"]["attention_mask"]

    def spoil(layer, array):
        if layer.startswith("block"):
            return jnp.where(mask[:, :, None], array, 1e3)
        pairs = mask[:, None, :, None] & mask[:, None, None, :]
        return jnp.where(pairs, array, 1e3) if layer.startswith("attention") else array

    spoiled = [
        output.replace(
            features={layer: spoil(layer, array) for layer, array in output.features.items()}
        )
        for output in (case.student, case.teacher)
    ]
    np.testing.assert_allclose(case.loss(*spoiled), case.loss(), rtol=1e-5)


@every_term
def test_it_compiles_once_for_all_steps(kind, name, spec):
    case = Case(kind, name, spec)
    traced = []

    @jax.jit
    def mean(step):
        traced.append(step)
        return case.mean(step=step)[0].value()

    found = [float(mean(step)) for step in (0, 1)]
    assert len(traced) == 1
    np.testing.assert_allclose(found[0], case.loss(), rtol=1e-5)


@pytest.mark.parametrize("name", ["activation_boundary", "hidden_mse", "overhaul"])
def test_maps_of_differing_sizes_are_pooled_to_the_smaller(name):
    """The student's map of 8x8, mapped, beside the teacher's of 4x4."""
    layers = dict(student="block_0_preact", teacher="block_1_preact", mapping="linear")
    case = Case("images", name, layers)
    gradient = jax.grad(case.loss)(case.student).features["block_0_preact"]
    # Each position of the smaller map is the mean of four.
    four = gradient.reshape(ROWS, 4, 2, 4, 2, -1)
    np.testing.assert_allclose(
        four, np.broadcast_to(four[:, :, :1, :, :1], four.shape), rtol=1e-5, atol=1e-9
    )
    assert largest(gradient) > 0


def test_decoupled_kd_leaves_out_examples_without_a_label():
    case = Case("images", "decoupled_kd", {})
    labelled = np.array([True, False, True, True, False, True])
    case.batch = case.batch.replace(label_valid=labelled)
    want = losses.decoupled_kd(
        case.student.logits, case.teacher.logits, jnp.asarray(case.batch.labels)
    )[labelled].mean()
    np.testing.assert_allclose(case.loss(), want, rtol=1e-5)
    assert case.mean()[0].count == 4


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"temperature": 0.2}])
def test_contrast_heeds_its_options(options):
    name, spec = "contrastive_representation", ON_IMAGES["contrastive_representation"]
    usual, other = (Case("images", name, given).mean() for given in (spec, spec | options))
    same = np.allclose(usual[1].student, other[1].student, rtol=1e-4)
    assert same == ("momentum" not in options)
    assert np.isclose(usual[0].value(), other[0].value(), rtol=1e-4) == (
        "temperature" not in options
    )


def test_the_auto_encoder_of_factor_transfer_learns_by_its_own_error():
    spec = ON_IMAGES["factor_transfer"]
    with_error, without = (
        Case("images", "factor_transfer", spec | {"reconstruction": w}) for w in (1.0, 0.0)
    )

    def decoder(case):
        return largest(jax.grad(lambda p: case.loss(None, None, p))(case.params)["paraphraser"])

    assert decoder(with_error) > 0
    assert decoder(without) == 0
    assert with_error.loss() > without.loss()


def test_overhaul_reads_the_teachers_margin():
    spec = ON_IMAGES["overhaul"]
    case = Case("images", "overhaul", spec)
    lower = {n: 3 * x if n.endswith("_margin") else x for n, x in case.teacher.features.items()}
    assert case.loss(case.student, case.teacher.replace(features=lower)) != case.loss()


SCHEDULED = [
    (name, option)
    for name, spec in ON_IMAGES.items()
    for option in (
        "temperature",
        "beta",
        "alpha",
        "margin",
        "target_weight",
        "inter_weight",
        "gamma",
    )
    if option in {field.name for field in dataclasses.fields(TERMS[name])}
    and name != "contrastive_representation"
]


@pytest.mark.parametrize(("name", "option"), SCHEDULED)
def test_a_hyperparameter_may_follow_the_step(name, option):
    ends = (0.25, 0.75)
    schedule = {"name": "linear", "start": ends[0], "stop": ends[1], "steps": 4}
    moving = Case("images", name, ON_IMAGES[name] | {option: schedule})
    for step, value in zip((0, 4), ends, strict=True):
        fixed = Case("images", name, ON_IMAGES[name] | {option: value})
        np.testing.assert_allclose(moving.mean(step=step)[0].value(), fixed.loss(), rtol=1e-5)
    assert moving.mean(step=0)[0].value() != moving.mean(step=4)[0].value()
