"""Entities of tags are those of seqeval, also where the tags break the scheme."""

import json

import pytest

from kd_jax.tasks.entities import count, entities, scores
from tests.paths import TESTS

CASES = json.loads((TESTS / "golden" / "entities.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES)
def test_entities_and_scores_are_those_of_seqeval(case):
    for tags, wanted in zip(case["labels"], case["entities"], strict=True):
        # seqeval gives the last word, we the one after it.
        found = [[kind, begin, end - 1] for kind, begin, end in entities(tags)]
        assert found == wanted
    counts = count(case["labels"], case["predicted"]).values()
    total = {key: sum(each[key] for each in counts) for key in ("right", "predicted", "rows")}
    found = scores(total)
    for name in ("precision", "recall", "f1"):
        assert found[name] == pytest.approx(case[name], abs=1e-12), name


def test_tags_without_a_scheme_are_types_of_their_own():
    assert list(entities(["DET", "NOUN", "NOUN", "O"])) == [("DET", 0, 1), ("NOUN", 1, 3)]


def test_a_type_may_have_dashes_of_its_own():
    assert list(entities(["B-creative-work", "I-creative-work"])) == [("creative-work", 0, 2)]
