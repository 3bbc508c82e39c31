"""StableHLO: the model with its weights as one file that jax.export opens on any device, for
batches of any size."""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from jax import export

from kd_jax.export.student import Student, Unsupported

FILE = "model.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


def write(student: Student, folder: Path) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Writes the program, inputs in the order of `Student.shapes`, `[B, ...]` -> logits `[B, K]`.

    Raises:
      Unsupported: if flatbuffers, which serialises it, is not installed.
    """
    # `jax.export` needs it only to serialise, and would fail after the model was traced.
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        raise Unsupported("flatbuffers is not installed") from None
    # Symbols instead of numbers let the program take batches of any size and texts of any length.
    shapes, _ = student.open_shapes
    # Lowered for all platforms, so a file made on a CPU also runs on a GPU or TPU.
    program = export.export(jax.jit(student.logits), platforms=PLATFORMS)(*shapes.values())
    (folder / FILE).write_bytes(program.serialize())
    # Read back from the file, as whoever deploys it will do.
    again = export.deserialize(bytearray((folder / FILE).read_bytes()))
    return lambda inputs: np.asarray(again.call(*inputs.values()))
