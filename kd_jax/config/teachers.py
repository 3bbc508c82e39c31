"""Checks what a model's section names beside its frozen teachers.

Its own moving average, the peers that are trained with it, the members of an ensemble, the teacher
that it is conditioned on. Keys and single values are checked by `kd_jax.config.schema`."""

from collections.abc import Mapping, Sequence
from typing import Any

from kd_jax.config.names import TRAIN

EMA = "ema:"
"""Before a model's own name among its teachers: its moving average."""

PEER = "peer:"
"""Before another model's name among a model's teachers: that model as it is in the same step of
  training."""

SHARED = ("batch_size", "epochs", "accumulate", "mixing", "patience", "augmented_epochs")
"""What the `training` sections of peers must agree in, since they share batches and steps."""

ENSEMBLE = "ensemble"
"""Name of a model that is made of others."""


def check_average(name: str, section: Mapping[str, Any]) -> float | None:
    """Returns the decay of the moving average that a model names among its teachers, or None.

    Raises:
      ValueError: for another model's average, or a decay without a teacher that needs it.
    """
    ema, own = section.get("ema"), f"{EMA}{name}"
    averages = [teacher for teacher in section.get("teachers", ()) if teacher.startswith(EMA)]
    # Another model's average changes with that model, so it could not be read at a fixed state.
    if others := [average for average in averages if average != own]:
        raise ValueError(
            f"models.{name}.teachers names {others[0]!r}; of the moving averages there is {own!r}"
        )
    # An average that nobody learns from would only cost memory and time.
    if bool(ema) != bool(averages):
        raise ValueError(f"models.{name}: ema=dict(decay=...) and the teacher {own!r} go together")
    return float(ema["decay"]) if ema else None


def check_condition(
    name: str, section: Mapping[str, Any], teachers: Sequence[str]
) -> dict[str, Any] | None:
    """Returns the `condition` of a model's section, or None.

    Args:
      name: the model's.
      section: its section.
      teachers: its frozen teachers.

    Raises:
      ValueError: for a model that isn't among the teachers, or if the model isn't trained.
    """
    condition = section.get("condition")
    if not condition:
        return None
    owner = f"models.{name}.condition"
    # The map is fitted to a fixed output, which only a frozen teacher has.
    if condition["on"] not in teachers:
        listed = ", ".join(teachers) or "none (condition=None takes none over)"
        raise ValueError(f"{owner}.on names {condition['on']!r}; its frozen teachers are {listed}")
    if not section.get("objective"):
        raise ValueError(f"{owner} is learned in training, and the model has no objective")
    return dict(condition)


def check_peers(
    name: str, section: Mapping[str, Any], sections: Mapping[str, Any]
) -> tuple[str, ...]:
    """Returns the models that a model learns from and that learn from it in the same steps.

    Raises:
      ValueError: for one that is unknown, the model itself, not trained here, doesn't name it back,
        or is trained in other batches or steps.
    """
    named, owner = (
        [teacher for teacher in section.get("teachers", ()) if teacher.startswith(PEER)],
        f"models.{name}",
    )
    peers = tuple(teacher.removeprefix(PEER) for teacher in named)
    # A table is computed once, and a peer's outputs are others in every step.
    if changing := sorted({*named} & {*section.get("cached", ())}):
        raise ValueError(
            f"{owner}.cached names {changing[0]!r}, whose outputs change in every step"
        )
    for peer in peers:
        if peer not in sections or peer == name:
            others = ", ".join(sorted(sections.keys() - {name}))
            raise ValueError(f"{owner}.teachers names {PEER + peer!r}; there are {others}")
        # Both must name each other; else it would depend on the model whether they share steps.
        if PEER + name not in sections[peer].get("teachers", ()):
            raise ValueError(
                f"{owner}.teachers names {PEER + peer!r}; models.{peer}.teachers must name"
                f" {PEER + name!r}"
            )
        # A model that isn't trained here takes no steps that could be shared.
        if sections[peer].get("restore") or not sections[peer].get("objective"):
            raise ValueError(
                f"models.{peer} has a peer, {name!r}: it needs an objective and can't be restored"
            )
        # One loop drives both, so everything that shapes a batch or a step has to agree.
        ours, theirs = (each.get("training", {}) for each in (section, sections[peer]))
        if differing := [key for key in SHARED if ours.get(key) != theirs.get(key)]:
            raise ValueError(
                f"{owner} and its peer {peer!r} differ in training ({', '.join(differing)})"
            )
        if tuple(section.get("data", (TRAIN,))) != tuple(sections[peer].get("data", (TRAIN,))):
            raise ValueError(f"{owner} and its peer {peer!r} differ in data")
        # What is kept of a teacher is kept once for all who learn from it in the same steps.
        kept = [
            {key: value for key, value in (each.get("cached_as") or {}).items() if value}
            for each in (section, sections[peer])
            if each.get("cached")
        ]
        if len(kept) == 2 and kept[0] != kept[1]:
            raise ValueError(f"{owner} and its peer {peer!r} differ in cached_as")
    return peers


def check_members(
    name: str, section: Mapping[str, Any], sections: Mapping[str, Any]
) -> tuple[str, ...]:
    """Returns the models that an ensemble is made of; of another model, none.

    Raises:
      ValueError: for fewer than two, unknown or repeated members, or a section that trains.
    """
    # Only an ensemble has members; for every other model the key is its own business.
    if section["model"].get("name") != ENSEMBLE:
        return ()
    members = section["model"].get("members")
    others = ", ".join(sorted(sections.keys() - {name}))
    listed = isinstance(members, list | tuple) and all(isinstance(each, str) for each in members)
    # A member that is named twice would count twice, which weights say more clearly.
    if not listed or len(set(members)) < max(2, len(members)):
        raise ValueError(
            f"models.{name}.model.members must name two or more different models, got {members!r};"
            f" there are {others}"
        )
    for member in members:
        if member not in sections or member == name:
            raise ValueError(f"models.{name}.model.members names {member!r}; there are {others}")
    # An ensemble has no parameters of its own that could be trained or restored.
    if section.get("objective") or section.get("teachers") or section.get("restore"):
        raise ValueError(
            f"models.{name} is an ensemble: it has no objective, no teachers and nothing to restore"
        )
    return tuple(members)
