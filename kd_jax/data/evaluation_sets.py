"""Opens the further datasets that a run's models are evaluated on.

They are other sources of the same classes, and corrupted copies of the evaluation images.
"""

import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kd_jax.data import label_map, subsets
from kd_jax.data.corruption import Corruption, make_corruption
from kd_jax.data.open import open_source
from kd_jax.data.source import Source
from kd_jax.tasks import CLASSIFICATION, Task

log = logging.getLogger("kd_jax")

OPENED_BY = ("name", "dir", "evaluation", "inputs", "label", "max_rejected")
"""Options that an evaluation takes from the config's `data` unless its own section gives them."""


@dataclass(frozen=True)
class Evaluation:
    """A dataset to evaluate on, its labels in the experiment's classes.

    Attributes:
      source: the rows that count, images not yet corrupted.
      rows: [N] their positions in the split.
      left_out: how many rows of the split have no class of the experiment.
      corruption: what is done to its images, or None.
    """

    source: Source
    rows: np.ndarray = field(repr=False)
    left_out: int
    corruption: Corruption | None

    def open(self) -> Source:
        """Returns the source as models see it.

        Corrupted images are made on each call and not kept, so that few copies are in memory.
        """
        return (
            self.source
            if self.corruption is None
            else subsets.corrupt(self.source, self.corruption, self.rows)
        )


