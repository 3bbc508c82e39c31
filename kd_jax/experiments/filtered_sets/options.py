"""The config's section `trusted_sets`, checked before anything runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_jax.config.names import TRAIN
from kd_jax.core.options import check_keys, is_number, is_whole
from kd_jax.models.weights.open import OWN

OPTIONS = ("judge", "label_errors", "label_share", "folds", "poison", "mode")
MODES = ("drop", "report")


def check(name: str, spec: Mapping[str, Any], models: Mapping[str, Any]) -> None:
    """Checks a section of the config's `trusted_sets`.

    Args:
      name: of the set.
      spec: `judge`, a model of the experiment; `label_errors`, whether rows are doubted whose label
        it finds hard to believe: those that confident learning picks where `label_share` is None,
        else this share of the labelled ones; `folds`, 0 where the judge is asked as it is, because
        it learned from other labels, else from 2 on: into how many parts the rows are divided, each
        judged by a model like it that learned from the other parts; `poison`, the share of each
        class that is doubted for its spectral signature in the judge's `pooled` feature, 1.5 times
        the poison that is feared, or None; `mode`, "drop", or "report" to list the rows and keep
        them.
      models: the experiment's plans, by name.

    Raises:
      ValueError: naming the option and what it may be.
    """
    owner = f"trusted_sets.{name}"
    check_keys(spec, dict.fromkeys(OPTIONS, True), owner)
    if spec["judge"] not in models:
        raise ValueError(
            f"{owner}.judge names {spec['judge']!r}; there are {', '.join(sorted(models))}"
        )
    if spec["mode"] not in MODES:
        raise ValueError(f"{owner}.mode is one of {', '.join(MODES)}, got {spec['mode']!r}")
    if spec["folds"] != 0 and not is_whole(spec["folds"], 2):
        raise ValueError(f"{owner}.folds is 0 or a whole number from 2 on, got {spec['folds']!r}")
    if not isinstance(spec["label_errors"], bool):
        raise ValueError(f"{owner}.label_errors is True or False, got {spec['label_errors']!r}")
    for key in ("label_share", "poison"):
        if not (spec[key] is None or _is_share(spec[key])):
            raise ValueError(
                f"{owner}.{key} is a share above 0 and below 1, or None, got {spec[key]!r}"
            )
    if not spec["label_errors"] and spec["label_share"] is not None:
        raise ValueError(
            f"{owner}.label_share must be None where label_errors is False, got"
            f" {spec['label_share']}"
        )
    if not spec["label_errors"] and spec["poison"] is None:
        raise ValueError(f"{owner} doubts nothing: label_errors is False and poison None")
    if spec["label_errors"] and spec["folds"]:
        _check_folds(f"{owner}.folds", models[spec["judge"]])


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 < value < 1


def _check_folds(owner: str, judge: Any) -> None:
    """A model that judges held-out rows must not have learned of their labels by another way."""
    if not judge.objective:
        raise ValueError(
            f"{owner} must be 0: the judge {judge.name!r} has no objective to learn by"
        )
    folder = Path(str(judge.model.get("pretrained", ""))).expanduser()
    if "pretrained" in judge.model and any((folder / name).is_file() for name in OWN):
        raise ValueError(
            f"{owner}: the judge {judge.name!r} starts from {folder}, a model that was trained on"
            f" examples with labels,"
            " maybe these; name one that starts at random or from published weights"
        )
    if judge.teachers or judge.peers or judge.data != (TRAIN,) or judge.start is not None:
        raise ValueError(
            f"{owner}: the judge {judge.name!r} has teachers, peers, another model's weights or"
            f" data of its own, and so"
            " may know the labels of rows held out; name a model that learns from the training"
            " split alone"
        )
