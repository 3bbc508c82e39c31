"""The teachers of one student as its training step reads them: live, or looked up in a table
computed before."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from kd_jax.core.types import Batch, ModelOutput, Teacher
from kd_jax.data.source import Source
from kd_jax.teachers import cache
from kd_jax.training.context import RunContext
from kd_jax.training.trained_model import TrainedModel

log = logging.getLogger("kd_jax")


@dataclass(frozen=True)
class FrozenTeachers:
    """Teachers that no gradient reaches and no checkpoint holds.

    Attributes:
      teachers: name -> variables in the dtype they are computed in, or a table of stored outputs,
        and how they are applied.
      views: what the live ones read of a batch.
      view_names: name -> the view that its outputs are of.
    """

    teachers: Mapping[str, Teacher]
    views: Sequence[Mapping[str, Any]]
    view_names: Mapping[str, str]

    def shapes(self, batch: Batch) -> dict[str, ModelOutput]:
        """Returns every teacher's output on a batch, as shapes and dtypes."""
        # Applied by a function that takes them, so that shapes will do for their variables as well.
        return {
            name: jax.eval_shape(lambda teacher, seen: teacher(seen), teacher, batch)
            for name, teacher in self.teachers.items()
        }


def freeze(
    models: Mapping[str, TrainedModel],
    cached: Sequence[str],
    source: Source,
    context: RunContext,
    *,
    mixed: bool,
) -> FrozenTeachers:
    """Makes finished models the teachers of a student.

    Args:
      models: by name.
      cached: those whose outputs on the training data are computed once.
      source: what the student learns from.
      context: the data and the devices.
      mixed: whether the student's examples are mixed.

    Raises:
      ValueError: if one is to be cached and the data looks different each time.
    """
    # Checked before any table is computed, as that can take long.
    fixed = [name for name, model in models.items() if name in cached or model.stored]
    check_cacheable(cached, augmented=context.datasets.augmented, mixed=mixed)
    teachers: dict[str, Teacher] = {}
    for name, model in models.items():
        if model.stored is not None:
            table = context.parallel.place(outputs_on(model, source))
            teachers[name] = Teacher(table, cache.CachedTeacher())
        elif name in cached:
            # The table lives on the devices, so a look-up in the step needs no transfer.
            table = context.parallel.place(_table(name, model, source, context))
            teachers[name] = Teacher(table, cache.CachedTeacher())
        else:
            # Cast once here and not in every step.
            teachers[name] = Teacher(model.network.frozen(model.variables), model.network)
    # Such a teacher reads no input any more, so its views needn't be loaded.
    views = [view for name, model in models.items() if name not in fixed for view in model.views]
    return FrozenTeachers(
        teachers, views, {name: model.network.view for name, model in models.items()}
    )


def outputs_on(model: TrainedModel, source: Source) -> cache.Table:
    """Returns a stored teacher's outputs on a source.

    Raises:
      ValueError: if it has none for any row.
    """
    assert model.stored is not None
    try:
        table = model.stored.on(source)
        if table is None:
            raise ValueError(
                f"it has outputs for no row of {source.name!r}, whose ids are such as"
                f" {', '.join(map(repr, source.ids[:3]))}"
            )
    except ValueError as error:
        raise ValueError(f"models.{model.plan.name}: {error}") from None
    return table


def check_cacheable(cached: Sequence[str], *, augmented: bool, mixed: bool) -> None:
    """Refuses to store a teacher's outputs on examples that look different each time.

    Raises:
      ValueError: naming the teachers and what must change.
    """
    if cached and (mixed or augmented):
        remedy = "training.mixing must be None" if mixed else "data.augmentation must be 0"
        raise ValueError(
            f"cached teachers ({', '.join(cached)}) know each example as it is: {remedy}"
        )


def _table(name: str, model: TrainedModel, source: Source, context: RunContext) -> cache.Table:
    """Reads the model's outputs on what a student learns from, or computes and keeps them."""
    # Each part keeps a table of its own, so the same data in another mixture is found again.
    if source.parts:
        tables = [_table(name, model, part, context) for part in source.parts]
        return {key: cache.join([table[key] for table in tables]) for key in tables[0]}
    # The path follows from teacher, data and view: another teacher's table is never taken.
    path = cache.path_of(model.home, *cache.facts(model, source))
    table = cache.load(path, len(source))
    if table is None:
        log.info("%s: its outputs on %d examples are computed once", name, len(source))
        table = cache.outputs(model, source, context)
        cache.save(path, table)
    return table
