"""Whom a section names: a model's own moving average."""

import pytest

from kd_jax.teaching import own_average


def test_a_model_may_learn_from_its_own_average():
    assert own_average("s", {"teachers": ("big", "ema:s"), "ema": {"decay": 0.99}}) == 0.99


@pytest.mark.parametrize("section", [{}, {"teachers": ("big",)}, {"teachers": (), "ema": None}])
def test_one_that_does_not_has_none(section):
    assert own_average("s", section) is None


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"teachers": ("ema:t",), "ema": {"decay": 0.9}}, r"^models.s.teachers names 'ema:t'; .* there is 'ema:s'$"),
        ({"teachers": ("ema:s",)}, r"^models.s: ema=dict\(decay=...\) and the teacher 'ema:s' go together$"),
        ({"teachers": (), "ema": {"decay": 0.9}}, r"go together$"),
        ({"teachers": ("ema:s",), "ema": {"decay": 1.0}}, r"decay must be between 0 and 1, got 1.0$"),
        ({"teachers": ("ema:s",), "ema": {"rate": 0.9}}, r"^models.s.ema has no option 'rate'"),
    ],
)
def test_what_does_not_go_together_is_refused(section, message):
    with pytest.raises(ValueError, match=message):
        own_average("s", section)
