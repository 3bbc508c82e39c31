"""Words replaced by what a masked language model would put in their place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from kd_jax.data.readers.image_decoding import show_progress
from kd_jax.data.views.text import load_tokenizer
from kd_jax.models.weights import load as weights

_ROWS = 128  # Masked texts of a forward pass.
_STEP = 16  # Texts are padded to a multiple of so many tokens.
_SPACE = "\u0120"  # How byte-level vocabularies write the blank before a word.


@dataclass(frozen=True)
class MaskedWords:
    """A masked language model and its tokenizer, as TinyBERT uses them to change sentences.

    Attributes:
      likeliest: jitted, (`input_ids` [B, T], `attention_mask` [B, T], masked position [B]) -> the
        ids [B, k] of the words that are likeliest there.
      tokenizer: the model's.
      mask_id: of the token that hides a word.
      max_length: tokens that are read of a text; words beyond stay as they are.

    References:
      Jiao et al. `TinyBERT <https://arxiv.org/abs/1909.10351>`_, 2020, algorithm 1. Words of
      several pieces, for which the paper takes neighbours among GloVe's vectors, stay as they are.
    """

    likeliest: Callable[..., jax.Array]
    tokenizer: Tokenizer
    mask_id: int
    max_length: int

    @classmethod
    def load(cls, model: str, *, candidates: int, max_length: int) -> "MaskedWords":
        """Loads a model.

        Args:
          model: a folder of Hugging Face with a masked language model and its tokenizer.json, or
            `hub:OWNER/NAME`.
          candidates: how many words, the likeliest ones, a word may become; the paper takes 15.
          max_length: as in the class.

        Raises:
          ValueError: if there is no such model, it predicts no tokens, or its tokenizer has no
            mask.
        """
        folder = weights.path_of(model)
        tokenizer = load_tokenizer(str(folder))
        # The two spellings are BERT's and RoBERTa's.
        mask_id = next(
            (i for i in map(tokenizer.token_to_id, ("[MASK]", "<mask>")) if i is not None), None
        )
        if mask_id is None:
            raise ValueError(f"the tokenizer of {model!r} has neither [MASK] nor <mask>")
        module, variables = _language_model(folder)
        # Sorted, because the order of a vocabulary's dict may differ between two loads.
        words = np.array(sorted(_whole_words(tokenizer)), np.int32)
        if not 1 <= candidates <= len(words):
            raise ValueError(
                f"candidates must be from 1 to the {len(words)} words of {model!r}, got"
                f" {candidates}"
            )
        # Variables are an argument; closed over, they would be compiled in as constants.
        find = jax.jit(partial(_likeliest, module, words, candidates))
        return cls(partial(find, variables), tokenizer, mask_id, max_length)

    def augment(
        self, texts: Sequence[str], *, replace: float, rng: np.random.Generator
    ) -> list[str]:
        """Replaces each word that is one token with probability `replace`; [N] texts -> [N] texts.

        Each replaced word is predicted from the text as it was, itself masked, and becomes any of
        the likeliest ones."""
        encodings = self._encode(texts)
        # All places are drawn before any word, so the batch size changes no draw of a place.
        places = [
            (text, token)
            for text, encoding in enumerate(encodings)
            for token in _single_piece_words(encoding)
            if rng.random() < replace
        ]
        spans: dict[int, list[tuple[int, int, str]]] = {}
        # Places of many texts share a batch, as each masked word is an input of its own.
        batches = [places[start : start + _ROWS] for start in range(0, len(places), _ROWS)]
        for batch in show_progress(batches, len(batches), "predicting masked words"):
            for (text, token), ids in zip(batch, self._predict(batch, encodings), strict=True):
                word = str(self.tokenizer.id_to_token(int(rng.choice(ids)))).removeprefix(_SPACE)
                start, end = encodings[text].offsets[token]
                # The span of a byte-level token may begin with the blank before the word.
                blanks = end - start - len(str(texts[text])[start:end].lstrip())
                spans.setdefault(text, []).append((start + blanks, end, word))
        return [_replaced(text, spans.get(number, [])) for number, text in enumerate(texts)]

    def _encode(self, texts: Sequence[str]) -> list[Any]:
        # A copy, because these settings would change the tokenizer for everyone who holds it.
        tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_length)
        return tokenizer.encode_batch(list(texts))

    def _predict(self, batch: Sequence[tuple[int, int]], encodings: Sequence[Any]) -> np.ndarray:
        """Predicts [b, k] the likeliest words at each place of a batch."""
        longest = max(len(encodings[text].ids) for text, _ in batch)
        # Rounded up, so that few lengths are compiled.
        length = -(-longest // _STEP) * _STEP
        ids, mask = np.zeros((_ROWS, length), np.int32), np.zeros((_ROWS, length), bool)
        tokens = np.zeros(_ROWS, np.int32)
        # Rows that only fill the batch get one token, so that they have something to attend to.
        mask[:, 0] = True
        for row, (text, token) in enumerate(batch):
            count = len(encodings[text].ids)
            ids[row, :count], mask[row, :count], tokens[row] = encodings[text].ids, True, token
            # The word itself is hidden, or the model would mostly predict the same word again.
            ids[row, token] = self.mask_id
        return np.asarray(self.likeliest(ids, mask, tokens))[: len(batch)]


def _language_model(folder: Path) -> tuple[Any, Any]:
    """Builds the model with its head over the vocabulary.

    The classifier's head is not used, and any pooling will do.
    """
    return weights.load(folder, 2, language_head=True, pooling="mean")


def _likeliest(
    module: Any, words: np.ndarray, count: int, variables: Any, ids: Any, mask: Any, tokens: Any
) -> Any:
    scores = module.apply(variables, ids, mask).features["vocabulary_logits"]
    # Only whole words at the masked place compete; the rest of the vocabulary is cut away.
    scores = jnp.take_along_axis(scores, jnp.asarray(tokens)[:, None, None], axis=1)[:, 0, words]
    return jnp.asarray(words)[jax.lax.top_k(scores, count)[1]]


def _whole_words(tokenizer: Tokenizer) -> list[int]:
    """Returns the ids of tokens that are words of letters by themselves."""
    vocabulary = tokenizer.get_vocab()
    # In byte-level vocabularies a token without this mark is only a part of a word.
    if any(token.startswith(_SPACE) for token in vocabulary):
        return [
            i for token, i in vocabulary.items() if token.startswith(_SPACE) and token[1:].isalpha()
        ]
    return [i for token, i in vocabulary.items() if token.isalpha()]


def _single_piece_words(encoding: Any) -> list[int]:
    """Positions of the tokens that are a word of letters by themselves."""
    # A word of several pieces can't be predicted by one mask, so it is left alone.
    owners = encoding.word_ids
    counts: dict[int, int] = {}
    for owner in owners:
        if owner is not None:
            counts[owner] = counts.get(owner, 0) + 1
    return [
        position
        for position, (owner, token) in enumerate(zip(owners, encoding.tokens, strict=True))
        if owner is not None and counts[owner] == 1 and token.removeprefix(_SPACE).isalpha()
    ]


def _replaced(text: str, spans: Sequence[tuple[int, int, str]]) -> str:
    # From the end to the front, so that earlier positions stay right.
    for start, end, word in sorted(spans, reverse=True):
        text = text[:start] + word + text[end:]
    return text
