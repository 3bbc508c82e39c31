"""Tells whether an experiment fits on the devices, before anything runs: each training step is
compiled from shapes alone and asked what it takes."""

import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from kd_jax.core.types import Batch, Teacher
from kd_jax.data.source import Source
from kd_jax.experiments.check_shapes import ShapedGroup, check_shapes
from kd_jax.experiments.out_of_memory import bytes_on_one
from kd_jax.experiments.plan import make_plan
from kd_jax.experiments.run import open_run
from kd_jax.experiments.stored_teachers import open_stored
from kd_jax.experiments.workdir import Workdir
from kd_jax.teachers.compression import Compression
from kd_jax.teachers.frozen import FrozenTeachers
from kd_jax.teachers.outputs import StoredTeacher, view_of
from kd_jax.training.context import RunContext
from kd_jax.training.interruption import StopSignal
from kd_jax.training.sharding import Parallel, make_parallel, set_precision
from kd_jax.training.state import TrainState
from kd_jax.training.step import train_step

LOOKED_AT = 50
"""Batches of which that with the most tokens is compiled: texts are padded in several lengths."""

COLLECTIVE = re.compile(
    r"= (?P<shapes>.*?) (?P<kind>all-reduce|all-gather|all-to-all|collective-permute"
    r"|reduce-scatter)(?:-start)?\("
)
ARRAY = re.compile(r"(?P<type>[a-z]+)(?P<bits>\d+)\[(?P<sizes>[\d,]*)\]|pred\[(?P<flags>[\d,]*)\]")


@dataclass(frozen=True)
class StepCost:
    """What a training step takes of one device.

    Attributes:
      models: names of those that are trained in it.
      rows: of the device, in the whole step.
      parameters: bytes of the models' parameters and statistics.
      optimizer: bytes of the optimizers' states.
      others: bytes of terms' parameters and states, and of moving averages.
      teachers: bytes of the live teachers.
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
        held = self.parameters + self.optimizer + self.others + self.teachers
        return held + self.batch + self.activations


def fit(config: Mapping[str, Any], memory: int | None = None) -> dict[str, Any]:
    """Compiles every training step of an experiment and tells what it takes of each device.

    Nothing is trained, downloaded weights aside nothing is written, and no parameter is made.

    Args:
      config: resolved.
      memory: bytes of a device; None: what the devices say, on CPUs an equal share of the memory.

    Returns:
      "devices": how many; "mesh"; "memory"; "steps": a `StepCost` with its "total" each; "fits".

    Raises:
      ValueError: for a config that can't be run, in one line.
    """
    stop, plan = StopSignal(), make_plan(config)
    set_precision([model.dtype for model in plan.models])
    parallel = make_parallel(**plan.config["parallel"])
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Workdir(Path(folder) / "run", plan.config, None)) as workdir,
    ):
        context = open_run(plan, workdir, parallel, stop)
        groups = check_shapes(plan, context, open_stored(plan, context))
        costs = [cost(group, context) for group in groups]
    limit = memory or device_memory()
    return {
        "devices": parallel.mesh.size,
        "mesh": dict(parallel.mesh.shape),
        "backend": parallel.backend,
        "memory": limit,
        "steps": [{**vars(each), "total": each.total} for each in costs],
        "fits": all(each.total <= limit for each in costs),
    }


def read_size(text: str) -> int:
    """Reads a size such as 80GiB, 16GB or 500MB, in bytes.

    Raises:
      ValueError: if it is none, or nothing.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])(i?)B", text.strip())
    size = 0
    if found is not None:
        unit = (1024 if found[3] else 1000) ** (" KMGT".index(found[2]))
        size = int(float(found[1]) * unit)
    if size < 1:
        raise ValueError(f"--device_memory must be a size such as 80GiB or 500MB, got {text!r}")
    return size


def device_memory() -> int:
    """Returns the bytes of one device; of CPU devices each has an equal share."""
    stats = jax.local_devices()[0].memory_stats() or {}
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return stats.get("bytes_limit") or whole // jax.local_device_count()


