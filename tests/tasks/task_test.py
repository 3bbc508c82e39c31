"""What every task says of drawn rows: on all of them once, the metric that is reported."""

import numpy as np
import pytest

from kd_jax.core.types import Mean
from kd_jax.tasks import TASKS, Rows, make_task

RNG = np.random.default_rng(0)
N = 60


def rows_of(name):
    """Returns rows, and what `summarize` is given beside them."""
    if name == "classification":
        outputs, labels = RNG.normal(size=(N, 2)), RNG.integers(0, 2, N)
        right = Mean(np.sum(outputs.argmax(-1) == labels), np.array(N))
        return Rows(outputs, labels, np.arange(N)), dict(
            accuracy=right, calibration=np.ones((15, 3))
        )
    if name == "tagging":
        labels = RNG.integers(0, 3, (N, 4))
        labels[::3, 2:] = -1
        outputs = np.where(RNG.random((N, 4)) < 0.7, labels, RNG.integers(-1, 3, (N, 4)))
        outputs[labels < 0] = -1
        there = labels >= 0
        # A word that was cut off counts as outside, number 2 here.
        right = (np.where(outputs < 0, 2, outputs) == labels) & there
        counts = Mean(np.array(right.sum()), np.array(there.sum()))
        return Rows(outputs, labels, np.arange(N)), dict(token_accuracy=counts)
    if name == "embedding":
        outputs, scores = RNG.normal(size=(N, 3)), np.repeat(RNG.random(N // 2), 2)[:, None]
        teacher = outputs + RNG.normal(size=(N, 3))
        return Rows(outputs, scores, np.arange(N), {"teacher": teacher}), {}
    outputs, labels = RNG.normal(size=(N, 3)), RNG.normal(size=(N, 3))
    labels = labels + outputs
    return Rows(outputs, labels > 0 if name == "multilabel" else labels, np.arange(N)), {}


def fitted(name, metric):
    task = make_task(name, metric)
    if name == "tagging":
        return task.fitted(np.zeros((1, 1)), ("B-x", "I-x", "O"))
    return task


WITHOUT = {("classification", "ece"), ("embedding", "recall_at_1")}
ALL = [(name, metric) for name in sorted(TASKS) for metric in TASKS[name].metrics]


@pytest.mark.parametrize(("name", "metric"), ALL)
def test_all_rows_once_give_the_metric(name, metric):
    if name == "masked_language_model":
        assert make_task(name, metric).sample(Rows(np.zeros((3, 0)), np.zeros((3, 0)))) is None
        return
    task = fitted(name, metric)
    rows, sums = rows_of(name)
    sample = task.sample(rows)
    if (name, metric) in WITHOUT:
        assert sample is None
        return
    assert sample is not None
    wanted = task.summarize(sums, rows)[metric]
    assert wanted is not None
    assert sample.value(np.arange(sample.size)) == pytest.approx(wanted, abs=1e-12)
    assert sample.size == (N // 2 if metric in ("spearman", "pearson") and task.apart else N)


@pytest.mark.parametrize(("name", "metric"), [("classification", "mcc"), ("regression", "pearson")])
def test_drawn_rows_give_the_metric_of_these_rows(name, metric):
    task, (rows, sums) = make_task(name, metric), rows_of(name)
    drawn = RNG.integers(0, N, N)
    part = Rows(rows.outputs[drawn], rows.labels[drawn], np.arange(N))
    sample = task.sample(rows)
    assert sample is not None
    assert sample.value(drawn) == pytest.approx(task.summarize(sums, part)[metric])


def test_rows_that_are_right_are_told_where_their_share_is_the_metric():
    rows, sums = rows_of("classification")
    task = make_task("classification")
    right = task.right(rows)
    assert right is not None
    assert right.mean() == task.summarize(sums, rows)["accuracy"]
    assert make_task("classification", "mcc").right(rows) is None
    rows, _ = rows_of("multilabel")
    sets = make_task("multilabel", "exact_set_accuracy")
    right = sets.right(rows)
    assert right is not None
    assert right.mean() == sets.summarize({}, rows)["exact_set_accuracy"]


def test_errors_of_single_rows_average_to_the_metric_they_are_of():
    rows, sums = rows_of("classification")
    task = make_task("classification")
    assert task.errors(rows).mean() == pytest.approx(task.summarize(sums, rows)["log_loss"])
    rows, _ = rows_of("multilabel")
    p = 1 / (1 + np.exp(-rows.outputs))
    wanted = -np.mean(np.where(rows.labels, np.log(p), np.log(1 - p)), axis=1)
    np.testing.assert_allclose(make_task("multilabel").errors(rows), wanted)
    rows, _ = rows_of("regression")
    wanted = np.abs(rows.outputs - rows.labels).mean(axis=1)
    np.testing.assert_allclose(make_task("regression").errors(rows), wanted)
    rows, sums = rows_of("tagging")
    words = (rows.labels >= 0).sum()
    share = 1 - fitted("tagging", None).errors(rows).sum() / words
    assert share == pytest.approx(fitted("tagging", None).summarize(sums, rows)["token_accuracy"])
    for name in ("embedding", "masked_language_model"):
        assert make_task(name).errors(rows) is None


@pytest.mark.parametrize(
    ("name", "rows", "names", "told"),
    [
        (
            "classification",
            Rows(np.log([[0.25, 0.75]]), np.array([0])),
            ("no", "yes"),
            ("no", "yes, 75 %"),
        ),
        (
            "multilabel",
            Rows(np.array([[2.0, 1.0, -1.0]]), np.array([[0.0, 0.0, 0.0]])),
            ("a", "b", "c"),
            ("none", "a, b"),
        ),
        ("regression", Rows(np.array([[2.5]]), np.array([[1 / 3]])), ("score",), ("0.3333", "2.5")),
        (
            "tagging",
            Rows(np.array([[0, 1, -1, -1]]), np.array([[0, 2, 0, -1]])),
            ("B-x", "I-x", "O"),
            ("B-x · B-x", "B-x I-x ·"),
        ),
    ],
)
def test_a_row_is_told_in_words(name, rows, names, told):
    assert fitted(name, None).tell_row(0, rows, names) == told
