"""Whom a model's section names beside its frozen teachers.

Its own moving average, the peers that are trained with it, the members it is made of, whom it is
conditioned on."""

from collections.abc import Mapping, Sequence
from typing import Any

from kd_jax.config.names import TRAIN
from kd_jax.core.options import check_keys

EMA = "ema:"
"""Before a model's own name among its teachers: its moving average."""

PEER = "peer:"
"""Before another model's name among a model's teachers: that model as it is in the same step of
  training."""

SHARED = ("batch_size", "epochs", "accumulate", "mixing")
"""What the `training` sections of peers must agree in, since they share batches and steps."""

ENSEMBLE = "ensemble"
"""Name of a model that is made of others."""


def own_average(name: str, section: Mapping[str, Any]) -> float | None:
    """The decay of the moving average that a model names among its teachers; None where it names
    none.

    Raises:
      ValueError: for another model's average, a decay without a teacher that needs it, or out of
        (0, 1).
    """
    ema, own = section.get("ema"), f"{EMA}{name}"
    averages = [teacher for teacher in section.get("teachers", ()) if teacher.startswith(EMA)]
    if others := [average for average in averages if average != own]:
        raise ValueError(
            f"models.{name}.teachers names {others[0]!r}; of the moving averages there is {own!r}"
        )
    if bool(ema) != bool(averages):
        raise ValueError(f"models.{name}: ema=dict(decay=...) and the teacher {own!r} go together")
    if not ema:
        return None
    check_keys(ema, {"decay": True}, f"models.{name}.ema")
    if not 0 < ema["decay"] < 1:
        raise ValueError(f"models.{name}.ema.decay must be between 0 and 1, got {ema['decay']}")
    return float(ema["decay"])


def condition_of(
    name: str, section: Mapping[str, Any], teachers: Sequence[str]
) -> dict[str, Any] | None:
    """The checked `condition` of a model's section, or None.

    Args:
      name: the model's.
      section: its section.
      teachers: its frozen teachers.

    Raises:
      ValueError: for unknown or missing options, a model that isn't among the teachers, a `drop`
        out of [0, 1), or a model that isn't trained.
    """
    condition = section.get("condition")
    if not condition:
        return None
    owner = f"models.{name}.condition"
    check_keys(condition, dict.fromkeys(("on", "output", "map", "drop"), True), owner)
    if condition["on"] not in teachers:
        listed = ", ".join(teachers) or "none (condition=None takes none over)"
        raise ValueError(f"{owner}.on names {condition['on']!r}; its frozen teachers are {listed}")
    drop = condition["drop"]
    if isinstance(drop, bool) or not isinstance(drop, int | float) or not 0 <= drop < 1:
        raise ValueError(f"{owner}.drop is a probability in [0, 1), got {drop!r}")
    if not section.get("objective"):
        raise ValueError(f"{owner} is learned in training, and the model has no objective")
    return dict(condition)


def peers_of(name: str, section: Mapping[str, Any], sections: Mapping[str, Any]) -> tuple[str, ...]:
    """The models that a model and they learn from each other, while all of them are trained.

    Raises:
      ValueError: for one that is unknown, the model itself, not trained here, doesn't name it back,
        or is trained in other batches or steps.
    """
    named, owner = (
        [teacher for teacher in section.get("teachers", ()) if teacher.startswith(PEER)],
        f"models.{name}",
    )
    peers = tuple(teacher.removeprefix(PEER) for teacher in named)
    if changing := sorted({*named} & {*section.get("cached", ())}):
        raise ValueError(
            f"{owner}.cached names {changing[0]!r}, whose outputs change in every step"
        )
    for peer in peers:
        if peer not in sections or peer == name:
            others = ", ".join(sorted(sections.keys() - {name}))
            raise ValueError(f"{owner}.teachers names {PEER + peer!r}; there are {others}")
        if PEER + name not in sections[peer].get("teachers", ()):
            raise ValueError(
                f"{owner}.teachers names {PEER + peer!r}; models.{peer}.teachers must name"
                f" {PEER + name!r}"
            )
        if sections[peer].get("restore") or not sections[peer].get("objective"):
            raise ValueError(
                f"models.{peer} has a peer, {name!r}: it needs an objective and can't be restored"
            )
        ours, theirs = (each.get("training", {}) for each in (section, sections[peer]))
        if differing := [key for key in SHARED if ours.get(key) != theirs.get(key)]:
            raise ValueError(
                f"{owner} and its peer {peer!r} differ in training ({', '.join(differing)})"
            )
        if tuple(section.get("data", (TRAIN,))) != tuple(sections[peer].get("data", (TRAIN,))):
            raise ValueError(f"{owner} and its peer {peer!r} differ in data")
    return peers


def members_of(
    name: str, section: Mapping[str, Any], sections: Mapping[str, Any]
) -> tuple[str, ...]:
    """Of an ensemble, the models it is made of; of anything else, none.

    Raises:
      ValueError: for fewer than two, unknown or repeated members, or a section that trains.
    """
    if section["model"].get("name") != ENSEMBLE:
        return ()
    members = tuple(section["model"].get("members", ()))
    others = ", ".join(sorted(sections.keys() - {name}))
    if len(set(members)) < 2 or len(set(members)) < len(members):
        raise ValueError(
            f"models.{name}.model.members must name two or more different models; there are"
            f" {others}"
        )
    for member in members:
        if member not in sections or member == name:
            raise ValueError(f"models.{name}.model.members names {member!r}; there are {others}")
    if section.get("objective") or section.get("teachers") or section.get("restore"):
        raise ValueError(
            f"models.{name} is an ensemble: it has no objective, no teachers and nothing to restore"
        )
    return members
