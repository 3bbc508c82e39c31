"""Sentences changed at random into new ones: words masked, words exchanged for others of the same
place, n-grams."""

from collections.abc import Sequence

import numpy as np

LONGEST_NGRAM = 5


def augment_sentences(
    sentences: Sequence[str],
    *,
    mask: float,
    swap: float,
    ngram: float,
    mask_token: str,
    rng: np.random.Generator,
) -> list[str]:
    """Changes each sentence once, by the three rules of Tang et al.

    Each word is masked with probability `mask`, else exchanged with probability `swap`; then with
    probability `ngram` the sentence is cut to 1 to 5 of its words that stand together. Where the
    paper exchanges a word for another of its part of speech, which takes a tagger, it becomes one
    that stands between the same two neighbours elsewhere in `sentences`, as often as it does there;
    a word that has its place for itself stays.

    Args:
      sentences: [N] texts; words are what blanks separate.
      mask: probability in [0, 1].
      swap: probability in [0, 1]; with `mask` at most 1.
      ngram: probability in [0, 1].
      mask_token: what a masked word becomes, such as the tokenizer's mask.
      rng: of all draws.

    Returns:
      [N] texts; one without words comes back empty.

    References:
      Tang et al. `Distilling Task-Specific Knowledge from BERT into Simple Neural Networks
      <https://arxiv.org/abs/1903.12136>`_, 2019.
    """
    split = [sentence.split() for sentence in sentences]
    lengths = np.array([len(words) for words in split], np.int64)
    # Words become numbers, so that all sentences are changed at once by array operations.
    vocabulary, words = np.unique(
        np.array([word for each in split for word in each], object), return_inverse=True
    )
    masked, exchanged = len(vocabulary), _exchange(words, lengths, rng)
    # One draw decides between mask, exchange and neither, so both never meet in a word.
    draws = rng.random(len(words))
    words = np.where(draws < mask, masked, np.where(draws < mask + swap, exchanged, words))
    names = np.append(vocabulary, mask_token)
    starts, ends = _spans(lengths, ngram, rng)
    return [
        " ".join(names[words[start:end]])
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


def _exchange(words: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws [W] for each word one of those between the same two neighbours."""
    # A number that no word has stands for the end of a sentence.
    outside = (
        words.max(initial=-1) + 1
    )  # Stands before the first word of a sentence, and after the last.
    before = np.append(outside, words[:-1])[: len(words)]
    after = np.append(words[1:], outside)[: len(words)]
    # All sentences lie in one row, so the words at their ends must not see a neighbour sentence.
    ends = np.cumsum(lengths)
    filled = lengths > 0
    before[(ends - lengths)[filled]], after[ends[filled] - 1] = outside, outside
    # A pair of neighbours as one number, so that equal places can be found by sorting.
    places = before * (outside + 1) + after
    order = np.argsort(places, kind="stable")
    sorted_places = places[order]
    # An index drawn evenly among equal places gives each word in proportion to its count.
    first = np.searchsorted(sorted_places, places, side="left")
    count = np.searchsorted(sorted_places, places, side="right") - first
    return words[order[first + (rng.random(len(words)) * count).astype(np.int64)]]


def _spans(
    lengths: np.ndarray, ngram: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns [N] start and end of what is kept of each sentence, in the row of all words."""
    starts = np.cumsum(lengths) - lengths
    # A sentence shorter than the drawn n-gram is kept whole.
    sizes = np.minimum(rng.integers(1, LONGEST_NGRAM + 1, len(lengths)), lengths)
    offsets = (rng.random(len(lengths)) * (lengths - sizes + 1)).astype(np.int64)
    # Spans are drawn for all sentences, as array operations need; an uncut one ignores its own.
    cut = rng.random(len(lengths)) < ngram
    starts, sizes = np.where(cut, starts + offsets, starts), np.where(cut, sizes, lengths)
    return starts, starts + sizes
