from types import SimpleNamespace

import pytest

from kd_jax.teachers.frozen import check_cacheable, freeze


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


@pytest.mark.parametrize("repeated", [False, True])
def test_a_teacher_that_is_only_a_file_can_not_be_asked_about_changed_examples(repeated):
    with pytest.raises(ValueError, match=r"\(file\) know each example as it is: .* must be None$"):
        check_cacheable([], ["file"], augmented=False, mixed=True, repeated=repeated)
    check_cacheable([], ["file"], augmented=False, mixed=False)
    check_cacheable(["big"], augmented=True, mixed=True, repeated=True)
