"""Long texts in windows: all of them is read, and a model's output is the mean over them."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from kd_jax.core.types import ModelOutput
from kd_jax.data.source import Source
from kd_jax.data.views.text import TextView
from kd_jax.data.views.windows import window_buckets
from kd_jax.models import windows

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture
def tokenizer():
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return made


def prepared(tokenizer, texts, **options):
    labels = np.zeros(len(texts), np.int32)
    source = Source("texts", "text", texts, labels, ("x", "y"), "")
    return TextView(tokenizer, 6, long="windows", **options).prepare(source)


def read(view, row):
    """Returns the letters of each window of a text."""
    return [
        "".join(WORDS[i] for i, there in zip(ids, mask, strict=True) if there and i > 3)
        for ids, mask, window in zip(
            view["input_ids"][row],
            view["attention_mask"][row],
            view["window_mask"][row],
            strict=True,
        )
        if window
    ]


def test_a_text_is_read_in_parts_and_each_has_the_special_tokens(tokenizer):
    text = prepared(tokenizer, ["a b", "a b c d e f g h i", "a b c d"])
    # Three windows of six tokens each, four of which are words.
    assert text.lengths.tolist() == [4, 18, 6]
    view = text.gather(np.array([0, 1, 2]), 24)
    assert view["input_ids"].shape == (3, 4, 6)
    assert [read(view, row) for row in range(3)] == [["ab"], ["abcd", "efgh", "i"], ["abcd"]]
    assert view["input_ids"][1, 1].tolist() == [2, 8, 9, 10, 11, 3]
    # A missing window repeats the last one: none is empty.
    assert view["attention_mask"].any(axis=-1).all()
    assert text.gather(np.array([0]), 4)["input_ids"].shape == (1, 1, 4)
    with pytest.raises(ValueError, match="an example of 3 windows doesn't fit in 2"):
        text.gather(np.array([1]), 12)


def test_eight_windows_are_read_and_the_rest_is_counted_as_cut(tokenizer):
    letters = [*"abcdefghijklmnopqrstuvwxyz", *"abcdefghijk"]
    text = prepared(tokenizer, [" ".join(letters), " ".join(letters[:32])])
    assert text.cut == 1
    assert text.lengths.tolist() == [48, 48]
    view = text.gather(np.array([0, 1]), 48)
    assert "".join(read(view, 0)) == "".join(letters[:32])
    assert text.buckets == window_buckets(6) == (6, 12, 24, 48)


def test_windows_are_of_single_texts(tokenizer):
    with pytest.raises(ValueError, match=r"long='windows' is for single texts; .* has pairs"):
        prepared(tokenizer, [("a", "b")])
    with pytest.raises(ValueError, match="has words with labels"):
        prepared(tokenizer, ["a b"], words=True)
    with pytest.raises(ValueError, match="has masks with labels"):
        prepared(tokenizer, ["a b"], masks=0.15)


def test_outputs_are_means_over_the_windows_that_are_there():
    view = {
        "ids": np.arange(12).reshape(2, 2, 3),
        windows.MASK: np.array([[True, False], [True, True]]),
    }
    flat, mask = windows.split(view)
    assert flat["ids"].tolist() == np.arange(12).reshape(4, 3).tolist()
    outputs = np.array([[1.0], [np.nan], [3.0], [5.0]])
    features = {"pooled": outputs, "tokens": np.zeros((4, 3, 2))}
    found = windows.join(ModelOutput(outputs, features), mask)
    assert found.logits.tolist() == [[1], [4]]
    assert {name: each.tolist() for name, each in found.features.items()} == {"pooled": [[1], [4]]}
    assert windows.repeat(np.array([[1], [2]]), mask).tolist() == [[1], [1], [2], [2]]


def test_what_has_no_windows_stays_as_it_is():
    view, output = {"ids": np.zeros((2, 3))}, ModelOutput(np.zeros((2, 1)), {})
    flat, mask = windows.split(view)
    assert flat == view
    assert mask is None
    assert windows.join(output, mask) is output
    signal = np.ones((2, 1))
    assert windows.repeat(signal, mask) is signal
