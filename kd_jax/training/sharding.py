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
from kd_jax.core.types import Batch, PyTree

AXIS = "data"
BACKENDS = ("jit", "pmap")


def _sharded_dimension(shape: tuple[int, ...], parts: int) -> int | None:
    """Returns the largest dimension that `parts` divides; None where there is none."""
    # Zero is divisible by every number, so an empty dimension has to be left out by itself.
    fitting = [dimension for dimension, size in enumerate(shape) if size % parts == 0 and size > 0]
    return max(fitting, key=lambda dimension: shape[dimension], default=None)


@dataclass(frozen=True)
class Parallel:
    """How steps are spread over devices.

    Attributes:
      backend: "jit" or "pmap".
      mesh: devices by (data, fsdp, tensor).
    """

    backend: str
    mesh: Mesh

    @property
    def devices(self) -> int:
        """Returns how many devices share a batch."""
        return self.mesh.size

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

    def sharding(self, leaf: Any) -> NamedSharding:
        """Returns where a parameter lives: everywhere, or cut along its largest dimension.

        That which fsdp divides.
        """
        if self.backend == "pmap":
            # As pmap leaves its results; placed otherwise, the second step would be compiled anew.
            return NamedSharding(Mesh(self.mesh.devices.reshape(-1), (AXIS,)), PartitionSpec())
        # A leaf that can't be cut evenly (a scalar, an odd bias) is small and lives everywhere.
        parts = self.mesh.shape["fsdp"]
        dimension = _sharded_dimension(leaf.shape, parts) if parts > 1 else None
        if dimension is None:
            return NamedSharding(self.mesh, PartitionSpec())
        return NamedSharding(self.mesh, PartitionSpec(*[None] * dimension, "fsdp"))

    def shardings(self, tree: PyTree) -> PyTree:
        """Returns the `sharding` of every leaf."""
        return jax.tree.map(self.sharding, tree)

    def place(self, tree: PyTree) -> PyTree:
        """Puts a state or a teacher's variables where they live; every process holds the same
        values."""
        return jax.tree.map(lambda leaf: jax.device_put(leaf, self.sharding(leaf)), tree)

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
        return jax.jit(functools.partial(step, axis_name=None), donate_argnums=0, out_shardings=out)

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
            mapped = jax.jit(functools.partial(step, axis_name=None), out_shardings=out)
        return lambda variables, teachers, batch: wait_where_cores_are_few(
            mapped(variables, teachers, self.place_batch(batch, axis=0))
        )

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


def make_parallel(*, backend: str, data: int, fsdp: int, tensor: int) -> Parallel:
    """Lays the devices out.

    Args:
      backend: "jit" or "pmap".
      data: devices along the batch; -1 takes all that fsdp leaves.
      fsdp: devices that share each parameter and optimizer state; the batch is cut along it too.
      tensor: 1; tensor parallelism isn't offered yet.

    Raises:
      ValueError: for an unknown backend, tensor > 1, fsdp > 1 under pmap, or more devices than
        there are.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown parallel.backend {backend!r}; there are {', '.join(BACKENDS)}")
    if tensor != 1:
        raise ValueError(
            f"parallel.tensor must be 1 (tensor parallelism isn't offered yet), got {tensor}"
        )
    if fsdp < 1 or (backend == "pmap" and fsdp != 1):
        raise ValueError(f"parallel.fsdp must be at least 1, and 1 under pmap, got {fsdp}")
    available = jax.device_count()
    # Whatever fsdp leaves over goes to the batch, so one config fits machines of any size.
    data = available // fsdp if data == -1 else data
    used = data * fsdp
    # In a cluster no device may stand idle: its process would wait for collectives forever.
    if not 0 < used <= available or (jax.process_count() > 1 and used != available):
        raise ValueError(
            f"parallel asks for data={data} x fsdp={fsdp} devices and there are {available}"
        )
    devices = np.asarray(jax.devices()[:used]).reshape(data, fsdp, tensor)
    return Parallel(backend, Mesh(devices, ("data", "fsdp", "tensor")))


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
