"""The table of methods in the README, from the losses themselves: `python -m kd_jax.methods`.

Paper and year stand in each loss's docstring, the hyperparameters and their defaults in its
signature."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from kd_jax import losses
from kd_jax.analysis.attribution import attribution_matching
from kd_jax.objective.terms import TERMS
from kd_jax.objective.terms.hyperparameters import of_loss

REFERENCE = re.compile(r"`([^<`]+?) <(\S+?)>`_, (\d{4})")
NETWORKS = {"review": "hierarchical_context"}
"""Term -> the loss it applies, where the names differ."""

ELSEWHERE = {"attribution_matching": attribution_matching}
"""Losses that are not of `kd_jax.losses`."""

OWN_TESTS = {
    "attribution_matching": "attribution",
    "contrastive_representation": "contrastive",
    "cross_entropy": "logits",
}
"""Losses that `tests/losses/contract_test.py` does not cover -> the file that does."""


def table() -> str:
    """Markdown: one row for each term, sorted by name."""
    lines = [
        "| config term | paper | year | function | default hyperparameters | test |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_row(term) for term in sorted(TERMS))])


def _row(term: str) -> str:
    name = NETWORKS.get(term, term)
    defaults = {key: parameter.default for key, parameter in of_loss(_loss(name)).items()}
    if (
        name == "contrastive_representation"
    ):  # The loss's own hyperparameters, and those of its term.
        options = inspect.signature(TERMS[term]).parameters
        defaults = {
            key: options[key].default for key in ("width", "negatives", "temperature", "momentum")
        }
    shown = ", ".join(f"{key} {value:g}" for key, value in defaults.items())
    found = reference(name)
    paper, year = (f"[{found[0]}]({found[1]})", found[2]) if found else ("", "")
    return (
        f"| `{term}` | {paper} | {year} | `{name}` | {shown} |"
        f" `{OWN_TESTS.get(name, 'contract')}_test.py` |"
    )


def _loss(name: str) -> Callable[..., Any]:
    return ELSEWHERE.get(name) or getattr(losses, name)


def reference(name: str) -> tuple[str, str, str] | None:
    """Title, address and year of the paper that a loss's docstring names first, or that of the loss
    it refers to."""
    text = re.sub(r"\s+", " ", _loss(name).__doc__ or "")
    if found := REFERENCE.search(text):
        return found[1], found[2], found[3]
    other = re.search(r" as `(\w+)`", text)
    return reference(other[1]) if other else None


if __name__ == "__main__":
    print(table())
