"""Numbers: standardized for the model, in the user's units for people, judged as scipy judges."""

import numpy as np
import pytest
from scipy import stats

from kd_jax.tasks import Rows, make_task, read_task

TASK = make_task("regression")


def fitted(labels):
    return TASK.fitted(np.asarray(labels, np.float32), ("a", "b")[: len(labels[0])])


@pytest.mark.parametrize(("rows", "numbers"), [(50, 1), (50, 3), (3, 2)])
def test_metrics_are_those_of_scipy_in_the_users_units(rows, numbers):
    rng = np.random.default_rng(0)
    labels = np.round(rng.normal(5, 3, size=(rows, numbers)), 1)
    task = fitted(labels)
    outputs = rng.normal(size=labels.shape) + task.as_targets(labels)
    found = task.summarize({}, Rows(outputs, task.as_targets(labels)))
    units = outputs * labels.astype(np.float32).std(axis=0) + labels.mean(axis=0)
    for name, of in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
        value = np.mean([of(units[:, r], labels[:, r]).statistic for r in range(numbers)])
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-6, err_msg=name)
    error = np.sqrt(((units - labels) ** 2).mean(axis=0)).mean()
    np.testing.assert_allclose(found["rmse"], error, rtol=1e-5)


def test_metrics_of_given_numbers_are_exact():
    rng = np.random.default_rng(1)
    labels, outputs = rng.normal(size=(2, 40, 1)).round(1)
    found = TASK.summarize({}, Rows(outputs, labels))
    expected = {
        "spearman": stats.spearmanr(outputs[:, 0], labels[:, 0]).statistic,
        "pearson": stats.pearsonr(outputs[:, 0], labels[:, 0]).statistic,
        "rmse": np.sqrt(((outputs - labels) ** 2).mean()),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("constant", ["labels", "outputs", "one row"])
def test_a_correlation_with_a_constant_is_undefined_and_ranks_worst(constant):
    rng = np.random.default_rng(0)
    rows = 1 if constant == "one row" else 9
    labels, outputs = rng.normal(size=(2, rows, 1))
    if constant == "labels":
        labels[:] = 2
    if constant == "outputs":
        outputs[:] = 2
    found = TASK.summarize({}, Rows(outputs, labels))
    assert (found["spearman"], found["pearson"]) == (None, None)
    assert found["rmse"] > 0
    assert TASK.rank(found) is None
    assert make_task("regression", "rmse").rank(found) == -found["rmse"]


def test_models_learn_numbers_of_mean_zero_and_deviation_one():
    labels = np.array([[1.0], [2.0], [6.0], [np.nan]], np.float32)
    task = fitted(labels)
    targets = task.as_targets(labels)
    np.testing.assert_allclose(targets[:3].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(targets[:3].std(), 1, rtol=1e-6)
    assert np.isnan(targets[3])
    np.testing.assert_allclose(task.in_units(targets[:3]), labels[:3], rtol=1e-6)


def test_a_prediction_is_in_the_users_units():
    task = fitted([[10.0, 0.0], [30.0, 2.0]])
    found = task.predict_row(np.array([0.5, -1.0]), ("price", "rooms"))
    assert found == {"values": {"price": 25.0, "rooms": 0.0}}


def test_a_task_comes_back_from_its_description():
    task = fitted([[10.0], [30.0]])
    assert read_task(task.describe()) == task
    assert read_task({"name": "regression"}) == TASK


def test_models_of_other_units_or_tasks_are_told_apart():
    task = fitted([[10.0], [30.0]])
    assert task.contradicts(task.describe()) is None
    assert "learned numbers of mean" in task.contradicts(fitted([[1.0], [2.0]]).describe())
    assert "task 'multilabel', not 'regression'" in task.contradicts({"name": "multilabel"})


# Labels


@pytest.mark.parametrize("value", ["1.5", " 1.5 ", 1.5, "15e-1"])
def test_numbers_are_read(value):
    assert TASK.read_label({"score": value}, ("score",)) == (1.5,)


@pytest.mark.parametrize(
    "value", ["", None, "high", "nan", "inf", "-Infinity", "1e39", True, [1.0], {}]
)
def test_what_is_no_finite_number_is_rejected(value):
    with pytest.raises(ValueError, match="column 'score' holds"):
        TASK.read_label({"score": value}, ("score",))


def test_rows_without_a_number_stay_unlabelled():
    labels, names = TASK.number([(1.0,), None], [], None, ("score",), [1, 2])
    np.testing.assert_array_equal(labels, [[1.0], [np.nan]])
    assert names == ("score",)


def test_equal_numbers_are_refused():
    with pytest.raises(ValueError, match="all training rows have the same number in 'score'"):
        TASK.check_labels(np.full((5, 1), 2.0, np.float32), ("score",), None)


def test_what_is_known_of_the_numbers_is_told():
    task = fitted([[10.0], [30.0]])
    told, facts = task.tell_labels(task.as_targets(np.array([[10.0], [30.0]])), ("price",))
    assert told == "numbers of 2 training rows: price 20 ± 10, from 10 to 30"
    assert facts["training_rows"]["price"]["rows"] == 2
