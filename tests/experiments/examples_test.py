"""The examples of a report: where models differ most, and who is right."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from kd_jax.data.source import Source
from kd_jax.experiments.examples import LONGEST, MOST, find_differing

ROLES = {"student": "s", "baseline": "b", "teacher": "t"}


def scores(**errors):
    return {
        name: {
            "errors": None if found is None else np.array(found, float),
            "index": np.arange(8)[: len(found or ())],
            "tell": lambda place, name=name: (f"label {place}", f"{name} {place}"),
        }
        for name, found in errors.items()
    }


def source(inputs, **more):
    modality = "text" if isinstance(inputs, list) else "image"
    labels = np.zeros(len(inputs), np.int32)
    return Source("own", modality, inputs, labels, ("a", "b"), "sha256:", **more)


def test_the_most_different_come_first_and_equal_ones_not_at_all():
    found = find_differing(
        scores(s=[0, 3, 1, 1], b=[1, 0, 1, 4], t=[0, 1, 1, 0]),
        ROLES,
        source(["w", "x", "y", "z"], rows=[11, 12, 13, 14]),
    )
    assert [each["row"] for each in found["gained"]] == [14, 11]
    assert [each["row"] for each in found["lost"]] == [12]
    assert [each["row"] for each in found["not_learned"]] == [12, 14]
    first = found["gained"][0]
    assert first["text"] == "z"
    assert first["label"] == "label 3"
    assert first["outputs"] == {"s": "s 3", "b": "b 3", "t": "t 3"}


def test_the_index_says_which_example_a_row_is():
    given = scores(s=[0, 0], b=[0, 1])
    for each in given.values():
        each["index"] = np.array([2, 5])
    found = find_differing(given, ROLES, source([*"abcdef"]))
    assert [(each["row"], each["text"]) for each in found["gained"]] == [(6, "f")]
    assert "not_learned" not in found


def test_texts_are_shortened_pairs_joined_and_images_are_pictures():
    given = scores(s=[0, 0], b=[1, 2])
    long = source([("first", "second"), "x" * 1000])
    told = [each["text"] for each in find_differing(given, ROLES, long)["gained"]]
    assert told == ["x" * LONGEST + "…", "first\nsecond"]
    for channels in (1, 3):
        pixels = np.full((2, 300, 200, channels), 7, np.uint8)
        shown = find_differing(given, ROLES, source(pixels))["gained"][0]["png"]
        picture = Image.open(io.BytesIO(base64.b64decode(shown)))
        assert max(picture.size) <= 128
        assert np.asarray(picture).max() == 7


def test_no_more_than_a_few_are_kept():
    given = scores(s=[0] * 8, b=[1] * 8)
    assert len(find_differing(given, ROLES, source([*"abcdefgh"]))["gained"]) == MOST


@pytest.mark.parametrize("errors", [dict(s=[0], b=None), dict(s=[0]), dict(s=None, b=None)])
def test_tasks_without_errors_of_single_rows_have_no_examples(errors):
    assert find_differing(scores(**errors), ROLES, source(["a"])) == {}
