"""The only room that knows devices: the mesh and shardings for jit, the axis for pmap, the start of
  a process.

A step is written for the global batch. Under jit its arrays are global and XLA inserts the
collectives; under pmap every device sees its rows and the step reduces over `AXIS` itself. Either
way the state is one copy in Python's eyes."""

import functools
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kd_jax.core.processes import cluster_in_environment
from kd_jax.core.pytree import map_with_path
from kd_jax.core.types import Batch, PyTree
from kd_jax.models.layers import logical_axes

AXIS = "data"
BACKENDS = ("jit", "pmap")


@dataclass(frozen=True)
class Parallel:
    """How steps are spread over devices.

    Attributes:
      backend: "jit" or "pmap".
      mesh: devices by (data, fsdp, tensor).
      replicated: names of models that live whole on each device.
    """

    backend: str
    mesh: Mesh
    replicated: frozenset[str] = frozenset()

    @property
    def devices(self) -> int:
        """Returns how many devices share a batch; those along `tensor` have the same rows."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def check_batch(self, batch_size: int, accumulate: int) -> None:
        """Refuses a batch that can't be cut into equal microbatches on all devices.

        Raises:
          ValueError: with the numbers.
        """
        if accumulate < 1 or batch_size < 1 or batch_size % (accumulate * self.devices):
            raise ValueError(
                f"batch_size {batch_size} can't be divided into {accumulate} microbatch(es) over"
                f" {self.devices}"
                f" device(s); a multiple of {max(accumulate, 1) * self.devices} can"
            )

    def sharding(self, path: str, leaf: Any, model: str | None = None) -> NamedSharding:
        """Returns where a parameter, or what an optimizer keeps of it, lives.

        `tensor` cuts it along the axis that `logical_axes` names, `fsdp` along the largest that it
        divides then.

        Args:
          path: of the leaf, slash-separated; within a state it tells the model too.
          leaf: anything with a shape.
          model: whose it is; None: the path tells.
        """
        if self.backend == "pmap":
            # As pmap leaves its results; placed otherwise, the second step would be compiled anew.
            return NamedSharding(Mesh(self.mesh.devices.reshape(-1), (AXIS,)), PartitionSpec())
        if model is None and path.startswith("models/"):
            model = path.split("/")[1]
        spec = PartitionSpec() if model in self.replicated else self._spec(path, leaf.shape)
        return NamedSharding(self.mesh, spec)

    def _spec(self, path: str, shape: tuple[int, ...]) -> PartitionSpec:
        # A leaf that can't be cut evenly (a scalar, an odd bias) is small and lives everywhere.
        cut: list[tuple[str, ...]] = [()] * len(shape)
        left = list(shape)
        names = logical_axes.axes_of(path, len(shape))
        for axis in ("tensor", "fsdp"):
            # Two cuts of one axis are moved at great cost; so fsdp comes last to what tensor cut.
            fitting = (
                [names.index(name) for name in logical_axes.CUT if name in names]
                if axis == "tensor"
                else sorted(range(len(shape)), key=lambda place: (bool(cut[place]), -left[place]))
            )
            parts = self.mesh.shape[axis]
            # Zero is divisible by every number, so an empty dimension has to be left out by itself.
            place = next((p for p in fitting if left[p] and left[p] % parts == 0), None)
            if parts > 1 and place is not None:
                cut[place] = (*cut[place], axis)
                left[place] //= parts
        while cut and not cut[-1]:
            cut.pop()
        return PartitionSpec(*(each[0] if len(each) == 1 else each or None for each in cut))

    def shardings(self, tree: PyTree, model: str | None = None) -> PyTree:
        """Returns the `sharding` of every leaf."""
        return map_with_path(lambda path, leaf: self.sharding(path, leaf, model), tree)

    def place(self, tree: PyTree, model: str | None = None) -> PyTree:
        """Puts a state or a model's variables where they live; every process holds the same
        values."""
        return jax.tree.map(jax.device_put, tree, self.shardings(tree, model))

    def place_batch(self, batch: Batch, axis: int) -> Batch:
        """Puts this process's rows of a batch on its devices; `axis` is the one that counts
        examples."""
        if self.backend == "pmap":
            # In a cluster each process holds its own rows only and feeds its own devices with them.
            local = jax.local_device_count() if jax.process_count() > 1 else self.devices
            return jax.tree.map(lambda x: _split_axis(np.asarray(x), axis, local), batch)
        # The batch is cut along fsdp too: those devices share parameters but not rows.
        spec = PartitionSpec(*[None] * axis, ("data", "fsdp"))
        put = functools.partial(
            jax.make_array_from_process_local_data, NamedSharding(self.mesh, spec)
        )
        return jax.tree.map(lambda leaf: put(np.asarray(leaf)), batch)

    def compile_train_step(
        self, step: Callable[..., Any], state: PyTree
    ) -> Callable[[PyTree, PyTree, Batch], tuple[PyTree, PyTree]]:
        """Compiles `step(state, teachers, batch, axis_name=...) -> (state, metrics)`.

        Args:
          step: written for the global batch, leaves `[accumulate, rows, ...]`.
          state: of the structure and shapes that the step takes; it is donated at each call.

        Returns:
          The compiled step; it takes batches that `place_batch` has placed along axis 1.
        """
        if self.backend == "pmap":
            # Axis 0 of the leaves counts microbatches there, so the devices are along axis 1.
            return self._pmap(functools.partial(step, axis_name=AXIS), (None, None, 1))
        # The state has to come back placed as it went in; else the next call compiles again.
        out = (self.shardings(state), NamedSharding(self.mesh, PartitionSpec()))
        return jax.jit(self._traced(step), donate_argnums=0, out_shardings=out)

    def evaluate(self, step: Callable[..., Any]) -> Callable[[PyTree, PyTree, Batch], PyTree]:
        """Compiles `step(variables, teachers, batch, axis_name=...) -> totals`.

        Args:
          step: written for the global batch, leaves `[rows, ...]`.

        Returns:
          The compiled step; it takes batches in the memory of the host.
        """
        if self.backend == "pmap":
            # The results are reduced over the axis inside the step, so one copy of them is enough.
            mapped = self._pmap(functools.partial(step, axis_name=AXIS), (None, None, 0))
        else:
            out = NamedSharding(self.mesh, PartitionSpec())
            mapped = jax.jit(self._traced(step), out_shardings=out)
        return lambda variables, teachers, batch: wait_where_cores_are_few(
            mapped(variables, teachers, self.place_batch(batch, axis=0))
        )

    def _traced(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the step for jit, which cuts activations where parameters are cut."""
        mesh = self.mesh if self.mesh.shape["tensor"] > 1 else None
        return logical_axes.over(mesh)(functools.partial(step, axis_name=None))

    def _pmap(self, step, in_axes):
        # In a cluster pmap has to use every device of every process, and takes no list of some.
        devices = None if jax.process_count() > 1 else list(self.mesh.devices.flat)
        return jax.pmap(step, axis_name=AXIS, in_axes=in_axes, out_axes=None, devices=devices)


