"""The config's section `transfer_sets`, checked before anything runs."""

from collections.abc import Mapping
from typing import Any

from kd_jax.data.union import TRAIN
from kd_jax.options import check_keys

OPTIONS = ("teacher", "source", "labels", "temperature", "confidence", "per_class", "near_duplicate", "max_overlap")


def check(name: str, spec: Mapping[str, Any], models: Mapping[str, Any]) -> None:
    """Checks a section of the config's `transfer_sets`.

    Args:
      name: of the set; it also names a TFDS dataset.
      spec: `teacher`, a model of the experiment; `source`, see `kd_jax.transfer.candidates`; `labels`, "soft", its
        probabilities at `temperature`, or "hard", the likeliest class; `confidence` and `per_class` as in
        `selection.choose`; `near_duplicate`, a Jaccard index (0: only equal texts repeat one another), and
        `max_overlap` as in `selection.sift`.
      models: the experiment's.

    Raises:
      ValueError: naming the option and what it may be.
    """
    owner = f"transfer_sets.{name}"
    check_keys(spec, dict.fromkeys(OPTIONS, True), owner)
    if not (name.isascii() and name.isidentifier() and name.islower()) or name == TRAIN:
        raise ValueError(f"{owner}: a set's name is made of small letters, digits and _, and isn't {TRAIN!r}")
    if spec["teacher"] not in models:
        raise ValueError(f"{owner}.teacher names {spec['teacher']!r}; there are {', '.join(sorted(models))}")
    if spec["labels"] not in ("soft", "hard"):
        raise ValueError(f"{owner}.labels is 'soft' or 'hard', got {spec['labels']!r}")
    if not spec["temperature"] > 0:
        raise ValueError(f"{owner}.temperature must be positive, got {spec['temperature']}")
    for key in ("confidence", "near_duplicate", "max_overlap"):
        if not 0 <= spec[key] <= 1:
            raise ValueError(f"{owner}.{key} lies between 0 and 1, got {spec[key]}")
    count = spec["per_class"]
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ValueError(f"{owner}.per_class must be None or a whole number from 1 on, got {count}")
