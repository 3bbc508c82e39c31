"""Tells whether an experiment fits on the devices, before anything runs: each training step is
compiled from shapes alone and asked what it takes."""

import os
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from kd_jax.experiments.check_shapes import check_shapes
from kd_jax.experiments.plan import make_plan
from kd_jax.experiments.run import open_run
from kd_jax.experiments.step_cost import PARTS, cost
from kd_jax.experiments.stored_teachers import open_stored
from kd_jax.experiments.workdir import Workdir
from kd_jax.training.interruption import StopSignal
from kd_jax.training.sharding import make_parallel, set_precision


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
        closing(Workdir(Path(folder) / "run", plan.config, scratch=True)) as workdir,
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


def device_memory() -> int:
    """Returns the bytes of one device; of CPU devices each has an equal share."""
    stats = jax.local_devices()[0].memory_stats() or {}
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return stats.get("bytes_limit") or whole // jax.local_device_count()


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


REMEDIES = {
    "parameters": "parallel.fsdp or parallel.tensor share parameters between devices",
    "optimizer": "parallel.fsdp or parallel.tensor share the optimizer's state between devices",
    "others": "parallel.fsdp or parallel.tensor share them between devices",
    "teachers": "cached=(TEACHER,) asks a teacher before the training; parallel.fsdp shares it",
    "batch": "a smaller training.batch_size",
    "activations": "training.accumulate cuts a batch into microbatches; a model's remat, and its"
    " query_chunk_size for long texts",
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
