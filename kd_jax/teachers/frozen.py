"""The teachers of one student as its training step reads them: live, or looked up in a table
computed before."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from kd_jax.core.types import Batch, ModelOutput, PyTree
from kd_jax.data.source import Source
from kd_jax.teachers import cache
from kd_jax.training.context import RunContext
from kd_jax.training.trained_model import TrainedModel

log = logging.getLogger("kd_jax")


@dataclass(frozen=True)
class FrozenTeachers:
    """Teachers that no gradient reaches and no checkpoint holds.

    Attributes:
      networks: name -> how it is applied.
      variables: name -> what it is applied to, on the devices: its variables in its own dtype, or
        its table.
      views: what the live ones read of a batch.
      view_names: name -> the view that its outputs are of.
    """

    networks: Mapping[str, Any]
    variables: Mapping[str, PyTree]
    views: Sequence[Mapping[str, Any]]
    view_names: Mapping[str, str]

    def shapes(self, batch: Batch) -> dict[str, ModelOutput]:
        """Every teacher's output on a batch, as shapes and dtypes."""
        return {
            name: jax.eval_shape(self.networks[name], self.variables[name], batch)
            for name in self.networks
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
    if cached and (mixed or context.datasets.augmented):
        remedy = "training.mixing must be None" if mixed else "data.augmentation must be 0"
        raise ValueError(
            f"cached teachers ({', '.join(cached)}) know each example as it is: {remedy}"
        )
    networks: dict[str, Any] = {}
    variables: dict[str, PyTree] = {}
    for name, model in models.items():
        if name in cached:
            networks[name], variables[name] = (
                cache.CachedTeacher(),
                context.parallel.place(_table(name, model, source, context)),
            )
        else:
            networks[name], variables[name] = model.network, model.network.frozen(model.variables)
    views = [view for name, model in models.items() if name not in cached for view in model.views]
    return FrozenTeachers(
        networks, variables, views, {name: model.network.view for name, model in models.items()}
    )


def _table(name: str, model: TrainedModel, source: Source, context: RunContext) -> cache.Table:
    """The model's outputs on what a student learns from, read from the model's home or computed and
    kept there."""
    if source.parts:
        tables = [_table(name, model, part, context) for part in source.parts]
        return {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}
    path = cache.path_of(model.home, *cache.facts(model, source))
    table = cache.load(path, len(source))
    if table is None:
        log.info("%s: its outputs on %d examples are computed once", name, len(source))
        table = cache.outputs(model, source, context)
        cache.save(path, table)
    return table
