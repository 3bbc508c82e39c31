import json

import pytest
from tokenizers import Tokenizer

from kd_jax.data.views.text import load_tokenizer
from kd_jax.data.views.tokenizer_identity import difference_to_folder, identity

TEXTS = ["a fine film", "a dull and long film", "one long bore"] * 4


@pytest.fixture
def tokenizer():
    return load_tokenizer("trained", texts=TEXTS, vocabulary_size=13)


def altered(tokenizer, change):
    content = json.loads(tokenizer.to_str())
    change(content)
    return Tokenizer.from_str(json.dumps(content))


def swap(content):
    words = content["model"]["vocab"]
    first, second = [word for word, _ in sorted(words.items(), key=lambda each: each[1])][-2:]
    words[first], words[second] = words[second], words[first]


CHANGES = {
    "ids": swap,
    "normalizer": lambda content: content["normalizer"].update(lowercase=False),
    "post_processor": lambda content: content.update(post_processor=None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_ids_of_some_text_is_another_tokenizer(tokenizer, change, tmp_path):
    other = altered(tokenizer, CHANGES[change])
    assert identity(other) != identity(tokenizer)
    other.save(str(tmp_path / "tokenizer.json"))
    assert ("tokens have other ids" if change == "ids" else change) in difference_to_folder(
        tokenizer, tmp_path
    )


def test_lengths_to_cut_and_pad_to_are_the_views(tokenizer, tmp_path):
    other = Tokenizer.from_str(tokenizer.to_str())
    other.enable_truncation(7)
    other.enable_padding(length=9)
    assert identity(other) == identity(tokenizer)
    other.save(str(tmp_path / "tokenizer.json"))
    assert difference_to_folder(tokenizer, tmp_path) is None


def test_the_message_names_a_token_and_both_ids(tokenizer, tmp_path):
    altered(tokenizer, swap).save(str(tmp_path / "tokenizer.json"))
    found = difference_to_folder(tokenizer, tmp_path)
    assert found.startswith("2 tokens have other ids: ")
    assert "has id 12 here and id 11 there" in found


def test_a_vocabulary_alone_is_compared_too(tokenizer, tmp_path):
    words = tokenizer.get_vocab()
    ordered = sorted(words, key=words.get)
    (tmp_path / "vocab.txt").write_text("\n".join(ordered) + "\n")
    assert difference_to_folder(tokenizer, tmp_path) is None
    (tmp_path / "vocab.txt").write_text("\n".join([*ordered[1:], ordered[0]]) + "\n")
    assert "13 tokens have other ids" in difference_to_folder(tokenizer, tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    assert difference_to_folder(tokenizer, tmp_path) is None


def test_a_folder_without_a_tokenizer_says_nothing(tokenizer, tmp_path):
    assert difference_to_folder(tokenizer, tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "1.0"}'])
def test_a_damaged_tokenizer_is_named(tokenizer, tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=f"the tokenizer in {tmp_path} can't be read"):
        difference_to_folder(tokenizer, tmp_path)
