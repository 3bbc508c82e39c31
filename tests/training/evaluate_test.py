from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy import special

from kd_jax.core.types import ModelOutput, Teacher
from kd_jax.models.network import DTYPES, Network
from kd_jax.tasks import CLASSIFICATION, make_task
from kd_jax.tasks.classification import CALIBRATION_BINS, calibration_error, calibration_sums
from kd_jax.training.evaluate import eval_step, evaluate

ROWS, CLASSES = 50, 4


class AsGiven(nn.Module):
    """A model whose logits are its input times its only parameter."""

    @nn.compact
    def __call__(self, logits, positions=None, *, train=False):
        return ModelOutput(self.param("scale", nn.initializers.ones, ()) * logits, {})


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def split(rng, make_batch):
    """A whole split: logits of a model and of its teacher, labels mostly where the model says."""
    student = rng.normal(scale=2, size=(ROWS, CLASSES)).astype(np.float32)
    teacher = (student + rng.normal(scale=2, size=student.shape)).astype(np.float32)
    labels = np.where(
        rng.random(ROWS) < 0.6, student.argmax(-1), rng.integers(0, CLASSES, ROWS)
    ).astype(np.int32)
    views = {"student": {"logits": student}, "teacher": {"logits": teacher}}
    return make_batch(views, rows=ROWS, labels=labels, label_valid=rng.random(ROWS) < 0.8)


def batches(split, size):
    """The split in batches of one size, the last one filled up with rows of nonsense."""
    for start in range(0, ROWS, size):
        taken = jax.tree.map(lambda leaf, start=start: leaf[start : start + size], split)
        missing = size - taken.valid.shape[0]
        fill = jax.tree.map(
            lambda leaf, n=missing: np.full((n, *leaf.shape[1:]), 1e4).astype(leaf.dtype), split
        )
        fill = fill.replace(valid=np.zeros(missing, bool))
        yield jax.tree.map(lambda a, b: np.concatenate([a, b]), taken, fill)


def run(split, size):
    teacher, student = (
        Network(AsGiven(), view, DTYPES["float32"]) for view in ("teacher", "student")
    )
    variables = {"params": {"scale": np.float32(1)}}
    step = jax.jit(partial(eval_step, forward=student))
    return evaluate(step, variables, {"big": Teacher(variables, teacher)}, batches(split, size))


def ece_reference(logits, labels):
    """Guo et al., one example and one bin at a time: bins are (i/15, (i+1)/15]."""
    probabilities = special.softmax(np.float64(logits), -1)
    confidence, right = probabilities.max(-1), logits.argmax(-1) == labels
    error = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("size", [50, 64, 16, 7, 1])
def test_metrics_are_exact_however_the_split_is_batched_and_padded(split, size):
    metrics = run(split, size)
    student, teacher = (np.float64(split.views[view]["logits"]) for view in ("student", "teacher"))
    labelled, labels = split.label_valid, split.labels
    nats = -special.log_softmax(student, -1)[np.arange(ROWS), labels]
    p, q = special.softmax(teacher, -1), special.softmax(student, -1)
    assert metrics["accuracy"] == (student.argmax(-1) == labels)[labelled].mean()
    assert metrics["agreement"] == {"big": (student.argmax(-1) == teacher.argmax(-1)).mean()}
    np.testing.assert_allclose(metrics["loss"], nats[labelled].mean(), rtol=1e-6)
    np.testing.assert_allclose(
        metrics["teacher_kl"]["big"], special.rel_entr(p, q).sum(-1).mean(), rtol=1e-6
    )
    np.testing.assert_allclose(
        metrics["ece"], ece_reference(student[labelled], labels[labelled]), rtol=1e-5
    )


def test_metrics_are_plain_floats(split):
    metrics = run(split, 16)
    kinds = {"loss", "agreement", "teacher_kl", *CLASSIFICATION.metrics}
    assert set(metrics) == kinds
    leaves = jax.tree.leaves(metrics)
    assert all(type(leaf) is float for leaf in leaves)


