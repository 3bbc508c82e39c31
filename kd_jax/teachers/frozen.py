"""The teachers of one student as its training step reads them: live, or by the outputs that were
computed before."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from kd_jax.core.types import Batch, ModelOutput, Teacher, Variables
from kd_jax.data.source import Source
from kd_jax.teachers import kept_outputs
from kd_jax.teachers.compression import ALL, Compression
from kd_jax.teachers.outputs import Outputs, OutputsByPlace, StoredTeacher, view_of
from kd_jax.teachers.repeated import Repeated
from kd_jax.training.context import RunContext
from kd_jax.training.trained_model import TrainedModel


@dataclass(frozen=True)
class FrozenTeachers:
    """Teachers that no gradient reaches and no checkpoint holds.

    Attributes:
      teachers: name -> variables in the dtype they are computed in, none of one whose outputs are
        stored, and how they are applied.
      views: what the live ones read of a batch.
      view_names: name -> the view that its outputs are of.
      outputs: by the name of a batch's view, those of the others.
      by_place: likewise, of the rows of batches that come again.
      unread: the views of teachers of which that is known, which decide what is in a batch.
      reads: teacher's name -> the features of it that somebody reads, as far as that is known;
        filled in by whoever binds terms to them.
    """

    teachers: Mapping[str, Teacher]
    views: Sequence[Mapping[str, Any]]
    view_names: Mapping[str, str]
    outputs: Mapping[str, Outputs] = field(default_factory=dict)
    by_place: Mapping[str, OutputsByPlace] = field(default_factory=dict)
    unread: Sequence[Mapping[str, Any]] = ()
    reads: dict[str, set[str]] = field(default_factory=dict)

    def shapes(self, batch: Batch) -> dict[str, ModelOutput]:
        """Returns every teacher's output on a batch, as shapes and dtypes."""
        # Applied by a function that takes them, so that shapes will do for their variables as well.
        return {
            name: jax.eval_shape(lambda teacher, seen: teacher(seen), teacher, batch)
            for name, teacher in self.teachers.items()
        }


def freeze(
    models: Mapping[str, TrainedModel],
    cached: Mapping[str, Collection[str]],
    source: Source,
    context: RunContext,
    *,
    mixed: bool,
    repeated: Repeated | None = None,
    compression: Compression = ALL,
) -> FrozenTeachers:
    """Makes finished models the teachers of a student.

    Args:
      models: by name.
      cached: those whose outputs on the training data are computed once, and which features of
        theirs are kept beside the logits.
      source: what the student learns from.
      context: the data and the devices.
      mixed: whether the student's examples are mixed.
      repeated: the batches that come again, where they do.
      compression: how the logits of the cached ones are kept.

    Raises:
      ValueError: if one is to be cached and the data looks different each time.
    """
    augmented = context.datasets.augmented
    # Checked before anything is computed, as that can take long.
    check_cacheable([*cached], augmented=augmented, mixed=mixed, repeated=repeated is not None)

    def known(name: str, model: TrainedModel) -> Outputs | None:
        if model.stored is not None:
            return outputs_on(model, source)
        if name not in cached:
            return None
        if repeated is not None and (augmented or mixed):
            return kept_outputs.stored_by_place(
                model, source, cached[name], repeated, context, compression
            )
        return kept_outputs.stored(model, source, cached[name], context, compression)

    return _frozen(models, {name: known(name, model) for name, model in models.items()})


def freeze_for_evaluation(
    models: Mapping[str, TrainedModel], source: Source, context: RunContext, batch_size: int
) -> FrozenTeachers:
    """Makes finished models what others are compared with on a split, where only logits count.

    Each is asked about it once, however many are compared with it; see `kept_outputs.evaluated`.
    """
    known = {name: logits_on(each, source, context, batch_size) for name, each in models.items()}
    return _frozen(models, known)


