"""Weights by class and smoothed labels: PyTorch's numbers, in any microbatches and on any devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.core.types import Batch, ModelOutput
from kd_jax.objective.objective import make_objective
from kd_jax.objective.terms.term import StepContext, TermSpec

LABELS = np.array([0, 0, 0, 0, 0, 1, 1, 2, -1, 1], np.int32)
LOGITS = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


def spec():
    output = ModelOutput(jax.ShapeDtypeStruct((10, 3), jnp.float32), {})
    return TermSpec("v", output, {}, None, {}, LABELS, 3)


def batch_of(rows):
    labels = LABELS[rows]
    count = len(labels)
    return Batch(np.arange(count), {}, labels, labels >= 0, np.ones(count, bool))


def loss_of(options, parts=(slice(None),)):
    """The loss of a global batch in several microbatches."""
    objective = make_objective({"hard": dict(term="cross_entropy", weight=1.0, **options)}, spec())
    normalizers = objective.normalizers(batch_of(slice(None)))
    total = 0.0
    for rows in parts:
        context = StepContext(
            ModelOutput(jnp.asarray(LOGITS[rows]), {}), {}, batch_of(rows), 0, jax.random.key(0)
        )
        sums, _ = objective.sums({}, {}, context)
        total += objective.weighted_sum(sums, normalizers, 0)
    return float(total)


@pytest.mark.torch
@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 3.0), (1e-3, 2e-3, 1e-3)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_and_smoothing_are_pytorchs(weights, smoothing):
    torch = pytest.importorskip("torch")
    known = LABELS >= 0
    logits, labels = torch.tensor(LOGITS[known]), torch.tensor(LABELS[known].astype(np.int64))
    if weights is None:
        want = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    else:
        # PyTorch weighs each class of a smoothed target by its own weight; we weigh examples.
        each = torch.nn.functional.cross_entropy(
            logits, labels, label_smoothing=smoothing, reduction="none"
        )
        by_label = torch.tensor(weights)[labels]
        want = (each * by_label).sum() / by_label.sum()
    options = {"label_smoothing": smoothing}
    options |= {} if weights is None else {"class_weights": weights}
    assert loss_of(options) == pytest.approx(float(want), rel=1e-5)


def test_balanced_classes_count_the_same():
    nats = -np.log(np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True))
    by_class = [nats[k == LABELS, k].mean() for k in range(3)]
    assert loss_of({"class_weights": "balanced"}) == pytest.approx(np.mean(by_class), rel=1e-5)


def test_microbatches_add_up_to_the_batch():
    options = {"class_weights": (0.01, 0.02, 0.005), "label_smoothing": 0.2}
    parts = (slice(0, 3), slice(3, 8), slice(8, 10))
    assert loss_of(options, parts) == pytest.approx(loss_of(options), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": (1.0, 2.0)}, "class_weights must be 'balanced' or 3 positive numbers"),
        ({"class_weights": (1.0, 0.0, 1.0)}, "class_weights must be"),
        ({"class_weights": "equal"}, "class_weights"),
        ({"label_smoothing": 1.5}, "label_smoothing must lie between 0 and 1"),
    ],
)
def test_wrong_weights_and_shares_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        loss_of(options)
