"""Where words begin among tokens, for tasks with a label a word."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from kd_jax.data.batches import evaluation_batches
from kd_jax.data.source import Source
from kd_jax.data.views.text import TextView, first_pieces, load_tokenizer


def word_pieces():
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "b": 5, "##b": 6, "-": 7}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def byte_level():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"[PAD]": 0} | {letter: i for i, letter in enumerate(alphabet, 1)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        ("a b", [1, 2]),
        ("ab a-b a", [1, 3, 6]),  # A word of two pieces, and one of three.
        ("a \u200b \U0001f600", [1, 2, 3]),  # What it doesn't know is one piece.
    ],
)
def test_a_word_stands_where_its_first_piece_does(text, positions):
    tokenizer = word_pieces()
    assert first_pieces(text, tokenizer.encode(text)).tolist() == positions


def test_a_piece_that_begins_with_the_space_is_the_words():
    # Of byte-level tokens the space before a word is the first.
    assert first_pieces("ab c é", byte_level().encode("ab c é")).tolist() == [0, 2, 4]


def test_a_word_of_which_nothing_is_read_has_no_position():
    tokenizer = load_tokenizer("trained", texts=["a b"], vocabulary_size=10)
    assert first_pieces("a \u200b b", tokenizer.encode("a \u200b b")).tolist() == [1, -1, 2]


def source_of(texts):
    labels = np.full((len(texts), max(len(text.split(" ")) for text in texts)), -1, np.int32)
    for row, text in enumerate(texts):
        labels[row, : len(text.split(" "))] = np.arange(len(text.split(" ")))
    return Source("s", "text", texts, labels, ("0", "1"), "")


def test_batches_have_every_words_label_and_say_which_were_cut_off():
    texts = ["a b", " ".join("a" * 30), "ab"]
    source = source_of(texts)
    view = TextView(word_pieces(), 10, words=True)
    options = dict(process_index=0, process_count=1, buckets=(6, 10))
    batches = list(evaluation_batches(source, {"v": view.prepare(source)}, batch_size=2, **options))
    short, long = batches
    assert short.positions.sum(axis=1).tolist() == [2, 1]
    assert short.labels[0, :3].tolist() == [0, 1, -1]
    # Eight words fit beside the special tokens; the labels of all thirty are there.
    assert long.positions.sum(axis=1).tolist() == [8, 8]
    assert (long.labels[0] >= 0).sum() == 30
    assert long.label_valid.tolist() == [True, False]


class Stored:
    """Outputs of a teacher that read two words of the first text and one of the others."""

    lengths = None

    def gather(self, indices, length, draws=None):
        counts = np.where(indices == 0, 2, 1)
        there = np.where(np.arange(30) < counts[:, None], 0, -1)
        values = (indices[:, None] + 1) * np.ones(there.shape)
        logits = np.repeat(values[..., None], 3, axis=-1)
        return {"positions": there, "logits": logits, "logits/rest": values, "block_0": values}


def test_words_that_a_stored_teacher_has_not_read_are_not_there_for_it():
    source = source_of(["a b a", "a b", "ab ab ab"])
    views = {"own": TextView(word_pieces(), 8, words=True).prepare(source), "known": Stored()}
    options = dict(process_index=0, process_count=1, buckets=(8,))
    (batch,) = evaluation_batches(source, views, batch_size=3, **options)
    # The room is the student's, whatever a teacher's outputs need in one batch.
    own, known = batch.views["own"]["positions"], batch.views["known"]
    assert own.shape == (3, 16)
    assert known["logits"].shape == (*own.shape, 3)
    assert known["logits/rest"].shape == known["positions"].shape == own.shape
    assert known["block_0"].shape == (3, 30)
    assert batch.positions.sum(axis=1).tolist() == [2, 1, 1]
    assert np.asarray(batch.as_read("own").positions).sum(axis=1).tolist() == [3, 2, 3]
    assert batch.labels[0, :3].tolist() == [0, 1, 2]


def test_views_of_several_tokenizers_agree_on_the_words_that_are_there():
    source = source_of(["ab ab ab a"])
    views = {
        "short": TextView(byte_level(), 5, words=True).prepare(source),
        "long": TextView(word_pieces(), 12, words=True).prepare(source),
    }
    options = dict(process_index=0, process_count=1, buckets=(12,))
    (batch,) = evaluation_batches(source, views, batch_size=1, **options)
    assert batch.views["short"]["positions"].shape == batch.views["long"]["positions"].shape
    assert batch.positions[0, :4].tolist() == [True, True, False, False]
