"""Labels for the built-in texts that are made of the texts themselves.

So every task can be tried, and every config be shrunk to seconds, without a download. Nothing of it
is hard to learn.
"""

import math
import re
from collections.abc import Callable
from typing import Any

WORDS = ("array", "axis", "default", "function", "model", "number", "shape", "value")
"""Classes of which a text has those that it contains."""

TAGS = ("B-identifier", "B-number", "O")

NUMBER = re.compile(r"[-+]?\d[\d.,]*")
IDENTIFIER = re.compile(r"\w*[a-z0-9]_\w+|[a-z]\w*\(.*|\w+\.\w+.*|`.*")


def log_length(text: str) -> tuple[float, ...]:
    """Returns the logarithm of the number of characters."""
    return (math.log(len(text)),)


def words_in(text: str) -> frozenset[str]:
    """Returns those of `WORDS` that a text contains."""
    return frozenset(WORDS) & {*re.findall(r"[a-z]+", text.lower())}


def tags_of(text: str) -> tuple[str, ...]:
    """Tells of each word between spaces whether it is a number, an identifier or neither."""
    return tuple(
        "B-number" if NUMBER.fullmatch(word) else "B-identifier" if IDENTIFIER.match(word) else "O"
        for word in text.split(" ")
    )


def overlap(pair: tuple[str, str]) -> tuple[float, ...]:
    """Returns which share of two texts' words both have."""
    ours, theirs = ({*re.findall(r"[a-z]+", text.lower())} for text in pair)
    return (len(ours & theirs) / max(len(ours | theirs), 1),)


LABELS: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "embedding": (("embedding",), overlap),
    "masked_language_model": (("token",), lambda _: None),
    "multilabel": (WORDS, words_in),
    "regression": (("log_length",), log_length),
    "tagging": (TAGS, tags_of),
}
"""Task's name -> names of its outputs, and the label of a text, or of a pair for a task of pairs,
as the task's `read_label` returns it."""