def cost(shaped: ShapedGroup, context: RunContext) -> StepCost:
    """Compiles a group's step from shapes and tells what it takes of one device."""
    parallel, group = context.parallel, shaped.group
    state = jax.eval_shape(partial(_initial, shaped), shaped.variables)
    frozen, batch = _as_trained(shaped, context)
    state = _placed(state, parallel)
    teachers = {name: _placed(each, parallel, name) for name, each in frozen.items()}
    placed = parallel.place_batch(batch, axis=1)
    step = parallel.compile_train_step(partial(train_step, group=group), state)
    compiled: Any = step
    compiled = compiled.lower(state, teachers, placed).compile()
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
        teachers=bytes_on_one(teachers),
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


def _as_trained(shaped: ShapedGroup, context: RunContext) -> tuple[dict[str, Teacher], Batch]:
    """Returns teachers and the largest batch as training has them: cached ones by their outputs."""
    cached = {name for plan in shaped.plans for name in plan.cached}
    frozen, rows = shaped.frozen, shaped.plans[0].training["batch_size"]
    batch = _largest(shaped.plans, frozen, shaped.source, context)
    one = jax.tree.map(lambda leaf: leaf[0], batch)
    known = {name: each for name, each in frozen.shapes(one).items() if name in cached}
    accumulate, compression = len(batch.valid), Compression(**shaped.plans[0].cached_as)
    views = dict(batch.views)
    for name, output in known.items():
        kept = jax.eval_shape(compression.compress, output.logits) | {
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
        for array in ARRAY.finditer(found["shapes"]):
            sizes = array["sizes"] or array["flags"] or ""
            count = int(np.prod([int(size) for size in sizes.split(",") if size]))
            moved[found["kind"]] += count * max(1, int(array["bits"] or 8) // 8)
    return {kind: {"count": counts[kind], "bytes": moved[kind]} for kind in sorted(counts)}


def show(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints a table, and says in words whether it fits and what would help."""
    console = console or Console()
    mesh = " x ".join(f"{name} {size}" for name, size in found["mesh"].items())
    table = Table(title=f"a step on each of {found['devices']} devices ({mesh}), in MiB")
    table.add_column("of a device")
    for step in found["steps"]:
        table.add_column(", ".join(step["models"]), justify="right")
    for name in (*PARTS, "total"):
        table.add_row(name, *(mebibytes(step[name]) for step in found["steps"]))
    table.add_row("rows", *(f"{step['rows']}" for step in found["steps"]))
    flops = [step["flops"] for step in found["steps"]]
    table.add_row("GFLOP", *("" if each is None else f"{each / 1e9:,.2f}" for each in flops))
    console.print(table)
    for step in found["steps"]:
        if step["collectives"]:
            told = ", ".join(
                f"{each['count']} {kind} ({mebibytes(each['bytes'])} MiB)"
                for kind, each in step["collectives"].items()
            )
            console.print(f"{', '.join(step['models'])}: {told}")
    console.print(verdict(found))


PARTS = ("parameters", "optimizer", "others", "teachers", "batch", "activations")
REMEDIES = {
    "parameters": "parallel.fsdp or parallel.tensor share parameters between devices",
    "optimizer": "parallel.fsdp or parallel.tensor share the optimizer's state between devices",
    "others": "parallel.fsdp or parallel.tensor share them between devices",
    "teachers": "cached=(TEACHER,) asks a teacher before the training; parallel.fsdp shares it",
    "batch": "a smaller training.batch_size",
    "activations": "training.accumulate cuts a batch into microbatches; remat=True of a model",
}


def verdict(found: Mapping[str, Any]) -> str:
    """Says in words whether the largest step fits into a device's memory, and what would help."""
    if not found["steps"]:
        return "nothing is trained"
    largest = max(found["steps"], key=lambda step: step["total"])
    sizes = (
        f"{mebibytes(largest['total'])} MiB of a device's {mebibytes(found['memory'])} MiB, by the"
        f" step of {', '.join(largest['models'])}"
    )
    if largest["total"] <= found["memory"]:
        return f"it fits: {sizes}"
    part = max(PARTS, key=lambda name: largest[name])
    return (
        f"it doesn't fit: {sizes}; most of it, {mebibytes(largest[part])} MiB, are {part}:"
        f" {REMEDIES[part]}"
    )


def mebibytes(size: float) -> str:
    """Writes bytes in MiB."""
    return f"{size / 2**20:,.1f}"
