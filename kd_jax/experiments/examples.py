"""Examples on which a run's models differ most, for its report."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from kd_jax.data.source import Source

MOST = 5
"""Examples of a kind."""

LONGEST = 400
"""Characters of a text."""

LARGEST = 128
"""Pixels along an image's longer side."""


def find_differing(
    scores: Mapping[str, Mapping[str, Any]], roles: Mapping[str, str], source: Source
) -> dict[str, list[dict[str, Any]]]:
    """Finds on which examples distillation helped and harmed most, and what wasn't learned.

    Args:
      scores: of the compared models, by name, each with "errors", "index" and "tell".
      roles: "student", "baseline" and "teacher" -> name.
      source: the split that they were scored on.

    Returns:
      "gained", "lost" and "not_learned" -> examples, the most different first: "row", "text" or
      "png" (base64), "label" and "outputs", by model, in words. Empty where the task has no error
      of a single example.
    """
    names = {role: name for role, name in roles.items() if name in scores}
    errors = {
        role: scores[name]["errors"]
        for role, name in names.items()
        if scores[name]["errors"] is not None
    }
    if not {"student", "baseline"} <= errors.keys():
        return {}
    better = {
        "gained": errors["baseline"] - errors["student"],
        "lost": errors["student"] - errors["baseline"],
    }
    # Stored outputs of a teacher need not be on this split.
    if "teacher" in errors:
        better["not_learned"] = errors["student"] - errors["teacher"]
    compared = {name: scores[name] for name in dict.fromkeys(names.values())}
    found = {}
    for kind, difference in better.items():
        order = np.argsort(-difference, kind="stable")[:MOST]
        found[kind] = [
            _describe(int(place), compared, source) for place in order if difference[place] > 0
        ]
    return found


def _describe(
    place: int, scores: Mapping[str, Mapping[str, Any]], source: Source
) -> dict[str, Any]:
    first = next(iter(scores.values()))
    index = int(first["index"][place])
    rows = source.rows
    told = {name: each["tell"](place) for name, each in scores.items()}
    example = {
        # As a person counts them in the file, where there is one.
        "row": int(rows[index]) if len(rows) else index + 1,
        "label": next(iter(told.values()))[0],
        "outputs": {name: output for name, (_, output) in told.items()},
    }
    given = source.inputs[index]
    if source.modality == "image":
        return example | {"png": _png(np.asarray(given))}
    text = given if isinstance(given, str) else "\n".join(given)
    return example | {"text": text if len(text) <= LONGEST else f"{text[:LONGEST]}…"}


def _png(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
