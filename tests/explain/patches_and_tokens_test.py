import json

import pytest

from kd_jax.config.load import with_tuples
from kd_jax.explain.patches_and_tokens import _patches


@pytest.mark.parametrize(
    ("side", "patches"),
    [
        (8, 8),
        (16, 8),
        (32, 8),
        (28, 7),
        (224, 8),
        (10, 5),
        (12, 6),
        (7, 7),
        (31, 31),
        (2, 2),
        (1, 1),
    ],
)
def test_pictures_are_cut_into_about_eight_patches_a_side(side, patches):
    assert _patches(side) == patches


def test_lists_of_a_config_that_was_written_as_json_are_tuples_again():
    config = {
        "models": {"a": {"widths": (4, 8), "pairs": (("x", 1), ("y", 2)), "head": ()}},
        "b": None,
        "c": "text",
    }
    assert with_tuples(json.loads(json.dumps(config))) == config
