"""Maps the classes of one dataset to those of another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kd_jax.tasks.labels import list_names

LEFT_OUT = -1
"""The number of a class that the experiment doesn't have; its rows are not evaluated."""


def match_classes(found: Sequence[str], wanted: Sequence[str], owner: str) -> np.ndarray:
    """Maps classes to those of equal names, which may be in another order.

    Args:
      found: [K'] the dataset's classes.
      wanted: [K] the experiment's classes.
      owner: whose classes they are, for messages.

    Returns:
      [K'] int32, numbers of the experiment's classes.

    Raises:
      ValueError: if the names differ, with both lists.
    """
    if set(found) != set(wanted):
        raise ValueError(
            f"{owner} has the classes {list_names(found)}, the experiment {list_names(wanted)};"
            f" give it a label_map"
        )
    return np.array([wanted.index(name) for name in found], np.int32)


def map_classes(
    found: Sequence[str], wanted: Sequence[str], label_map: Mapping[Any, str | None], owner: str
) -> np.ndarray:
    """Maps classes as a config's `label_map` says.

    Args:
      found: [K'] the dataset's classes.
      wanted: [K] the experiment's classes.
      label_map: the dataset's class -> the experiment's, None to leave it out. If no key is a
        class name and all are integers, they are class numbers.
      owner: whose map it is, for messages.

    Returns:
      [K'] int32, numbers of the experiment's classes or LEFT_OUT.

    Raises:
      ValueError: for a class of the dataset that the map misses, one that the dataset doesn't
        have, or a target that the experiment doesn't have.
    """
    targets = {str(name): target for name, target in label_map.items()}
    # Names come first: where classes are called "1" to "5", a key 1 means that name and not the
    # second class.
    if not targets.keys() & set(found) and targets.keys() <= {
        str(number) for number in range(len(found))
    }:
        targets = {found[int(number)]: target for number, target in targets.items()}
    if missing := [name for name in found if name not in targets]:
        raise ValueError(
            f"{owner}.label_map misses {list_names(missing)}; the dataset has {list_names(found)}"
        )
    if invented := [name for name in targets if name not in found]:
        raise ValueError(
            f"{owner}.label_map names {list_names(invented)}; the dataset has {list_names(found)}"
        )
    return np.array(
        [
            LEFT_OUT
            if targets[name] is None
            else _number(targets[name], wanted, f"{owner}.label_map")
            for name in found
        ],
        np.int32,
    )


def map_ranges(
    found: Sequence[str], wanted: Sequence[str], ranges: Mapping[str, Any], owner: str
) -> np.ndarray:
    """Maps numeric labels, such as ratings, to the classes whose ranges they lie in.

    Args:
      found: [K'] the dataset's labels, each a number.
      wanted: [K] the experiment's classes.
      ranges: the experiment's class -> lowest and highest number of it, both included, None for no
        bound.
      owner: whose ranges they are, for messages.

    Returns:
      [K'] int32, numbers of the experiment's classes, LEFT_OUT for what lies in no range.

    Raises:
      ValueError: for a label that is no number, an unknown class, a malformed range or one that
        overlaps another.
    """
    owner = f"{owner}.label_ranges"
    bounds = {
        _number(name, wanted, owner): _bounds(pair, f"{owner}.{name}")
        for name, pair in ranges.items()
    }
    numbers = []
    for text in found:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{owner} asks for numbers as labels; {text!r} is none") from None
        within = [
            number for number, (lowest, highest) in bounds.items() if lowest <= value <= highest
        ]
        # Ranges include both ends, so neighbours may share a number; that is an error only if the
        # dataset has this number as a label.
        if len(within) > 1:
            raise ValueError(
                f"{owner}: {text} lies in the ranges of {' and '.join(wanted[n] for n in within)}"
            )
        numbers.append(within[0] if within else LEFT_OUT)
    return np.array(numbers, np.int32)


def _number(target: Any, wanted: Sequence[str], owner: str) -> int:
    if str(target) not in wanted:
        raise ValueError(
            f"{owner} asks for class {target!r}; the experiment has {list_names(wanted)}"
        )
    return wanted.index(str(target))


def _bounds(pair: Any, owner: str) -> tuple[float, float]:
    numbers = isinstance(pair, Sequence) and all(
        each is None or isinstance(each, int | float) for each in pair
    )
    if not numbers or len(pair) != 2:
        raise ValueError(
            f"{owner} is a pair of lowest and highest number, None for no bound, got {pair!r}"
        )
    lowest, highest = (
        (-np.inf if pair[0] is None else pair[0]),
        (np.inf if pair[1] is None else pair[1]),
    )
    if lowest > highest:
        raise ValueError(f"{owner} goes from lowest to highest, got {pair!r}")
    return lowest, highest
