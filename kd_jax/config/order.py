"""Which models are trained together, and in which order the groups follow each other."""

from collections.abc import Collection, Mapping


def groups_in_order(
    needed: Mapping[str, Collection[str]], peers: Mapping[str, Collection[str]]
) -> list[list[str]]:
    """Groups of models, each after all that any of its members needs; among equals by their first
    names.

    Args:
      needed: every model's name -> models that must be finished before it begins.
      peers: every model's name -> models that it is trained together with.

    Returns:
      Groups of names, each by name; a model without peers is a group of its own.

    Raises:
      ValueError: if models need each other, or their own peers, to be finished first.
    """
    # Every member of a group leads to the same tuple, and as a key it is there only once.
    waiting = {tuple(_reached(name, peers)): None for name in sorted(needed)}
    ordered: list[list[str]] = []
    finished: set[str] = set()
    while waiting:
        # The first that is ready, so that the order depends on names alone and never changes.
        ready = next(
            (group for group in waiting if finished.issuperset(_needs(group, needed))), None
        )
        # Something waits and nothing is ready: whoever is left waits for itself.
        if ready is None:
            stuck = ", ".join(sorted(needed.keys() - finished))
            raise ValueError(
                f"models.{stuck}: their teachers, or the models they start from, form a circle"
            )
        del waiting[ready]
        ordered.append(list(ready))
        finished |= {*ready}
    return ordered


def _needs(group: Collection[str], needed: Mapping[str, Collection[str]]) -> set[str]:
    return {need for name in group for need in needed[name]}


def _reached(name: str, peers: Mapping[str, Collection[str]]) -> list[str]:
    """Collects a model, its peers, theirs, and so on, by name."""
    found, new = set(), {name}
    # A peer's peers share the same steps too, so they belong to the group.
    while new:
        found |= new
        new = {peer for member in new for peer in peers[member]} - found
    return sorted(found)
