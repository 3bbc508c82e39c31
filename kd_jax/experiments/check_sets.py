"""What models learn from: the training split, transfer sets, trusted sets; their sections checked
together."""

from collections.abc import Mapping
from typing import Any

from kd_jax.config.names import TRAIN, TRANSFER, TRUSTED
from kd_jax.experiments.filtered_sets.options import check as check_trusted_set
from kd_jax.experiments.transfer_sets.options import check as check_transfer_set


def check_sets(
    config: Mapping[str, Any], models: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Checks the sets and what models name of them.

    Args:
      config: the experiment's.
      models: its plans, by name.

    Returns:
      The sections of the transfer sets and of the trusted sets, by name.

    Raises:
      ValueError: in one line, naming the set or model, and what there is.
    """
    transfer, trusted = dict(config.get(TRANSFER) or {}), dict(config.get(TRUSTED) or {})
    if both := sorted(transfer.keys() & trusted.keys()):
        raise ValueError(
            f"{TRANSFER} and {TRUSTED} both have a set {both[0]!r}; give each its own name"
        )
    for kind, sets, check in (
        (TRANSFER, transfer, check_transfer_set),
        (TRUSTED, trusted, check_trusted_set),
    ):
        for name, section in sets.items():
            _check_name(kind, name, section)
            check(name, section, models)
    for name, section in transfer.items():
        if (base := section.get("base", TRAIN)) not in (TRAIN, *trusted):
            known = ", ".join((TRAIN, *sorted(trusted)))
            raise ValueError(f"{TRANSFER}.{name}.base names {base!r}; there are {known}")
    for model in models.values():
        _check_data(f"models.{model.name}.data", model.data, transfer, trusted)
    return transfer, trusted


def makers_of(
    transfer: Mapping[str, Any], trusted: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Set's name -> models that must be finished before it is made."""
    makers = {name: (spec["judge"],) for name, spec in trusted.items()}
    return makers | {
        name: (spec["teacher"], *makers.get(spec.get("base", TRAIN), ()))
        for name, spec in transfer.items()
    }


def _check_name(kind: str, name: str, section: Any) -> None:
    if not (name.isascii() and name.isidentifier() and name.islower()) or name == TRAIN:
        raise ValueError(
            f"{kind}.{name}: a set's name is made of small letters, digits and _, and isn't"
            f" {TRAIN!r}"
        )
    if not isinstance(section, Mapping):
        raise ValueError(f"{kind}.{name} must be a section with the set's options, got {section!r}")


def _check_data(
    owner: str, data: tuple[str, ...], transfer: Mapping[str, Any], trusted: Mapping[str, Any]
) -> None:
    known = (TRAIN, *sorted(transfer.keys() | trusted.keys()))
    if not data or len(set(data)) < len(data):
        raise ValueError(f"{owner} names one or more different sets, got {data}")
    if unknown := [name for name in data if name not in known]:
        raise ValueError(f"{owner} names {unknown[0]!r}; there are {', '.join(known)}")
    overlapping = [name for name in data if name == TRAIN or name in trusted]
    if len(overlapping) > 1:
        raise ValueError(
            f"{owner} names {' and '.join(overlapping)}, which share training rows; name one of"
            f" them"
        )