def _split_axis(array: np.ndarray, axis: int, parts: int) -> np.ndarray:
    """Reshapes [..., n, ...] to [..., parts, n / parts, ...]."""
    return array.reshape(*array.shape[:axis], parts, -1, *array.shape[axis + 1 :])


def wait_where_cores_are_few(results: PyTree) -> PyTree:
    """Returns the results, after waiting for them where several CPU devices share few cores.

    XLA's CPU collectives deadlock there when steps are dispatched faster than they end (jax 0.10);
    elsewhere dispatch stays asynchronous.
    """
    if jax.default_backend() == "cpu" and jax.device_count() > 1:
        jax.block_until_ready(results)
    return results


def make_parallel(
    *, backend: str, data: int, fsdp: int, tensor: int, replicated: Collection[str] = ()
) -> Parallel:
    """Lays the devices out.

    Args:
      backend: "jit" or "pmap".
      data: devices along the batch; -1 takes all that fsdp and tensor leave.
      fsdp: devices that share each parameter and optimizer state; the batch is cut along it too.
      tensor: devices that share heads, hidden layers and vocabularies, and have the same rows.
      replicated: names of models that live whole on each device.

    Raises:
      ValueError: for an unknown backend, fsdp or tensor > 1 under pmap, more devices than there
        are, or a tensor axis that would reach over processes.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown parallel.backend {backend!r}; there are {', '.join(BACKENDS)}")
    for name, parts in (("fsdp", fsdp), ("tensor", tensor)):
        if parts < 1 or (backend == "pmap" and parts != 1):
            raise ValueError(f"parallel.{name} must be at least 1, and 1 under pmap, got {parts}")
    available = jax.device_count()
    # The rows of a process are its own, so those who share rows must be in one.
    if jax.local_device_count() % tensor and jax.process_count() > 1:
        raise ValueError(
            f"parallel.tensor must divide the {jax.local_device_count()} devices of a process, got"
            f" {tensor}"
        )
    # Whatever they leave over goes to the batch, so one config fits machines of any size.
    data = available // (fsdp * tensor) if data == -1 else data
    used = data * fsdp * tensor
    # In a cluster no device may stand idle: its process would wait for collectives forever.
    if not 0 < used <= available or (jax.process_count() > 1 and used != available):
        raise ValueError(
            f"parallel asks for data={data} x fsdp={fsdp} x tensor={tensor} devices and there are"
            f" {available}"
        )
    devices = np.asarray(jax.devices()[:used]).reshape(data, fsdp, tensor)
    return Parallel(backend, Mesh(devices, ("data", "fsdp", "tensor")), frozenset(replicated))


def set_precision(dtypes: Collection[str]) -> None:
    """Lets arrays be float64 if any of the dtypes is; otherwise jax makes float32 of them."""
    # Without this flag jax turns float64 into float32 without an error.
    jax.config.update("jax_enable_x64", "float64" in dtypes)


def start_process(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins the cluster when flags or the environment (a TPU pod, SLURM, ...) say that there is
    one."""
    if coordinator is not None or num_processes is not None or process_id is not None:
        # A process with only some of them would wait for the others without end.
        if None in (coordinator, num_processes, process_id):
            raise ValueError("--coordinator, --num_processes and --process_id go together")
        jax.distributed.initialize(coordinator, num_processes, process_id)
    elif cluster_in_environment(os.environ):
        jax.distributed.initialize()
