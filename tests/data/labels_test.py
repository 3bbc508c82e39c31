import numpy as np
import pytest

from kd_jax.data.labels import name_classes, number_labels


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
