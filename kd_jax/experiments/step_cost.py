"""What a training step takes of one device, compiled from shapes alone."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import jax
import numpy as np

from kd_jax.core.types import Batch, Teacher
from kd_jax.data.source import Source
from kd_jax.experiments.build import compression
from kd_jax.experiments.check_shapes import ShapedGroup
from kd_jax.experiments.out_of_memory import bytes_on_one
from kd_jax.teachers.frozen import FrozenTeachers
from kd_jax.teachers.outputs import StoredTeacher, view_of
from kd_jax.training.context import RunContext
from kd_jax.training.sharding import Parallel
from kd_jax.training.state import TrainState
from kd_jax.training.step import train_step

LOOKED_AT = 50
"""Batches of which that with the most tokens is compiled: texts are padded in several lengths."""

COLLECTIVE = re.compile(
    r"= (?P<shapes>.*?) (?P<kind>all-reduce|all-gather|all-to-all|collective-permute"
    r"|reduce-scatter)(?P<start>-start)?\("
)
ARRAY = re.compile(r"(?P<type>[a-z]+)(?P<bits>\d+)\[(?P<sizes>[\d,]*)\]|pred\[(?P<flags>[\d,]*)\]")


PARTS = ("parameters", "optimizer", "others", "teachers", "batch", "activations")
"""What the bytes of a step are made of."""


@dataclass(frozen=True)
class StepCost:
    """What a training step takes of one device.

    Attributes:
      models: names of those that are trained in it.
      rows: of the device, in the whole step.
      parameters: bytes of the models' parameters and statistics.
      optimizer: bytes of the optimizers' states.
      others: bytes of terms' parameters and states, and of moving averages.
      teachers: bytes of the live teachers, and of those that the selection split is judged by.
      batch: bytes of inputs and of teachers' kept outputs.
      activations: bytes of everything else that is alive at once: activations, gradients.
      flops: floating-point operations; None: the compiler doesn't say.
      collectives: kind -> how many, and the bytes that they give a device.
    """

    models: tuple[str, ...]
    rows: int
    parameters: int
    optimizer: int
    others: int
    teachers: int
    batch: int
    activations: int
    flops: float | None
    collectives: dict[str, dict[str, int]]

    @property
    def total(self) -> int:
        """Returns all bytes."""
        return sum(getattr(self, part) for part in PARTS)


def cost(shaped: ShapedGroup, context: RunContext) -> StepCost:
    """Compiles a group's step from shapes and tells what it takes of one device."""
    parallel, group = context.parallel, shaped.group
    state = jax.eval_shape(partial(_initial, shaped), shaped.variables)
    frozen, batch = _as_trained(shaped, context)
    state = _placed(state, parallel)
    teachers = {name: _placed(each, parallel, name) for name, each in frozen.items()}
    placed = parallel.place_batch(batch, axis=1)
    step: Any = parallel.compile_train_step(partial(train_step, group=group), state)
    compiled = step.lower(state, teachers, placed).compile()
    memory, devices = compiled.memory_analysis(), parallel.devices
    arguments = sum(bytes_on_one(each) for each in (state, teachers))
    given = sum(leaf.nbytes for leaf in jax.tree.leaves(batch)) // devices
    used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    used += memory.output_size_in_bytes - memory.alias_size_in_bytes
    models = state.models.values()
    parameters = bytes_on_one([(each.params, each.batch_stats) for each in models])
    optimizer = bytes_on_one([each.opt_state for each in models])
    analysis = compiled.cost_analysis() or {}
    return StepCost(
        models=tuple(group.models),
        rows=shaped.plans[0].training["batch_size"] // devices,
        parameters=parameters,
        optimizer=optimizer,
        others=bytes_on_one(state) - parameters - optimizer,
        teachers=bytes_on_one(teachers) + _only_on_selection(shaped, frozen, context),
        batch=given,
        activations=max(0, used - arguments - given),
        flops=analysis.get("flops"),
        collectives=_collectives(compiled.as_text()),
    )


def _initial(shaped: ShapedGroup, variables: Mapping[str, Any]) -> TrainState:
    key = jax.random.key(0)
    models = {name: model.init(variables[name], key) for name, model in shaped.group.models.items()}
    return TrainState(jax.numpy.zeros((), "int32"), models)


def _placed(tree: Any, parallel: Parallel, model: str | None = None) -> Any:
    """Returns shapes that say where they live; pmap's live on each device."""
    if parallel.backend == "pmap":
        return tree

    def placed(leaf: Any, sharding: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(placed, tree, parallel.shardings(tree, model))


def _only_on_selection(
    shaped: ShapedGroup, asked: Mapping[str, Teacher], context: RunContext
) -> int:
    """Returns the bytes of teachers that only the evaluation on the selection split asks."""
    if not context.datasets.task.meets_teachers:
        return 0
    return sum(
        bytes_on_one(_placed(teacher, context.parallel, name))
        for name, teacher in shaped.frozen.teachers.items()
        if not jax.tree.leaves(asked[name])
    )


def _as_trained(shaped: ShapedGroup, context: RunContext) -> tuple[dict[str, Teacher], Batch]:
    """Returns teachers and the largest batch as training has them: cached ones by their outputs."""
    cached = {name for plan in shaped.plans for name in plan.cached}
    frozen, rows = shaped.frozen, shaped.plans[0].training["batch_size"]
    batch = _largest(shaped.plans, frozen, shaped.source, context)
    one = jax.tree.map(lambda leaf: leaf[0], batch)
    known = {name: each for name, each in frozen.shapes(one).items() if name in cached}
    accumulate, compress = len(batch.valid), compression(shaped.plans).compress
    views = dict(batch.views)
    for name, output in known.items():
        kept = jax.eval_shape(compress, output.logits) | {
            layer: output.features[layer] for layer in sorted(frozen.reads.get(name, ()))
        }
        views[view_of(name)] = {
            layer: np.zeros((accumulate, rows // accumulate, *leaf.shape[1:]), leaf.dtype)
            for layer, leaf in kept.items()
        }
    teachers = {
        name: Teacher({}, StoredTeacher(view_of(name), known[name].logits.shape[-1]))
        if name in known
        else each
        for name, each in frozen.teachers.items()
    }
    return teachers, replace(batch, views=views)


def _largest(plans: Any, frozen: FrozenTeachers, source: Source, context: RunContext) -> Batch:
    views = [*(plan.view for plan in plans), *frozen.views]
    batches = context.datasets.training_batches(
        source, views, plans[0].training, 0, frozen.outputs, frozen.by_place, frozen.unread
    )

    def size(batch: Batch) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(batch.views))

    return max(islice(batches, LOOKED_AT), key=size)


def _collectives(text: str) -> dict[str, dict[str, int]]:
    """Returns how many collectives of each kind a program has, and their results' bytes."""
    counts: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    for found in COLLECTIVE.finditer(text):
        counts[found["kind"]] += 1
        arrays = [*ARRAY.finditer(found["shapes"])]
        # What is started at once and awaited later has its operands in the result too.
        if found["start"] and found["kind"] == "all-gather":
            arrays = arrays[len(arrays) // 2 :]
        elif found["start"] and found["kind"] == "collective-permute":
            arrays = arrays[1:2]
        for array in arrays:
            sizes = array["sizes"] or array["flags"] or ""
            count = int(np.prod([int(size) for size in sizes.split(",") if size]))
            moved[found["kind"]] += count * max(1, int(array["bits"] or 8) // 8)
    return {kind: {"count": counts[kind], "bytes": moved[kind]} for kind in sorted(counts)}
