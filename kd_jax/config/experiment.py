"""Describes an experiment: a teacher, a student, the fair baseline, and defaults for the rest."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from kd_jax.config.defaults import (
    DATASETS,
    HARD,
    IMAGE_VIEW,
    NAMED_SPLITS,
    OWN_SPLITS,
    TEXT_VIEW,
    soft_targets,
)
from kd_jax.config.fill import fill

TABLES = (".csv", ".tsv", ".jsonl")
TASK = ("task", "primary")


def experiment(
    name: str,
    *,
    data: str | Mapping[str, Any] | None = None,
    view: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    teacher: Mapping[str, Any] | None = None,
    student: Mapping[str, Any] | None = None,
    models: Mapping[str, Any] | None = None,
    start: str | None = None,
    **more: Any,
) -> ConfigDict:
    """Returns the config of an experiment, every key filled in.

    A baseline is added, the student without its teachers, so that the gain of distillation is
    measured against the same model trained as long.

    Args:
      name: of the experiment.
      data: a dataset's name, or a file or folder of your own; or `dict(name=..., train=...,
        selection=..., evaluation=..., inputs=..., label=...)`. What is left out of a known dataset
        (`defaults.DATASETS`) is known; the splits of others are cut from "train".
      view: how models see an example: `dict(tokenizer=..., max_length=...)` for text,
        `dict(size=..., channels=..., mean=..., std=...)` for images.
      training: batch size, epochs, optimizer, schedule, ...
      teacher: `dict(model=..., objective=..., training=..., ...)`. Without an objective it learns
        from the labels, unless its model is pretrained: then it is used as it is.
      student: likewise. Without `teachers` it learns from the teacher, without an objective by 0.1
        cross-entropy and 0.9 soft targets at temperature 4.
      models: further models by name; they may also take the place of "baseline".
      start: another config's file or name, whose task and data, view, training, teacher, student,
        evaluations and checkpoint sections are taken where they aren't given here.
      **more: further sections: task, seed, dtype, compare, evaluations, parallel, checkpoint,
        logging, transfer_sets, trusted_sets.

    Raises:
      ValueError: if there are no data or no student.
    """
    if start is not None:
        # What isn't given here is as in the other config.
        begun: dict[str, Any] = _begin(start)
        data = begun["data"] if data is None else data
        view = begun["view"] if view is None else view
        training = begun["training"] if training is None else training
        # A copy, as the other config's sections are changed below.
        student = dict(begun["models"]["student"] if student is None else student)
        named = {*student.get("teachers", ("teacher",))}
        named |= {name for each in (models or {}).values() for name in each.get("teachers", ())}
        # The other config's teacher comes along only where somebody learns from it.
        if teacher is None and "teacher" in named and "teacher" not in (models or {}):
            teacher = begun["models"].get("teacher")
        taken = ("evaluations", "checkpoint") + (() if "task" in more else TASK)
        more = {key: begun[key] for key in taken} | more
    if data is None:
        raise ValueError("an experiment needs data: a dataset's name, a file or a folder")
    described = _data(data)
    # A known dataset has a view of its own; for others the kind of data decides.
    if view is None:
        known = DATASETS.get(described["name"], {})
        usual = TEXT_VIEW if _is_table(described["name"]) else IMAGE_VIEW
        view = dict(known.get("view", usual))
    # A view with a tokenizer reads texts, so it tells the kind of data.
    described.setdefault("inputs", "text" if "tokenizer" in view else "image")
    all_models = _models(teacher, student, models)
    config = fill(
        {
            "name": name,
            "data": described,
            "view": dict(view),
            "training": dict(training or {}),
            "models": all_models,
            **more,
        }
    )
    return ConfigDict(config)


def _begin(start: str) -> dict[str, Any]:
    """Reads another config as its file gives it, before its models inherit."""
    # Imported here, since only a config with `start` has to read another one.
    from kd_jax.config.load import call_config, find_config

    return call_config(find_config(start), "").to_dict()


def _data(data: str | Mapping[str, Any]) -> dict[str, Any]:
    described = {"name": data} if isinstance(data, str) else dict(data)
    name = str(described.get("name", ""))
    # Whatever looks like a path is meant as one, even where no such file exists.
    own = _is_table(name) or name.startswith((".", "/", "~")) or Path(name).is_dir()
    if name in DATASETS:
        return DATASETS[name]["data"] | described
    # Splits that the user gives are not completed by ours, which could overlap with them.
    if not described.keys() & OWN_SPLITS.keys():
        described |= OWN_SPLITS if own else NAMED_SPLITS
    elif not own:
        described.setdefault("evaluation", NAMED_SPLITS["evaluation"])
    return described


def _is_table(name: str) -> bool:
    return Path(str(name)).suffix.lower() in TABLES


def _models(
    teacher: Mapping[str, Any] | None,
    student: Mapping[str, Any] | None,
    models: Mapping[str, Any] | None,
) -> dict[str, Any]:
    # Copied deeply, because users often share one dict between several models.
    found: dict[str, Any] = copy.deepcopy(dict(models or {}))
    if teacher is not None:
        found["teacher"] = copy.deepcopy(dict(teacher))
        model = found["teacher"].get("model", {})
        # A model with weights is used as it is; all others have to learn from something.
        if not (
            {"pretrained", "members", "outputs"} & model.keys() or found["teacher"].get("restore")
        ):
            found["teacher"].setdefault("objective", copy.deepcopy(HARD))
    if student is not None:
        found["student"] = copy.deepcopy(dict(student))
        found["student"].setdefault("teachers", ("teacher",) if "teacher" in found else ())
        taught = bool(found["student"]["teachers"])
        found["student"].setdefault("objective", soft_targets() if taught else copy.deepcopy(HARD))
    if "student" not in found:
        raise ValueError("an experiment needs a student: student=dict(model=dict(name=...), ...)")
    # Without a baseline nobody could tell what the teacher's part in the accuracy is.
    if "baseline" not in found:
        found["baseline"] = baseline(found["student"])
    return found


def baseline(student: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Returns the fair baseline's section: the student without teachers, from labels alone."""
    section: dict[str, Any] = dict(like="student", teachers=(), objective=copy.deepcopy(HARD))
    # What the student takes from a teacher in other ways must go as well.
    section |= {"cached": ()} if "cached" in student else {}
    section |= {"cached_as": None} if "cached_as" in student else {}
    section |= {"condition": None} if "condition" in student else {}
    return section | changes
