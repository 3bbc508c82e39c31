"""Keeps what another config trained in a folder and ours would train again just so."""

import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_jax.config.hashing import identity
from kd_jax.config.load import with_tuples
from kd_jax.config.names import LABELLED, TRAIN, TRANSFER, TRUSTED
from kd_jax.config.schema import Plan
from kd_jax.experiments.plan import make_plan

log = logging.getLogger("kd_jax")

REPLACED = "replaced"
"""Folder of a run that holds what was moved away; nothing of it is read again."""

SHARED = ("seed", "data", "task", "checkpoint")
"""Sections that every model depends on."""


def set_aside(folder: Path, stored: Mapping[str, Any], plan: Plan) -> None:
    """Moves away, into a folder `replaced`, what another config made that ours makes otherwise.

    A model stays if its own section, its sets and its teachers, theirs included, are unchanged.

    Args:
      folder: the run's.
      stored: the config that it belongs to.
      plan: ours.

    Raises:
      ValueError: if a key differs that every model depends on.
    """
    # What is moved away below could not be taken over any more.
    for name, spec in plan.transfer_sets.items():
        place = Path(spec.get("restore") or "").expanduser().resolve()
        if folder.resolve() in place.parents:
            raise ValueError(
                f"{TRANSFER}.{name}.restore names a set of {folder} itself; leave it out, and what"
                " is unchanged is kept"
            )
    old = make_plan(with_tuples(stored))
    before, now = identity(old.config), identity(plan.config)
    shared = [
        path
        for path in sorted(before.keys() | now.keys())
        if path.partition(".")[0] in SHARED and before.get(path, ...) != now.get(path, ...)
    ]
    # Checkpoints are chosen by it; that of the task may be spelled out or not.
    if old.task.primary != plan.task.primary:
        shared.append("primary")
    if shared:
        raise ValueError(
            f"--reuse keeps nothing in {folder}: {', '.join(shared)} differ, on which every model"
            f" depends; give another --workdir"
        )
    same = _unchanged(_parts(old), _parts(plan))
    names = list(dict.fromkeys(model.name for model in (*old.models, *plan.models)))
    kept = [name for name in names if name in same]
    changed = [folder / name for name in names if name not in kept]
    changed += [
        folder / kind / name
        for kind in (TRANSFER, TRUSTED)
        for name in _sets(old)[kind]
        if name not in same
    ]
    # Results and plots are of all models together.
    _move(folder, [*changed, folder / "results.json"])
    again = [name for name in names if name not in kept]
    log.info(
        "kept: %s; to be made anew: %s", ", ".join(kept) or "nothing", ", ".join(again) or "nothing"
    )


def _sets(plan: Plan) -> dict[str, Mapping[str, Any]]:
    return {TRANSFER: plan.transfer_sets, TRUSTED: plan.trusted_sets}


def _parts(plan: Plan) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Returns, by name of each model and set, what it is made by, and the names of what it is
    made of."""
    parts: dict[str, tuple[Any, tuple[str, ...]]] = {}
    for kind, key in ((TRANSFER, "teacher"), (TRUSTED, "judge")):
        for name, spec in _sets(plan)[kind].items():
            base = spec.get("base", TRAIN)
            parts[name] = spec, (spec[key], *(() if base == TRAIN else (base,)))
    for group in plan.groups:
        for model in group:
            # Peers are trained together, so a change of one is a change of all.
            needed = [*model.teachers, *model.members, *(each.name for each in group)]
            needed += [name for name in model.data if name not in (TRAIN, LABELLED)]
            needed += model.starts
            parts[model.name] = model, tuple(needed)
    return parts


def _unchanged(
    old: Mapping[str, tuple[Any, tuple[str, ...]]], new: Mapping[str, tuple[Any, tuple[str, ...]]]
) -> set[str]:
    """Returns the models and sets that two plans make alike, with all that they are made of."""
    same = {name for name in new if name in old and old[name] == new[name]}
    # Again and again until nothing falls out, since peers need one another.
    while fallen := {name for name in same if not same.issuperset(new[name][1])}:
        same -= fallen
    return same


def _move(folder: Path, paths: list[Path]) -> None:
    places = (folder / REPLACED / str(number) for number in itertools.count(1))
    target = next(place for place in places if not place.exists())
    for path in paths:
        if path.exists():
            to = target / path.relative_to(folder)
            to.parent.mkdir(parents=True, exist_ok=True)
            path.replace(to)
