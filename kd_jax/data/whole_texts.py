"""Takes whole texts out of a training split, with all that is cut from them.

Some datasets, such as SST-2, train on phrases of the sentences that they are about. A part of their
rows would select models that memorize phrases; whole sentences of which nothing is trained on
select those that generalize.
"""

import hashlib
from collections.abc import Callable, Iterator, Set
from dataclasses import replace

import numpy as np

from kd_jax.config.names import WHOLE_TEXTS
from kd_jax.data.source import Source
from kd_jax.data.subsets import relabel

OWNER = "data.selection." + WHOLE_TEXTS

Words = tuple[str, ...]

FIRST = 3
"""By how many of its first words the lengths of texts are looked up."""


def take_whole_texts(train: Source, count: int, *, labelled: bool = True) -> tuple[Source, Source]:
    """Splits a source into what models are trained on and whole texts that select among them.

    A text is whole if its words, what stands between spaces, stand side by side in no other text of
    the source. Which of them are taken depends on the texts alone.

    Args:
      train: N examples, a text each.
      count: whole texts to take.
      labelled: whether they must have labels.

    Returns:
      The examples whose text is neither one of those nor a part of one, and those.

    Raises:
      ValueError: for images or pairs, or if there are too few whole texts, or nothing else.
    """
    if not all(isinstance(text, str) for text in train.inputs[:1]):
        raise ValueError(
            f"{OWNER} takes single texts out of the training split, and {train.name!r} has"
            f" {'images' if train.modality == 'image' else 'pairs'}"
        )
    texts = [tuple(text.split()) for text in train.inputs]
    different = {*texts} - {()}
    parts = _parts_of(different)
    # A repetition is no part: one is as whole as the other.
    inside = {part for text in different for part in parts(text) if len(part) < len(text)}
    wanted = train.labelled if labelled else np.ones(len(texts), bool)
    whole = different - inside
    found = [row for row in np.flatnonzero(wanted).tolist() if texts[row] in whole]
    if len(found) < count:
        raise ValueError(
            f"{OWNER} is {count}, and of the {len(texts)} texts of {train.name!r}"
            f" {len(found)} {'have a label and ' if labelled else ''}are part of no other"
        )
    found.sort(key=lambda row: hashlib.sha256(train.inputs[row].encode()).digest())
    taken = np.sort(found[:count])
    gone = {part for row in taken for part in parts(texts[row])}
    stays = np.array([text not in gone for text in texts])
    if not stays.any():
        raise ValueError(f"{OWNER}={count} leaves nothing of {train.name!r} to train on")
    return _rows(train, np.flatnonzero(stays), train.name), _rows(
        train, taken, f"{train.name}, {count} whole texts"
    )


def _rows(source: Source, rows: np.ndarray, name: str) -> Source:
    return replace(relabel(source, rows, source.labels[rows], source.class_names), name=name)


def _parts_of(texts: Set[Words]) -> Callable[[Words], Iterator[Words]]:
    """Returns a function that yields which texts stand in one, itself too, once or more often."""
    lengths: dict[Words, set[int]] = {}
    for words in texts:
        lengths.setdefault(words[:FIRST], set()).add(len(words))

    def parts(words: Words) -> Iterator[Words]:
        for start in range(len(words)):
            for first in range(1, min(FIRST, len(words) - start) + 1):
                for length in lengths.get(words[start : start + first], ()):
                    # Whatever is longer than the rest is no part of it.
                    if length <= len(words) - start:
                        part = words[start : start + length]
                        if part in texts:
                            yield part

    return parts
