"""A set of classes an example: how a table says it, and scikit-learn's metrics of it."""

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sklearn

from kd_jax.tasks import Rows, make_task, read_task

TASK = make_task("multilabel")
COLUMNS = ("red", "green", "blue")


def random_rows(rows, classes, seed=0, absent=()):
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, classes)) < 0.3).astype(np.float32)
    labels[:, list(absent)] = 0
    outputs = rng.normal(size=(rows, classes)) + labels
    # Ties, which average precision has to take together.
    outputs = np.round(outputs, 1)
    return Rows(outputs, labels)


# Metrics


@pytest.mark.parametrize(
    ("rows", "classes", "absent"), [(60, 4, ()), (60, 4, (1, 2)), (5, 3, ()), (40, 1, ())]
)
def test_metrics_are_those_of_scikit_learn(rows, classes, absent):
    given = random_rows(rows, classes, absent=absent)
    predicted, labels = special.expit(given.outputs) >= 0.5, given.labels >= 0.5
    found = TASK.summarize({}, given)
    by_class = [
        sklearn.f1_score(labels[:, k], predicted[:, k], zero_division=0) for k in range(classes)
    ]
    precision = [
        sklearn.average_precision_score(labels[:, k], given.outputs[:, k])
        for k in range(classes)
        if labels[:, k].any()
    ]
    expected = {
        "macro_f1": np.mean(by_class),
        "micro_f1": sklearn.f1_score(labels.ravel(), predicted.ravel(), zero_division=0),
        "mean_average_precision": np.mean(precision),
        "exact_set_accuracy": (labels == predicted).all(axis=1).mean(),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12, err_msg=name)


def test_without_positives_f1_is_zero_and_average_precision_undefined():
    nothing = Rows(np.full((6, 2), -1.0), np.zeros((6, 2), np.float32))
    found = TASK.summarize({}, nothing)
    assert (found["macro_f1"], found["mean_average_precision"]) == (0.0, None)
    assert found["exact_set_accuracy"] == 1.0


def test_of_no_rows_nothing_is_defined():
    found = TASK.summarize({}, Rows(np.zeros((0, 2)), np.zeros((0, 2), np.float32)))
    assert set(found.values()) == {None}


@pytest.mark.parametrize("rows", [1, 2, 7, 40])
def test_a_tuned_threshold_has_the_best_f1_that_there_is(rows):
    for seed in range(20):
        given = random_rows(rows, 3, seed, absent=(2,))
        task = make_task(dict(name="multilabel", threshold="tuned"))
        assert task.tunes
        tuned = task.tuned(given)
        assert not tuned.tunes
        assert tuned.thresholds[2] == 0.5
        labels = given.labels >= 0.5
        for k in range(3):
            predicted = special.expit(given.outputs[:, k]) >= tuned.thresholds[k]
            found = sklearn.f1_score(labels[:, k], predicted, zero_division=0)
            # Every way to cut the rows in two, by brute force.
            best = max(
                sklearn.f1_score(labels[:, k], given.outputs[:, k] >= cut, zero_division=0)
                for cut in given.outputs[:, k]
            )
            assert found == pytest.approx(best, abs=1e-12)
        # On rows of which nothing was found yet, metrics are those of the best thresholds.
        assert task.summarize({}, given) == tuned.summarize({}, given)


def test_thresholds_of_classes_are_those_of_predictions_and_code():
    task = make_task(dict(name="multilabel", thresholds=(0.2, 0.5, 0.9)))
    outputs = special.logit(np.array([0.3, 0.4, 0.95]))
    assert task.predict_row(outputs, COLUMNS)["labels"] == ["red", "blue"]
    assert "[i]" in task.read_out("names[i]")
    told, printed = {"logits": [outputs], "names": COLUMNS}, []
    exec(task.read_out("names[i]"), told | {"print": printed.append})
    assert printed == [[["red", "blue"]]]
    assert read_task(task.describe()) == task
    with pytest.raises(ValueError, match=r"task.thresholds has 3 numbers, and the data 2 classes"):
        task.fitted(np.zeros((1, 2)), COLUMNS[:2])


def test_the_threshold_decides_what_is_predicted():
    outputs = special.logit(np.array([0.2, 0.6, 0.95]))
    for threshold, labels in ((0.5, ["green", "blue"]), (0.1, [*COLUMNS]), (0.99, [])):
        found = make_task(dict(name="multilabel", threshold=threshold))
        assert found.predict_row(outputs, COLUMNS)["labels"] == labels
    assert TASK.predict_row(outputs, COLUMNS)["probabilities"]["green"] == 0.6


# Labels


def read(record, columns=("label",), **options):
    return make_task(dict(name="multilabel", **options)).read_label(record, columns)


