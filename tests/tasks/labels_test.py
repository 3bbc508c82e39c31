import numpy as np
import pytest

from kd_jax.tasks.labels import check_classes, name_classes, number_labels


@pytest.mark.parametrize(
    ("labels", "want"),
    [
        (["b", "a", "b"], ("a", "b")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
    ],
)
def test_names_are_sorted_as_numbers_if_all_are(labels, want):
    assert name_classes(labels) == want


def test_unlabelled_is_minus_one():
    numbers = number_labels(["b", None, "a"], ("a", "b"), [1, 2, 3])
    np.testing.assert_array_equal(numbers, np.array([1, -1, 0]))
    assert numbers.dtype == np.int32


def test_integers_are_class_numbers_where_classes_are_words():
    np.testing.assert_array_equal(number_labels(["1", "0"], ("neg", "pos"), [1, 2]), [1, 0])


@pytest.mark.parametrize(
    ("label", "names"),
    [("x", ("a", "b")), ("2", ("neg", "pos")), ("-1", ("neg", "pos")), ("3", ("1", "2"))],
)
def test_a_label_outside_is_refused(label, names):
    with pytest.raises(
        ValueError, match=rf"label '{label}' \(row 7\) is not among the classes {', '.join(names)}"
    ):
        number_labels([label], names, [7])


# What is no set of classes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("-0.0106", "0.25", "1.5"), "-0.0106, 0.25, 1.5 are numbers and no classes"),
        (("0", "1", "1.0"), "1.0 are numbers and no classes"),
        (("0", "1", "nan"), r"the labels nan are no classes; .* say data.unlabelled=\('nan',\)"),
        (("bad", "good", "inf"), "the labels inf are no classes"),
        (("-1", "0", "1"), r"the label -1 often means .* say data.unlabelled=\('-1',\) if"),
        (("-100", "bad", "good"), "the label -100 often means that a row has none"),
        (("good",), "there is one class, good; a classifier needs two"),
    ],
)
def test_what_is_no_set_of_classes_is_refused(names, message):
    with pytest.raises(ValueError, match=f"^data.label: .*{message}"):
        check_classes(names, [40] * len(names), None)


def test_a_sentiment_of_minus_one_loses_no_class_where_that_is_said():
    check_classes(("-1", "0", "1"), [40] * 3, ())


def test_a_word_that_looks_like_a_number_is_a_word():
    check_classes(("1.5", "two", "three"), [100] * 3, None)


@pytest.mark.parametrize(
    ("names", "counts", "message"),
    [
        (("Positive", "negative", "positive"), [40] * 3, "'Positive' and 'positive' are almost"),
        (("a  b", "a b", "c"), [40] * 3, "'a  b' and 'a b' are almost one name"),
        (tuple("abcdefgh"), [10] * 8, "8 classes among 80 training rows"),
    ],
)
def test_what_is_hardly_a_set_of_classes_is_warned_of(names, counts, message, caplog):
    with caplog.at_level("WARNING", "kd_jax"):
        check_classes(names, counts, None)
    assert message in caplog.text


def test_two_classes_of_few_rows_are_no_reason_to_warn(caplog):
    check_classes(("bad", "good"), [8, 8], None)
    assert not caplog.text
