import json

import pytest

from kd_jax.data.views import tokenizer_file
from kd_jax.data.views.text import load_tokenizer
from kd_jax.data.views.tokenizer_file import read_tokenizer


@pytest.fixture
def content():
    made = load_tokenizer("trained", texts=["a fine film", "a dull film"] * 4, vocabulary_size=9)
    return json.loads(made.to_str())


def read(tmp_path, text):
    path = tmp_path / "tokenizer.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return read_tokenizer(path)


def test_a_sound_one_is_read(content, tmp_path):
    assert read(tmp_path, content).encode("a fine film").ids


def word(value):
    return lambda content: content["model"]["vocab"].update(film=value)


DAMAGES = {
    "an id of four thousand million": word(4_000_000_000),
    "an id beyond any vocabulary": word(2**24),
    "a negative id": word(-1),
    "a broken id": word(1.5),
    "an id that is no number": word("7"),
    "an added token beyond": lambda content: content["added_tokens"][0].update(id=4_000_000_000),
    "an added token of nothing": lambda content: content["added_tokens"].append({"content": "x"}),
    "padding beyond": lambda content: content.update(
        padding={
            "strategy": "BatchLongest",
            "direction": "Right",
            "pad_id": 2**40,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        }
    ),
    "no model": lambda content: content.pop("model"),
    "another model": lambda content: content["model"].update(type="Nothing"),
    "no vocabulary": lambda content: content["model"].pop("vocab"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_is_said_in_one_line(content, tmp_path, damage):
    DAMAGES[damage](content)
    with pytest.raises(
        ValueError, match=r"^the tokenizer .*/tokenizer.json can't be read: "
    ) as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\x00"])
def test_a_damaged_file_is_named(tmp_path, text):
    with pytest.raises(ValueError, match=r"^the tokenizer .*/tokenizer.json can't be read: "):
        read(tmp_path, text)


def test_a_panic_of_the_library_is_one_line(content, tmp_path, monkeypatch):
    class Panic(BaseException):
        """Stands for pyo3's PanicException."""

    class Library:
        @staticmethod
        def from_str(_text):
            raise Panic("index out of bounds")

    monkeypatch.setattr(tokenizer_file, "Tokenizer", Library)
    with pytest.raises(ValueError, match="index out of bounds"):
        read(tmp_path, content)


def test_a_file_larger_than_any_is_not_read(content, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer_file, "LARGEST_FILE", 10)
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        read(tmp_path, content)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        read_tokenizer(tmp_path / "tokenizer.json")