def logits_on(
    model: TrainedModel, source: Source, context: RunContext, batch_size: int
) -> Outputs | None:
    """Returns a model's logits on an evaluated split; None: it must be asked each time."""
    if model.stored is not None:
        return outputs_on(model, source)
    return kept_outputs.evaluated(model, source, context, batch_size)


def _frozen(
    models: Mapping[str, TrainedModel], known: Mapping[str, Outputs | None]
) -> FrozenTeachers:
    frozen = _freeze(models, known, lambda model: model.network.frozen(model.variables))
    for name, model in models.items():
        # One that is asked in each step, in the dtype that it is kept in, is there once.
        live = jax.tree.leaves(frozen.teachers[name].variables)
        if not live or any(
            a is not b for a, b in zip(live, jax.tree.leaves(model.variables), strict=True)
        ):
            model.release()
    return frozen


def shapes_of(models: Mapping[str, TrainedModel], source: Source) -> FrozenTeachers:
    """Returns teachers with shapes in place of their variables, all but stored ones live."""
    known = {
        name: None if model.stored is None else outputs_on(model, source)
        for name, model in models.items()
    }
    # Casting to the teacher's dtype is part of the shapes: it decides the terms' dtypes.
    return _freeze(models, known, lambda model: jax.eval_shape(model.network.frozen, model.shapes))


def _freeze(
    models: Mapping[str, TrainedModel],
    known: Mapping[str, Outputs | None],
    variables_of: Callable[[TrainedModel], Variables],
) -> FrozenTeachers:
    teachers, views, outputs, by_place, unread = {}, [], {}, {}, []
    for name, model in models.items():
        found = known[name]
        if found is None:
            # Cast once here and not in every step.
            teachers[name] = Teacher(variables_of(model), model.network)
            views += model.views
        else:
            # Such a teacher reads no input any more, so its views needn't be loaded.
            teachers[name] = Teacher({}, StoredTeacher(view_of(name), found.classes))
            if isinstance(found, OutputsByPlace):
                by_place[view_of(name)] = found
                unread += model.views
            else:
                outputs[view_of(name)] = found
    names = {name: model.network.view for name, model in models.items()}
    return FrozenTeachers(teachers, views, names, outputs, by_place, unread)


def outputs_on(model: TrainedModel, source: Source) -> Outputs:
    """Returns a stored teacher's outputs on a source.

    Raises:
      ValueError: if it has none for any row.
    """
    assert model.stored is not None
    try:
        found = model.stored.on(source)
        if found is None:
            raise ValueError(
                f"it has outputs for no row of {source.name!r}, whose ids are such as"
                f" {', '.join(map(repr, source.ids[:3]))}"
            )
    except ValueError as error:
        raise ValueError(f"models.{model.plan.name}: {error}") from None
    return found


def known_on(model: TrainedModel, source: Source) -> dict[str, Outputs]:
    """Returns, as a batch's views, what a model reads of a source where only its outputs are
    known."""
    return {} if model.stored is None else {view_of(model.plan.name): outputs_on(model, source)}


def check_cacheable(
    cached: Sequence[str],
    files: Sequence[str] = (),
    *,
    augmented: bool,
    mixed: bool,
    repeated: bool = False,
) -> None:
    """Refuses stored outputs on examples that look different each time.

    Args:
      cached: teachers that can be asked.
      files: those of which only outputs are known.
      augmented: whether examples are augmented.
      mixed: whether they are mixed.
      repeated: whether the same batches come again.

    Raises:
      ValueError: naming the teachers and what must change.
    """
    wrong = [*files, *(() if repeated else cached)]
    if not wrong or not (mixed or augmented):
        return
    remedy = "training.mixing must be None" if mixed else "data.augmentation must be 0"
    # What is only a file can't be asked about batches that come again.
    other = "" if files else ", or the same batches come again (training.augmented_epochs)"
    raise ValueError(
        f"cached teachers ({', '.join(wrong)}) know each example as it is: {remedy}{other}"
    )
