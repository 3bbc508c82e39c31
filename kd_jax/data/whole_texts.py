"""Takes whole texts out of a training split, with all that is cut from them.

Some datasets, such as SST-2, train on phrases of the sentences that they are about. A part of their
rows would select models that memorize phrases; whole sentences of which nothing is trained on
select those that generalize.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from kd_jax.config.names import WHOLE_TEXTS
from kd_jax.data.source import Source
from kd_jax.data.subsets import relabel

OWNER = "data.selection." + WHOLE_TEXTS

FIRST = 3
"""By how many of its first words a text is looked up: few texts share that many."""


def take_whole_texts(train: Source, count: int) -> tuple[Source, Source]:
    """Splits a source into what models are trained on and whole texts that select among them.

    A text is whole if its words stand side by side in no other text of the source. Which of them
    are taken depends on the texts alone.

    Args:
      train: N examples, a text each.
      count: whole texts to take; they have labels.

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
    parts = _parts_of(texts)
    whole = np.ones(len(texts), bool)
    for number, words in enumerate(texts):
        # A repetition is no part: one is as whole as the other.
        whole[[part for part in parts(words) if len(texts[part]) < len(words)]] = False
        whole[number] &= bool(words)
    found = np.flatnonzero(whole & train.labelled).tolist()
    if len(found) < count:
        raise ValueError(
            f"{OWNER} is {count}, and of the {len(texts)} texts of {train.name!r}"
            f" {len(found)} have a label and are part of no other"
        )
    found.sort(key=lambda row: hashlib.sha256(train.inputs[row].encode()).digest())
    taken = np.sort(found[:count])
    stays = np.ones(len(texts), bool)
    for row in taken:
        stays[[*parts(texts[row])]] = False
    if not stays.any():
        raise ValueError(f"{OWNER}={count} leaves nothing of {train.name!r} to train on")
    return _rows(train, np.flatnonzero(stays), train.name), _rows(
        train, taken, f"{train.name}, {count} whole texts"
    )


def _rows(source: Source, rows: np.ndarray, name: str) -> Source:
    return replace(relabel(source, rows, source.labels[rows], source.class_names), name=name)


def _parts_of(
    texts: Sequence[tuple[str, ...]],
) -> Callable[[tuple[str, ...]], Iterator[int]]:
    """Returns a function that yields which texts stand in one, itself too, once or more often."""
    begins: dict[tuple[str, ...], list[int]] = {}
    for number, words in enumerate(texts):
        if words:
            begins.setdefault(words[:FIRST], []).append(number)

    def parts(words: tuple[str, ...]) -> Iterator[int]:
        for start in range(len(words)):
            for length in range(1, min(FIRST, len(words) - start) + 1):
                for part in begins.get(words[start : start + length], ()):
                    if texts[part] == words[start : start + len(texts[part])]:
                        yield part

    return parts
