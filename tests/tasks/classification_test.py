"""Metrics of one class an example are scikit-learn's, on the whole split, however it is cut."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sklearn
from sklearn.calibration import calibration_curve

from kd_jax.core.types import ModelOutput
from kd_jax.tasks import CLASSIFICATION, make_task, metrics
from kd_jax.training.evaluate import eval_step, evaluate
from kd_jax.training.sharding import make_parallel


def forward(variables, batch):
    return ModelOutput(variables * batch.views["x"]["logits"], {})


def metrics_of(logits, labels, make_batch, size=16, backend="jit", data=1, task=CLASSIFICATION):
    """Evaluates given logits on given labels; the last batch is filled with nonsense."""
    parallel = make_parallel(backend=backend, data=data, fsdp=1, tensor=1)
    step = parallel.evaluate(partial(eval_step, forward=forward, task=task))

    def batches():
        for start in range(0, len(labels), size):
            rows = np.arange(start, start + size)
            inside = rows < len(labels)
            rows = np.minimum(rows, len(labels) - 1)
            filled = np.where(inside[:, None], logits[rows], 1e4).astype(logits.dtype)
            batch = make_batch({"x": {"logits": filled}}, rows=size, labels=labels[rows])
            known = inside & (labels[rows] >= 0)
            yield batch.replace(valid=inside, label_valid=known)

    names = tuple("abcdefghij"[: logits.shape[1]])
    return evaluate(
        step,
        np.float64(1) if jax.config.jax_enable_x64 else np.float32(1),
        {},
        batches(),
        task,
        names,
    )


def random_case(classes, rows, seed=0, present=None):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)).astype(np.float32)
    # Ties: every tenth row has two equal largest logits.
    logits[::10, :2] = logits[::10].max(axis=1, keepdims=True) + 1
    labels = rng.integers(0, present or classes, rows).astype(np.int32)
    return logits, labels


@pytest.mark.parametrize(
    ("classes", "rows", "present"),
    [(2, 90, None), (2, 40, 1), (5, 90, None), (5, 90, 3), (5, 7, 1), (9, 33, 8)],
)
@pytest.mark.parametrize("size", [16, 64])
def test_metrics_are_those_of_scikit_learn(classes, rows, present, size, make_batch):
    logits, labels = random_case(classes, rows, present=present)
    found = metrics_of(logits, labels, make_batch, size)
    predicted, wide = logits.argmax(1), logits.astype(np.float64)
    p = special.softmax(wide, axis=1)
    expected = {
        "accuracy": sklearn.accuracy_score(labels, predicted),
        "macro_f1": sklearn.f1_score(labels, predicted, average="macro", zero_division=0),
        "log_loss": sklearn.log_loss(labels, p, labels=range(classes)),
        "mcc": 0.0 if len(set(labels)) == 1 else sklearn.matthews_corrcoef(labels, predicted),
    }
    counts = metrics.ClassCounts.of(labels, predicted, classes)
    assert counts.macro_f1() == pytest.approx(expected["macro_f1"], abs=1e-12)
    assert counts.mcc() == pytest.approx(expected["mcc"], abs=1e-12)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12, err_msg=name)
    if classes == 2:
        np.testing.assert_allclose(
            found["positive_f1"],
            sklearn.f1_score(labels, predicted, zero_division=0),
            rtol=0,
            atol=1e-12,
        )
    else:
        assert found["positive_f1"] is None
    if len(set(labels)) < classes:
        assert found["auroc"] is None
    else:
        of = p[:, 1] if classes == 2 else p
        value = sklearn.roc_auc_score(labels, of, multi_class="ovr")
        np.testing.assert_allclose(found["auroc"], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", ["jit", "pmap"])
def test_eight_devices_find_what_one_finds(backend, make_batch):
    logits, labels = random_case(4, 61)
    one = metrics_of(logits, labels, make_batch)
    eight = metrics_of(logits, labels, make_batch, backend=backend, data=8)
    samples = [each.pop("sample") for each in (one, eight)]
    told = [each.pop("tell") for each in (one, eight)]
    assert told[0](7) == told[1](7)
    assert samples[0].value(np.arange(61)) == samples[1].value(np.arange(61))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), one, eight)
    for name in ("accuracy", "macro_f1", "mcc", "auroc", "log_loss"):
        assert one[name] == eight[name]


def test_examples_without_a_label_count_nowhere(make_batch):
    logits, labels = random_case(3, 50)
    labels[::4] = -1
    found, known = metrics_of(logits, labels, make_batch), labels >= 0
    only = metrics_of(logits[known], labels[known], make_batch)
    for name in ("accuracy", "macro_f1", "mcc", "log_loss"):
        assert found[name] == only[name]
    for name in ("by_class", "confusion_matrix"):
        assert found["details"][name] == only["details"][name]
    bins = [[b["rows"] for b in each["details"]["calibration"]] for each in (found, only)]
    assert bins[0] == bins[1]


def test_each_class_has_its_line_and_its_row_of_the_confusion_matrix(make_batch):
    logits = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 1]]
    labels = np.array([0, 1, 1, 1, 0], np.int32)
    details = metrics_of(logits, labels, make_batch)["details"]
    assert details["confusion_matrix"] == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert details["by_class"]["b"] == {
        "precision": 2 / 3,
        "recall": 2 / 3,
        "f1": pytest.approx(2 / 3),
        "rows": 3,
    }
    assert details["by_class"]["c"] == {"precision": 0, "recall": 0, "f1": 0, "rows": 0}


def test_classes_that_are_ruled_out_leave_some_metrics_undefined(make_batch):
    logits, labels = random_case(3, 20)
    logits[0] = [0, -np.inf, 0]
    labels[0] = 1
    found = metrics_of(logits, labels, make_batch)
    assert (found["auroc"], found["log_loss"]) == (None, None)
    assert found["accuracy"] is not None


# The primary metric


def test_the_primary_metric_is_the_first_unless_another_is_named():
    assert make_task("classification").primary == "accuracy"
    task = make_task("classification", "mcc")
    assert (task.primary, task.columns[0]) == ("mcc", "mcc")


def test_more_is_better_in_a_rank_and_undefined_is_none():
    metrics = {"accuracy": 0.5, "log_loss": 0.2, "auroc": None}
    assert make_task("classification").rank(metrics) == 0.5
    assert make_task("classification", "log_loss").rank(metrics) == -0.2
    assert make_task("classification", "auroc").rank(metrics) is None


@pytest.mark.parametrize(
    ("section", "primary", "message"),
    [
        ("sorting", None, "unknown task 'sorting'; there are"),
        (dict(name="classification", depth=3), None, "no option 'depth'"),
        ("classification", "bleu", "has no metric 'bleu'; it has accuracy, macro_f1"),
    ],
)
def test_what_is_not_there_is_refused_by_name(section, primary, message):
    with pytest.raises(ValueError, match=message):
        make_task(section, primary)


def test_a_guess_is_the_largest_class():
    name, share, margin = CLASSIFICATION.guess(np.array([0, 1, 1, -1, 1], np.int32))
    assert (name, share) == ("accuracy", 0.75)
    assert margin == pytest.approx(2 * np.sqrt(0.75 * 0.25 / 4))


def test_the_calibration_is_scikit_learns_curve():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(300, 3)) * 3
    labels = rng.integers(0, 3, 300)
    sure = np.exp(logits).max(1) / np.exp(logits).sum(1)
    right = logits.argmax(1) == labels
    shares, means = calibration_curve(right, sure, n_bins=10)
    found = metrics.calibration(labels, logits)
    np.testing.assert_allclose([each["accuracy"] for each in found], shares, rtol=1e-12)
    np.testing.assert_allclose([each["confidence"] for each in found], means, rtol=1e-12)
    assert sum(each["rows"] for each in found) == 300
    # One that is certain is in the last bin.
    assert metrics.calibration(np.array([0]), np.array([[900.0, 0.0]]))[0]["confidence"] == 1