def expand(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Splits sections whose corruption lists several kinds or severities into one section each.

    Args:
      sections: the config's `evaluations`. `corruption.kind` and `.severity` may be lists; each
        combination is then a dataset of its own, `<name>_<kind>_<severity>`.

    Raises:
      ValueError: for a malformed corruption, two ways of mapping labels, or a name that occurs
        twice.
    """
    expanded: dict[str, dict[str, Any]] = {}
    for name, section in sections.items():
        if section.get("label_map") is not None and section.get("label_ranges") is not None:
            raise ValueError(f"evaluations.{name} has both label_map and label_ranges; give it one")
        for inner, part in _of_each_corruption(name, section).items():
            if inner in expanded:
                raise ValueError(f"evaluations has two datasets named {inner!r}")
            expanded[inner] = part
    return expanded


def _of_each_corruption(name: str, section: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    spec, owner = section.get("corruption"), f"evaluations.{name}.corruption"
    lists = {
        key: list(value) for key, value in (spec or {}).items() if isinstance(value, list | tuple)
    }
    parts = {}
    # Without lists the product is one empty combination: the section itself, under its own name.
    for values in itertools.product(*lists.values()):
        one = None if spec is None else dict(spec) | dict(zip(lists, values, strict=True))
        made = None if one is None else make_corruption(one, owner)
        inner = f"{name}_{made.kind}_{made.severity}" if lists and made else name
        parts[inner] = dict(section) | ({} if one is None else {"corruption": one})
    if not parts:
        raise ValueError(f"{owner} has an empty list")
    return parts


def open_evaluations(
    data: Mapping[str, Any],
    sections: Mapping[str, Mapping[str, Any]],
    trained_on: Source,
    task: Task = CLASSIFICATION,
) -> dict[str, Evaluation]:
    """Opens every further dataset and gives its rows the experiment's classes.

    Args:
      data: the config's `data`.
      sections: the config's `evaluations`: name -> what differs from `data` (None: nothing), and
        `label_map`, `label_ranges` (see `kd_jax.data.label_map`) and `corruption`.
      trained_on: the training split.
      task: how labels are read.

    Returns:
      Name -> dataset, after `expand`. Corruptions of one dataset share it.

    Raises:
      ValueError: for a dataset that doesn't exist, holds something else than the training data, has
        other classes and no map, or has no row left.
    """
    opened: dict[str, tuple[Source, np.ndarray, int]] = {}
    found: dict[str, Evaluation] = {}
    for name, section in expand(sections).items():
        own = {key: value for key, value in section.items() if value is not None}
        spec, owner = own.pop("corruption", None), f"evaluations.{name}"
        # Fifteen corruptions of one dataset differ only in `corruption`; without it their key is
        # equal and the dataset is read once.
        key = repr(own)
        if key not in opened:
            options = {option: own.get(option, data[option]) for option in OPENED_BY}
            # Another file of the data has its columns; another dataset has its own.
            header = None if "name" in own else data.get("header")
            options["header"] = None if header is None else tuple(header)
            if not task.one_class:
                options["class_names"] = trained_on.class_names
            try:
                source = open_source(split=options.pop("evaluation"), **options, task=task)
            except ValueError as error:
                raise ValueError(f"{owner}: {error}") from error
            opened[key] = (
                _fit(owner, source, own, trained_on)
                if task.one_class
                else _same_outputs(owner, source, trained_on, task)
            )
        source, rows, left_out = opened[key]
        if spec is not None and source.modality != "image":
            raise ValueError(
                f"{owner}.corruption is for images; {source.name!r} holds {source.modality}"
            )
        # Prepared views are kept under the source's name, and two evaluations may share a split.
        source = replace(source, name=f"{source.name} ({name})")
        made = None if spec is None else make_corruption(spec, f"{owner}.corruption")
        found[name] = Evaluation(source, rows, left_out, made)
    return found


def _same_outputs(
    owner: str, source: Source, trained_on: Source, task: Task
) -> tuple[Source, np.ndarray, int]:
    """Returns the labelled rows as models learn them, their positions, and how many have none."""
    _check_inputs(owner, source, trained_on)
    if source.class_names != trained_on.class_names:
        raise ValueError(
            f"{owner}: {source.name!r} has labels of {', '.join(source.class_names)}, the training"
            f" data of {', '.join(trained_on.class_names)}"
        )
    rows = np.flatnonzero(source.labelled)
    if not len(rows):
        raise ValueError(f"{owner}: none of the rows of {source.name!r} has a label")
    labels = task.as_targets(source.labels[rows])
    return (
        subsets.relabel(source, rows, labels, source.class_names),
        rows,
        len(source) - len(rows),
    )


def _fit(
    owner: str, source: Source, section: Mapping[str, Any], trained_on: Source
) -> tuple[Source, np.ndarray, int]:
    """Returns the rows with a class of the experiment, their positions, and how many have none."""
    _check_inputs(owner, source, trained_on)
    found, wanted = source.class_names, trained_on.class_names
    if "label_map" in section:
        numbers = label_map.map_classes(found, wanted, section["label_map"], owner)
    elif "label_ranges" in section:
        numbers = label_map.map_ranges(found, wanted, section["label_ranges"], owner)
    else:
        numbers = label_map.match_classes(found, wanted, owner)
    # Rows without a label have number -1, which indexes the last entry: they are left out too.
    labels = np.append(numbers, np.int32(label_map.LEFT_OUT))[source.labels]
    rows = np.flatnonzero(labels >= 0)
    left_out = len(source) - len(rows)
    if not len(rows):
        raise ValueError(
            f"{owner}: none of the {len(source)} rows of {source.name!r} has a class of the"
            f" experiment"
        )
    if left_out:
        log.info(
            "%s: %d of %d rows have no class of the experiment and are left out",
            owner,
            left_out,
            len(source),
        )
    return subsets.relabel(source, rows, labels[rows], wanted), rows, left_out


def _check_inputs(owner: str, source: Source, trained_on: Source) -> None:
    ours, theirs = _kind(source), _kind(trained_on)
    if ours != theirs:
        raise ValueError(f"{owner}: {source.name!r} holds {ours}, the training data {theirs}")
    if source.modality == "image":
        # Grey and colour convert into each other; other numbers of channels have no agreed meaning.
        channels = source.inputs[0].shape[-1], trained_on.inputs[0].shape[-1]
        if len({*channels}) == 2 and {*channels} != {1, 3}:
            raise ValueError(
                f"{owner}: images of {channels[0]} channels can't be turned into {channels[1]}"
            )


def _kind(source: Source) -> str:
    if source.modality == "image":
        return "images"
    return "pairs of texts" if isinstance(source.inputs[0], tuple) else "texts"
