"""CoNLL files: sentences between blank lines, and what of them can't be read."""

import io

import pytest

from kd_jax.data.readers.conll import read_sentences


def sentences(content):
    rejected = []
    found = list(read_sentences(io.BytesIO(content), rejected))
    assert found[0] == ()
    return found[1:], [(row.row, row.reason) for row in rejected]


@pytest.mark.parametrize("between", ["\t", " ", "   "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_sentences_stand_between_blank_lines(between, end):
    lines = ["I O", "am O", "", "  ", "Bo B-x", "", ""]
    content = end.join(line.replace(" ", between) for line in lines).encode()
    found, rejected = sentences(content)
    assert found == [
        (1, {"words": ["I", "am"], "tags": ["O", "O"]}),
        (5, {"words": ["Bo"], "tags": ["B-x"]}),
    ]
    assert rejected == []


def test_the_last_column_has_the_tags_and_others_are_numbered():
    found, _ = sentences(
        b"\xef\xbb\xbf-DOCSTART- -X- O O\n\n# id = 7\nBo NNP I-NP B-x\n# NN I-NP O\n"
    )
    words = {"words": ["Bo", "#"], "column_2": ["NNP", "NN"], "column_3": ["I-NP", "I-NP"]}
    assert found == [(4, words | {"tags": ["B-x", "O"]})]


def test_a_sentence_may_begin_with_a_hash():
    found, rejected = sentences(b"# O\nBo B-x\n")
    assert found == [(1, {"words": ["#", "Bo"], "tags": ["O", "B-x"]})]
    assert rejected == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"a O\nb\n", "line 4 has 1 columns instead of 2"),
        (b"a\nb\n", "line 3 has a word and no tag"),
        (b"a\tO\nb\xff\tO\n", "line 4 is not valid UTF-8"),
        (b"a O\nb X O\n", "line 4 has 3 columns instead of 2"),
    ],
)
def test_a_bad_line_costs_its_sentence_alone(bad, reason):
    found, rejected = sentences(b"x O\n\n" + bad + b"\ny O\n")
    assert [record["words"] for _, record in found] == [["x"], ["y"]]
    assert rejected == [(3, reason)]


def test_a_line_that_is_too_long_costs_its_sentence(monkeypatch):
    monkeypatch.setattr("kd_jax.core.limits.ROW", 50)
    found, rejected = sentences(b"a O\n" + b"b" * 200 + b" O\n\ny O\n")
    assert [record["words"] for _, record in found] == [["y"]]
    assert rejected[0][1].startswith("line 2 is longer than")
