"""Entities in a sentence's tags: where they begin and end, and how many of them are found."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

OUTSIDE = "O"
"""The tag of a word that belongs to no entity."""


def entities(tags: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """Yields the type, the first word and the word after the last of each entity.

    Tags are in IOB2, `B-TYPE` for the first word and `I-TYPE` for those that follow. What breaks
    the scheme is read as seqeval does by default: an entity also begins with `I-TYPE` after another
    type or after none. A tag without a dash is a type of its own, as for parts of speech, and words
    of it in a row are one entity.
    """
    begun, kind = 0, OUTSIDE
    number = -1
    for number, tag in enumerate(tags):
        prefix, dash, rest = tag.partition("-")
        inside = OUTSIDE if tag == OUTSIDE else rest if dash and prefix in ("B", "I") else tag
        if inside == kind and not (dash and prefix == "B"):
            continue
        if kind != OUTSIDE:
            yield kind, begun, number
        begun, kind = number, inside
    if kind != OUTSIDE:
        yield kind, begun, number + 1


def count(
    labels: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> dict[str, dict[str, int]]:
    """Counts entities by type.

    Args:
      labels: [N] sentences' tags.
      predicted: likewise, of as many words each.

    Returns:
      Type -> "right", those of the same type, beginning and end; "predicted" and "rows", how many
      there are in predictions and labels.
    """
    counts: dict[str, dict[str, int]] = {}
    for wanted, found in zip(labels, predicted, strict=True):
        true, guessed = {*entities(wanted)}, {*entities(found)}
        for key, group in (("right", true & guessed), ("predicted", guessed), ("rows", true)):
            for kind, _, _ in group:
                counts.setdefault(kind, {"right": 0, "predicted": 0, "rows": 0})[key] += 1
    return dict(sorted(counts.items()))


def scores(counts: dict[str, int]) -> dict[str, Any]:
    """Computes precision, recall and F1 of counts; 0 where one is undefined."""
    precision = counts["right"] / counts["predicted"] if counts["predicted"] else 0.0
    recall = counts["right"] / counts["rows"] if counts["rows"] else 0.0
    both = counts["predicted"] + counts["rows"]
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * counts["right"] / both if both else 0.0,
        "rows": counts["rows"],
    }
