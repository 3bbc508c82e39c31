"""The config's section `transfer_sets`, checked before anything runs."""

from collections.abc import Mapping
from typing import Any

from kd_jax.core.options import check_keys, is_number, is_whole
from kd_jax.experiments.transfer_sets.generate import check_source

OPTIONS = {"base": False} | dict.fromkeys(
    (
        "teacher",
        "source",
        "labels",
        "temperature",
        "confidence",
        "per_class",
        "near_duplicate",
        "max_overlap",
    ),
    True,
)
"""Option -> whether it is required."""


def check(name: str, spec: Mapping[str, Any], models: Mapping[str, Any]) -> None:
    """Checks a section of the config's `transfer_sets`.

    Args:
      name: of the set.
      spec: `teacher`, a model of the experiment; `source`, see
        `kd_jax.experiments.transfer_sets.generate`; `base`, the trusted set that takes the training
        split's place in it, or "train", the default; `labels`, "soft", its probabilities at
        `temperature`, or "hard", the likeliest class; `confidence` and `per_class` as in
        `selection.choose`; `near_duplicate`, a Jaccard index (0: only equal texts repeat one
        another), and `max_overlap` as in `selection.sift`.
      models: the experiment's.

    Raises:
      ValueError: naming the option and what it may be.
    """
    owner = f"transfer_sets.{name}"
    check_keys(spec, OPTIONS, owner)
    try:
        check_source(spec["source"])
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None
    if spec["teacher"] not in models:
        raise ValueError(
            f"{owner}.teacher names {spec['teacher']!r}; there are {', '.join(sorted(models))}"
        )
    if spec["labels"] not in ("soft", "hard"):
        raise ValueError(f"{owner}.labels is 'soft' or 'hard', got {spec['labels']!r}")
    if not (is_number(spec["temperature"]) and spec["temperature"] > 0):
        raise ValueError(f"{owner}.temperature must be positive, got {spec['temperature']}")
    for key in ("confidence", "near_duplicate", "max_overlap"):
        if not (is_number(spec[key]) and 0 <= spec[key] <= 1):
            raise ValueError(f"{owner}.{key} lies between 0 and 1, got {spec[key]}")
    if spec["per_class"] is not None and not is_whole(spec["per_class"], 1):
        raise ValueError(
            f"{owner}.per_class must be None or a whole number from 1 on, got {spec['per_class']!r}"
        )
