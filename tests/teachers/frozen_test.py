from types import SimpleNamespace

import pytest

from kd_jax.teachers.frozen import freeze


@pytest.mark.parametrize(
    ("augmented", "mixed", "remedy"),
    [(True, False, "data.augmentation must be 0"), (False, True, "training.mixing must be None")],
)
def test_a_cached_teacher_of_examples_that_change_is_refused(augmented, mixed, remedy):
    context = SimpleNamespace(datasets=SimpleNamespace(augmented=augmented))
    with pytest.raises(
        ValueError, match=rf"cached teachers \(big\) know each example as it is: {remedy}"
    ):
        freeze({"big": None}, {"big": ()}, None, context, mixed=mixed)
