"""Tokens are hidden as BERT hides them: in training anew each time, in evaluation always the same."""

import numpy as np
import pytest

from kd_jax.data.source import Source
from kd_jax.data.views.masked_text import FreshMasks, mask_id
from kd_jax.data.views.text import TextView, load_tokenizer

TEXTS = [" ".join("abcdefghij"[(i + j) % 10] for j in range(38)) for i in range(60)]
TOKENIZER = load_tokenizer("trained", texts=TEXTS, vocabulary_size=30)


def prepared(texts=TEXTS, rate=0.15, length=40):
    source = Source("s", "text", list(texts), np.full(len(texts), -1, np.int32), ("token",), "")
    return TextView(TOKENIZER, length, masks=rate).prepare(source)


def plain(texts=TEXTS, length=40):
    source = Source("s", "text", list(texts), np.full(len(texts), -1, np.int32), ("token",), "")
    return TextView(TOKENIZER, length).prepare(source).gather(np.arange(len(texts)), length)


def test_labels_are_the_tokens_that_were_hidden():
    view = prepared().gather(np.arange(60), 40)
    ids = plain()["input_ids"]
    assert (view["positions"] >= 0).sum(axis=1).tolist() == [6] * 60  # 15 % of 38 tokens.
    np.testing.assert_array_equal(
        view["labels"], np.take_along_axis(ids, view["positions"], axis=1)
    )
    changed = view["input_ids"] != ids
    places = np.zeros_like(changed)
    np.put_along_axis(places, view["positions"], True, axis=1)
    assert not changed[~places].any()


def test_four_in_five_become_a_mask_and_one_in_ten_another_token():
    view = prepared(TEXTS * 20).gather(np.arange(1200), 40)
    now = np.take_along_axis(view["input_ids"], view["positions"], axis=1)
    masked = now == mask_id(TOKENIZER)
    kept = now == view["labels"]
    assert masked.mean() == pytest.approx(0.8, abs=0.02)
    # One in ten stays; of the random ones a tenth is the same by chance.
    assert kept.mean() == pytest.approx(0.1 + 0.1 / 10, abs=0.02)


def test_an_evaluation_hides_the_same_tokens_and_a_training_others_each_time():
    text = prepared()
    first, again = (text.gather(np.arange(60), 40)["positions"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    part = text.gather(np.arange(60)[10:20], 40)["positions"]
    np.testing.assert_array_equal(first[10:20], part)
    rng = np.random.default_rng(0)
    fresh = [
        text.gather(np.arange(60), 40, FreshMasks().draw(rng, 60))["positions"] for _ in range(2)
    ]
    assert (fresh[0] != fresh[1]).any()


def test_special_tokens_are_never_hidden_and_short_texts_lose_one():
    view = prepared(["a", "a b"]).gather(np.arange(2), 16)
    assert (view["positions"] >= 0).sum(axis=1).tolist() == [1, 1]
    assert set(view["positions"][view["positions"] >= 0].tolist()) <= {1, 2}


def test_at_rate_0_the_masks_of_a_text_are_asked_for():
    view = prepared(["a [MASK] c [MASK]", "a"], rate=0.0).gather(np.arange(2), 16)
    assert view["positions"].shape == (2, 8)
    assert view["positions"][0, :3].tolist() == [2, 4, -1]
    assert (view["positions"][1] == -1).all()


def test_a_tokenizer_without_a_mask_is_refused():
    from tokenizers import Tokenizer, models

    with pytest.raises(ValueError, match="no \\[MASK\\] or <mask>"):
        mask_id(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