def test_a_model_agrees_wholly_with_itself(split):
    same = split.replace(views=split.views | {"teacher": split.views["student"]})
    metrics = run(same, 16)
    assert metrics["agreement"] == {"big": 1.0}
    np.testing.assert_allclose(metrics["teacher_kl"]["big"], 0, atol=1e-6)


def test_a_split_without_labels_still_tells_the_agreement(split):
    metrics = run(split.replace(label_valid=np.zeros(ROWS, bool)), 16)
    assert (metrics["accuracy"], metrics["loss"], metrics["ece"]) == (0.0, 0.0, 0.0)
    assert metrics["agreement"]["big"] == run(split, 16)["agreement"]["big"]


def test_soft_labels_count_as_right_where_their_largest_is(split):
    soft = split.replace(labels=np.eye(CLASSES, dtype=np.float32)[split.labels])
    ours, theirs = run(soft, 16), run(split, 16)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, theirs)


# Calibration


def test_the_calibration_error_of_a_sure_model_is_its_error_rate(make_batch):
    logits = 100 * np.eye(CLASSES, dtype=np.float32)[[0, 1, 2, 3, 0, 1]]
    batch = make_batch({}, labels=np.array([0, 1, 2, 3, 1, 2], np.int32))
    sums = np.asarray(calibration_sums(logits, batch))
    assert sums.shape == (CALIBRATION_BINS, 3)
    np.testing.assert_allclose(sums[-1], [6, 6, 4])
    np.testing.assert_allclose(calibration_error(sums), 2 / 6, rtol=1e-6)


def test_a_model_as_sure_as_it_is_right_has_no_calibration_error(make_batch):
    # Confidence 3/4, right in three rows of four.
    logits = np.log(np.tile(np.array([0.75, 0.125, 0.125], np.float32), (4, 1)))
    batch = make_batch({}, rows=4, labels=np.array([0, 0, 0, 1], np.int32))
    np.testing.assert_allclose(
        calibration_error(np.asarray(calibration_sums(logits, batch))), 0, atol=1e-6
    )


def test_the_calibration_error_of_nothing_is_zero():
    assert calibration_error(np.zeros((CALIBRATION_BINS, 3))) == 0.0


def test_a_models_own_words_count_where_its_teacher_cut_the_text_off(make_batch):
    tagging = make_task("tagging").fitted(np.zeros((1, 1), np.int32), ("B-x", "O"))
    logits = np.eye(2, dtype=np.float32)[[[0, 1, 0], [1, 0, 0]]]
    own, short = np.array([[0, 1, 2], [0, 1, -1]]), np.array([[0, -1, -1], [0, 1, -1]])
    views = {
        "student": {"logits": 5 * logits, "positions": own},
        "teacher": {"logits": -5 * logits, "positions": short},
        "other": {"logits": 5 * logits, "positions": np.array([[0, 1, 2], [0, -1, -1]])},
    }
    labels = np.array([[0, 1, 0], [1, 0, -1]], np.int32)
    both = np.array([[True, False, False], [True, False, False]])
    batch = make_batch(views, rows=2, labels=labels, positions=both)
    teacher, student = (
        Network(AsGiven(), view, DTYPES["float32"]) for view in ("teacher", "student")
    )
    variables = {"params": {"scale": np.float32(1)}}
    step = partial(eval_step, forward=student, task=tagging)
    other = Network(AsGiven(), "other", DTYPES["float32"])
    teachers = {"teacher": Teacher(variables, teacher), "other": Teacher(variables, other)}
    sums = step(variables, teachers, batch)["sums"]
    # It has a prediction of five words, and its teacher of the three that both read.
    assert sums["loss"].count == 5
    assert sums["token_accuracy"].total == sums["token_accuracy"].count == 5
    assert sums["agreement/teacher"].count == 3
    # What one teacher doesn't read is compared with another one all the same.
    assert sums["agreement/other"].count == sums["agreement/other"].total == 4
    alone = step(variables, {}, batch)
    np.testing.assert_array_equal(alone["rows"]["outputs"], [[0, 1, 0], [1, 0, -1]])
