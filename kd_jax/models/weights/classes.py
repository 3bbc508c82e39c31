"""The classes of a published classifier, brought into the order of the data's."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kd_jax.models.weights.formats import weight_format
from kd_jax.models.weights.open import Published

log = logging.getLogger(__name__)

UNNAMED = re.compile(r"LABEL_\d+")
"""What transformers calls a class that nobody named."""

HINT = "say which is which with label_map={published: ours}, or train another with new_head=True"


def in_order(
    source: Published, wanted: Sequence[str], label_map: Mapping[Any, Any] | None
) -> Published:
    """Returns published weights with the classifier's outputs in the order of the data's classes.

    Names are the contract between a classifier and the data, not numbers: two sound folders of one
    model may number its classes differently.

    Args:
      source: as it was opened.
      wanted: [K] the data's classes.
      label_map: published class, by name or number -> one of `wanted`, or None for one that the
        data doesn't have. None: equal names, upper and lower case alike; classes that nobody named
        (LABEL_0, ...) go by number, with a warning.

    Returns:
      The weights; unchanged where another number of classes asks for a new classifier.

    Raises:
      ValueError: if as many classes have other names, or the map names no class or leaves one out.
    """
    total = _outputs(source)
    if label_map is not None:
        if total is None:
            raise ValueError(f"{source.owner} has no classifier, so label_map maps nothing")
        return _select(source, _mapped(source, total, wanted, label_map))
    # Another number of classes, or no classifier: it is made anew, and nothing is to be ordered.
    if total != len(wanted):
        return source
    found = source.class_names
    if found is None or are_unnamed(found):
        log.warning(
            "%s doesn't name its classes: they are taken in the order %s; if that is wrong, %s",
            source.owner,
            listed(wanted),
            HINT,
        )
        return source
    if (order := match_names(found, wanted)) is not None:
        return _select(source, order)
    raise ValueError(
        f"{source.owner} has a classifier of {listed(found)}, the data has {listed(wanted)}; {HINT}"
    )


def are_unnamed(names: Sequence[str]) -> bool:
    """Tells whether nobody named the outputs of a classifier."""
    return all(UNNAMED.fullmatch(name) for name in names)


def match_names(found: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Returns the position in `found` of each of the names [K] that are wanted.

    Upper and lower case are alike where no two differ by it alone; None where they are other names.
    """
    # Exact names first, for data whose classes differ by upper and lower case alone.
    for fold in (str, str.casefold):
        ours, theirs = [fold(name) for name in wanted], [fold(name) for name in found]
        if sorted(ours) == sorted(theirs) and len(set(ours)) == len(ours):
            return [theirs.index(name) for name in ours]
    return None


def _mapped(
    source: Published, total: int, wanted: Sequence[str], label_map: Mapping[Any, Any]
) -> list[int]:
    """Returns, for each class of the data, the output that a map gives it."""
    names = [*(source.class_names or map(str, range(total)))]
    given = {str(key): target for key, target in label_map.items()}
    # Names come first: a class may be called by a number that isn't its own.
    if not given.keys() & {*names}:
        numbered = {str(number): name for number, name in enumerate(names)}
        given = {numbered.get(key, key): target for key, target in given.items()}
    if unknown := [key for key in given if key not in names]:
        raise ValueError(
            f"label_map names {listed(unknown)}; {source.owner} has the classes {listed(names)}"
        )
    if missing := [name for name in names if name not in given]:
        raise ValueError(
            f"label_map misses {listed(missing)}; give None for a class that the data doesn't have"
        )
    targets = [None if target is None else str(target) for target in given.values()]
    if unknown := sorted({target for target in targets if target is not None} - {*wanted}):
        raise ValueError(
            f"label_map asks for {listed(unknown)}; the data has the classes {listed(wanted)}"
        )
    outputs = {name: [key for key in given if str(given[key]) == name] for name in wanted}
    # Sorted, so that one class with two outputs is named before another that has none for it.
    for name, keys in sorted(outputs.items(), key=lambda each: -len(each[1])):
        if len(keys) != 1:
            problem = f"gives {listed(keys)} to" if keys else "gives nothing to"
            raise ValueError(f"label_map {problem} the class {name!r}; each needs one of {names}")
    return [names.index(keys[0]) for keys in outputs.values()]


def _select(source: Published, order: Sequence[int]) -> Published:
    """Returns the weights with these outputs of every classifier, in this order."""
    if list(order) == [*range(_outputs(source) or 0)]:
        return source
    own = isinstance(source.layout, weight_format.Own)
    tensors = dict(source.tensors)
    for head in (head for head in source.layout.heads if head.endswith("classifier")):
        for leaf in ("kernel", "bias"):
            (name,) = source.layout.sources(f"params/{head}/{leaf}")
            if name in tensors:
                # PyTorch keeps outputs first, we last.
                tensors[name] = np.take(tensors[name], order, axis=-1 if own else 0)
    log.info("%s: its classes are brought into the data's order", source.owner)
    return replace(source, tensors=tensors, num_classes=len(order))


def _outputs(source: Published) -> int | None:
    """Returns how many classes the classifier has; None where there is none."""
    for head in (head for head in source.layout.heads if head.endswith("classifier")):
        kernel = source.tensors.get(source.layout.sources(f"params/{head}/kernel")[0])
        if kernel is not None:
            return kernel.shape[-1 if isinstance(source.layout, weight_format.Own) else 0]
    return None


def listed(names: Sequence[str]) -> str:
    """Returns names for a message, the first ten of them."""
    shown = ", ".join(map(repr, names[:10]))
    return shown if len(names) <= 10 else f"{shown}, ... ({len(names)})"
