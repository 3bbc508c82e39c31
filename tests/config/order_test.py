"""The order of training: what is needed first comes first, and peers stand together."""

import pytest

from kd_jax.config.order import groups_in_order

NOBODY = dict.fromkeys("abcd", ())


def test_who_is_needed_comes_first_and_equals_by_name():
    assert groups_in_order({**NOBODY, "a": ("c",)}, NOBODY) == [["b"], ["c"], ["a"], ["d"]]


def test_peers_stand_together_after_the_teachers_of_all_of_them():
    peers = {**NOBODY, "a": ("b",), "b": ("a", "c"), "c": ("b",)}
    assert groups_in_order({**NOBODY, "c": ("d",)}, peers) == [["d"], ["a", "b", "c"]]


@pytest.mark.parametrize("needed", [{"a": ("b",)}, {"a": ("d",), "d": ("c",)}])
def test_a_peer_that_must_be_finished_first_is_a_circle(needed):
    peers = {**NOBODY, "a": ("b",), "b": ("a", "c"), "c": ("b",)}
    with pytest.raises(ValueError, match="form a circle"):
        groups_in_order(NOBODY | needed, peers)