@pytest.mark.parametrize(
    ("record", "columns", "options", "names"),
    [
        ({"red": "1", "green": "0", "blue": "1.0"}, COLUMNS, {}, {"red", "blue"}),
        ({"red": 0, "green": False, "blue": True}, COLUMNS, {}, {"blue"}),
        ({"red": "no", "green": " Yes", "blue": "FALSE"}, COLUMNS, {}, {"green"}),
        ({"label": "red|blue"}, ("label",), {}, {"red", "blue"}),
        ({"label": "3, 7"}, ("label",), {"separator": ","}, {"3", "7"}),
        ({"label": ["red", 7]}, ("label",), {}, {"red", "7"}),
        ({"label": []}, ("label",), {}, set()),
    ],
)
def test_a_set_is_read_from_columns_names_or_a_list(record, columns, options, names):
    assert read(record, columns, **options) == names


@pytest.mark.parametrize(
    ("record", "columns", "message"),
    [
        ({"red": "2", "green": "0", "blue": "0"}, COLUMNS, "'red' of a class must hold 0 or 1"),
        ({"red": "1", "green": "", "blue": "0"}, COLUMNS, "'green' of a class must hold 0 or 1"),
        ({"red": "1", "green": None, "blue": "0"}, COLUMNS, "'green' of a class must hold"),
        ({"label": ""}, ("label",), "missing label"),
        ({"label": "red||blue"}, ("label",), "an empty name"),
        ({"label": [["red"]]}, ("label",), "neither text nor an integer"),
        ({"label": 0.5}, ("label",), "neither text nor an integer"),
    ],
)
def test_what_is_no_set_is_rejected(record, columns, message):
    with pytest.raises(ValueError, match=message):
        read(record, columns)


def test_sets_become_rows_of_zeros_and_ones():
    given = [{"b"}, None, {"a", "b"}, set()]
    labels, names = TASK.number(given, [{"a"}, {"b", "c"}], None, ("label",), [2, 3, 4, 5])
    assert names == ("a", "b", "c")
    np.testing.assert_array_equal(labels, [[0, 1, 0], [np.nan] * 3, [1, 1, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match=r"label 'd' \(row 7\) is not among the classes a, b"):
        TASK.number([{"d"}], [], ("a", "b"), ("label",), [7])


def test_columns_name_their_classes_in_their_order():
    labels, names = TASK.number([{"red"}], [], None, COLUMNS, [1])
    assert names == COLUMNS
    np.testing.assert_array_equal(labels, [[1, 0, 0]])


@pytest.mark.parametrize(
    ("labels", "names", "unlabelled", "message"),
    [
        ([[1, 0], [1, 0]], ("a", "b"), None, "every training row has the same classes"),
        ([[1, 0], [0, 1]], ("0", "1"), None, "holds 0 and 1 only; name the columns of all"),
        ([[1, 0], [0, 1]], ("-1", "b"), None, "the label -1 often means that a row has none"),
    ],
)
def test_labels_without_use_are_refused(labels, names, unlabelled, message):
    with pytest.raises(ValueError, match=message):
        TASK.check_labels(np.array(labels, np.float32), names, unlabelled)


def test_a_class_that_all_rows_have_or_none_is_said(caplog):
    TASK.check_labels(np.array([[1, 0], [0, 0]] * 40, np.float32), ("a", "b"), None)
    assert "the classes b are in all training rows or in none" in caplog.text


def test_what_is_known_of_the_labels_is_told():
    labels = np.array([[1, 1], [0, 1], [np.nan, np.nan]], np.float32)
    told, facts = TASK.tell_labels(labels, ("a", "b"))
    assert told == "classes of 2 training rows: b 2, a 1; 1.50 a row"
    assert facts == {"training_rows": {"a": 1, "b": 2}, "classes_a_row": 1.5}


def test_equal_sets_are_one_group():
    labels = np.array([[1, 0], [0, 1], [1, 0], [np.nan, np.nan]], np.float32)
    first, second, third, none = TASK.groups(labels)
    assert first == third != second
    assert none == -1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "threshold must be above 0"),
        ({"threshold": 1}, "threshold must be above 0"),
        ({"threshold": "best"}, "threshold"),
        ({"thresholds": (0.5, 1.5)}, "thresholds must be above 0"),
        ({"separator": " "}, "must not be empty or blank"),
        ({"cut": 1}, "no option 'cut'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_task(dict(name="multilabel", **options))


def test_a_teacher_gives_probabilities_or_sets_and_says_how_sure_it_is():
    task = make_task("multilabel")
    outputs = np.array([[0.0, np.log(3)], [-np.log(9), np.log(4)]])
    np.testing.assert_allclose(
        task.teach(outputs, "soft", 1.0), [[0.5, 0.75], [0.1, 0.8]], rtol=1e-6
    )
    assert task.teach(outputs, "hard", 1.0).tolist() == [[1, 1], [0, 1]]
    assert task.teach(outputs, "soft", 2.0)[1, 0] == pytest.approx(0.25)
    np.testing.assert_allclose(task.sureness(outputs), [0.5, 0.8])
    # Two classes at one half: twice the entropy of a coin.
    assert float(task.entropy(np.zeros(2))) == pytest.approx(2 * np.log(2))
