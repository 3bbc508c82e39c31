"""What a student's training is made of, piece by piece, as the players of a game: its terms, its
sources."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Pieces:
    """The players of a game of training.

    Attributes:
      kind: what they are; names the folder and the section in explain.json.
      names: in the config's order.
      config_of: the config of a run with a subset of them, all else equal.
    """

    kind: str
    names: tuple[str, ...]
    config_of: Callable[[frozenset[str]], dict[str, Any]]


def terms_of(config: Config, model: str) -> Pieces:
    """Returns the terms of a model's objective.

    Raises:
      ValueError: if it has none.
    """
    objective = config["models"][model].get("objective") or {}
    if not objective:
        raise ValueError(f"models.{model} has no objective, and so no terms to value")

    def config_of(subset: frozenset[str]) -> dict[str, Any]:
        return _with(
            config,
            model,
            "objective",
            {name: term for name, term in objective.items() if name in subset},
        )

    return Pieces("terms", tuple(objective), config_of)


def sources_of(config: Config, model: str) -> Pieces:
    """Returns the sources that a model's training data is put together from, `models.NAME.data`.

    Raises:
      ValueError: if its section names none, or one.
    """
    sources: tuple[str, ...] = tuple(config["models"][model].get("data", ()))
    # One source alone has nobody to share its value with.
    if len(sources) < 2:
        raise ValueError(
            f"models.{model}.data names {len(sources) or 'no'} source(s) of training data; values"
            f" need two or more"
        )

    def config_of(subset: frozenset[str]) -> dict[str, Any]:
        return _with(config, model, "data", tuple(name for name in sources if name in subset))

    return Pieces("sources", sources, config_of)


PIECES: dict[str, Callable[[Config, str], Pieces]] = {"sources": sources_of, "terms": terms_of}
"""Value of `--players` -> the players of a config's model."""


def _with(config: Config, model: str, key: str, value: Any) -> dict[str, Any]:
    """Replaces one key of one model's section, and compares that model with itself."""
    # Only one key of one model changes, so that a difference in accuracy comes from that key.
    models = {**config["models"], model: {**config["models"][model], key: value}}
    # Nothing else is trained for a subset, so no other model is compared or evaluated.
    return {
        **config,
        "models": models,
        "compare": dict.fromkeys(config["compare"], model),
        "evaluations": {},
    }
