"""A cut vocabulary reads the texts it was cut to as the whole one does, with ids of its own."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from kd_jax.data.views.cut_vocabulary import cut_vocabulary, old_ids
from kd_jax.data.views.text import load_tokenizer, padding_id
from kd_jax.data.views.tokenizer_identity import identity

TEXTS = ["a wonderful , heartwarming film !", "Unwatchable dreck; avoid.", ("a pair", "of texts")]
OTHER = ["zebras philosophize"]


@pytest.fixture(scope="module")
def whole():
    return load_tokenizer("minilm")


@pytest.fixture(scope="module")
def cut(whole):
    return cut_vocabulary(whole, TEXTS)


def tokens(tokenizer, text):
    return tokenizer.encode(*text if isinstance(text, tuple) else (text,)).tokens


def test_the_texts_have_the_tokens_they_had(whole, cut):
    for text in TEXTS:
        assert tokens(cut, text) == tokens(whole, text)
    assert cut.get_vocab_size() < whole.get_vocab_size() / 10


def test_ids_close_the_gaps_and_lead_back_to_the_whole_vocabulary(whole, cut):
    ids = old_ids(cut, whole)
    assert sorted(cut.get_vocab().values()) == list(range(len(ids)))
    assert (np.diff(ids) > 0).all()
    for text in TEXTS[:2]:
        assert ids[cut.encode(text).ids].tolist() == whole.encode(text).ids
    assert ids[padding_id(cut)] == padding_id(whole)


def test_special_tokens_stay_and_other_words_are_spelled(cut):
    assert cut.encode("[MASK]").ids == [cut.token_to_id(t) for t in ("[CLS]", "[MASK]", "[SEP]")]
    found = tokens(cut, OTHER[0])
    assert "[UNK]" not in found
    assert "".join(t.removeprefix("##") for t in found[1:-1]) == OTHER[0].replace(" ", "")


def test_it_is_the_same_each_time_and_whatever_the_order(whole, cut):
    assert identity(cut_vocabulary(whole, TEXTS[::-1])) == identity(cut)
    assert identity(cut_vocabulary(cut, TEXTS)) == identity(cut)


def test_words_of_a_trained_tokenizer_that_the_texts_lack_are_unknown():
    trained = load_tokenizer("trained", texts=[*TEXTS, *OTHER], vocabulary_size=50)
    found = cut_vocabulary(trained, TEXTS)
    assert tokens(found, TEXTS[0]) == tokens(trained, TEXTS[0])
    assert tokens(found, OTHER[0]) == ["[CLS]", "[UNK]", "[UNK]", "[SEP]"]


def test_a_tokenizer_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"view\.vocabulary='training' is for .* has BPE"):
        cut_vocabulary(Tokenizer(models.BPE()), TEXTS)
