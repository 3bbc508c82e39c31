from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest

from kd_jax.core.option_types import check_types, fits, hints_of, meaning

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (float, [1, 0.5, -2.0], [True, NAN, INFINITE, -INFINITE, 10**40, "1", None, [1.0]]),
        (int, [1, -3], [True, 1.0, 2**63, "1", None]),
        (bool, [True, False], [1, 0, "yes", None]),
        (str, ["a"], ["", 1, None, ["a"]]),
        (str | None, ["a", None], ["", 1]),
        (Literal["a", 1], ["a", 1], ["b", True, 1.0]),
        (tuple[int, ...], [(1, 2), [1], ()], [1, (1.5,), "12", {"a": 1}, (True,)]),
        (tuple[int, str], [(1, "a")], [(1,), (1, 2), (1, "a", "b")]),
        (Sequence[float], [(1.0, 2)], [(NAN,), 1.0, "abc"]),
        (float | Mapping[str, Any], [1.0, {"name": "linear"}], [NAN, "linear", [1]]),
        (Any, [1, NAN, None, "x"], []),
    ],
)
def test_a_value_is_of_its_type(hint, good, bad):
    assert all(fits(hint, value) for value in good)
    assert not [value for value in bad if fits(hint, value)]


def test_the_message_says_what_it_must_be():
    def function(*, rate: float | None, sizes: tuple[int, ...]):
        raise AssertionError

    hints = hints_of(function)
    check_types(hints, {"rate": None, "sizes": [1]}, "it")
    message = "it: rate must be a finite number or None, got 'fast'"
    with pytest.raises(ValueError, match=message):
        check_types(hints, {"rate": "fast"}, "it")
    assert meaning(hints["sizes"]) == "a tuple, each part a whole number"
    assert meaning(Literal["a", "b"]) == "one of ['a', 'b']"


def test_annotations_that_can_not_be_read_allow_anything():
    def function(*, rate: "OnlyForATypeChecker"):  # noqa: F821
        raise AssertionError

    assert hints_of(function) == {}
    check_types({}, {"rate": object()}, "it")
