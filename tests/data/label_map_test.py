import numpy as np
import pytest

from kd_jax.data.label_map import LEFT_OUT, map_classes, map_ranges, match_classes

FOUND, WANTED = ("cat", "dog", "car"), ("animal", "thing")
MAP = {"cat": "animal", "dog": "animal", "car": "thing"}


def test_equal_names_are_matched_in_any_order():
    np.testing.assert_array_equal(match_classes(("b", "c", "a"), ("a", "b", "c"), "x"), [1, 2, 0])


@pytest.mark.parametrize("found", [("a",), ("a", "b", "c"), ("a", "B")])
def test_other_names_are_refused_with_both_lists(found):
    with pytest.raises(
        ValueError, match=rf"^x has the classes {', '.join(found)}, the experiment a, b; give it a "
    ):
        match_classes(found, ("a", "b"), "x")


def test_a_map_goes_by_name_and_may_join_classes():
    np.testing.assert_array_equal(map_classes(FOUND, WANTED, MAP, "x"), [0, 0, 1])


def test_a_class_that_is_mapped_to_none_is_left_out():
    np.testing.assert_array_equal(
        map_classes(FOUND, WANTED, MAP | {"dog": None}, "x"), [0, LEFT_OUT, 1]
    )


@pytest.mark.parametrize("key", [int, str])
def test_a_map_may_go_by_number(key):
    numbered = {key(2): "thing", key(0): "animal", key(1): None}
    np.testing.assert_array_equal(map_classes(FOUND, WANTED, numbered, "x"), [0, LEFT_OUT, 1])


def test_classes_that_are_numbers_are_names():
    np.testing.assert_array_equal(
        map_classes(("1", "0"), ("0", "1"), {"1": "1", "0": 0}, "x"), [1, 0]
    )


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (
            {"cat": "animal", "dog": "animal"},
            r"^x\.label_map misses car; the dataset has cat, dog, car$",
        ),
        ({0: "animal", 1: "animal"}, r"^x\.label_map misses car; the dataset has cat, dog, car$"),
        (MAP | {"cow": None}, r"^x\.label_map names cow; the dataset has cat, dog, car$"),
        (
            MAP | {"car": "vehicle"},
            r"^x\.label_map asks for class 'vehicle'; the experiment has animal, thing$",
        ),
        (
            {0: "animal", 1: "animal", 3: "thing"},
            r"^x\.label_map misses cat, dog, car; the dataset has cat, dog, car$",
        ),
    ],
)
def test_a_map_that_does_not_fit_is_refused(label_map, message):
    with pytest.raises(ValueError, match=message):
        map_classes(FOUND, WANTED, label_map, "x")


def test_ranges_include_their_bounds_and_leave_out_what_is_between():
    ranges = {"thing": (None, -1), "animal": (1, 2.5)}
    found = ("-4", "-1.0", "-0.95", "0", "1", "2.5", "2.6")
    np.testing.assert_array_equal(map_ranges(found, WANTED, ranges, "x"), [1, 1, -1, -1, 0, 0, -1])


@pytest.mark.parametrize(
    ("found", "ranges", "message"),
    [
        (
            ("0", "bad"),
            {"animal": (0, 1)},
            r"^x\.label_ranges asks for numbers as labels; 'bad' is none$",
        ),
        (
            ("0",),
            {"cow": (0, 1)},
            r"^x\.label_ranges asks for class 'cow'; the experiment has animal, thing$",
        ),
        (
            ("0",),
            {"animal": (0,)},
            r"^x\.label_ranges\.animal is a pair of lowest and highest number.*got \(0,\)$",
        ),
        (("0",), {"animal": ("0", "1")}, r"^x\.label_ranges\.animal is a pair"),
        (("0",), {"animal": 1}, r"^x\.label_ranges\.animal is a pair"),
        (
            ("0",),
            {"animal": (2, 1)},
            r"^x\.label_ranges\.animal goes from lowest to highest, got \(2, 1\)$",
        ),
        (
            ("1",),
            {"animal": (0, 1), "thing": (1, 2)},
            r"^x\.label_ranges: 1 lies in the ranges of animal and thing$",
        ),
    ],
)
def test_ranges_that_make_no_sense_are_refused(found, ranges, message):
    with pytest.raises(ValueError, match=message):
        map_ranges(found, WANTED, ranges, "x")
