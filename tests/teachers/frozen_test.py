from types import SimpleNamespace

import pytest

from kd_jax.teachers.frozen import freeze


def test_a_cached_teacher_of_augmented_data_is_refused():
    around = SimpleNamespace(datasets=SimpleNamespace(augmented=True))
    with pytest.raises(
        ValueError, match=r"cached teachers \(big\) know each example as it is: data.augmentation must be 0"
    ):
        freeze({"big": None}, ("big",), around)
