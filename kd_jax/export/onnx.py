"""ONNX, through jax2onnx, for batches of any size and texts of any length; read back by ONNX
Runtime."""

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from kd_jax.export.student import Student, Unsupported

FILE = "model.onnx"
INSTALL = "uv sync --extra onnx"


def write(student: Student, folder: Path) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Writes the model with inputs named as the module's arguments, `[B, ...]` or `[B, T]`, and
    output `logits` `[B, K]`.

    Raises:
      Unsupported: if jax2onnx or ONNX Runtime is not installed, or the model has an operation that
        it can't convert.
    """
    # Both are optional, so they are imported only when this format is written.
    try:
        import jax2onnx
        import onnxruntime
    except ImportError as error:
        raise Unsupported(f"{error.name} is not installed; install it with: {INSTALL}") from None
    if student.description.get("dtype") == "float64":
        raise Unsupported("jax2onnx converts no model that computes in float64")
    # Symbols instead of numbers let the file take batches of any size and texts of any length.
    shapes, _ = student.open_shapes
    logging.getLogger("onnx_ir").setLevel(
        logging.ERROR
    )  # It warns of every shape that isn't a number.
    try:
        # Its stand-ins for JAX's functions add biases of a smaller rank.
        with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
            warnings.simplefilter("ignore")
            model = jax2onnx.to_onnx(
                student.logits,
                inputs=list(shapes.values()),
                model_name=student.name,
                input_names=list(shapes),
                output_names=["logits"],
            )
    # The converter raises errors of many types for an operation that it doesn't know.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Unsupported(
            f"jax2onnx can't convert {type(student.module).__name__}: {reason}"
        ) from error
    (folder / FILE).write_bytes(model.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # It warns of shapes that it merges.
    # Opened from the file on the CPU, which every machine has.
    session = onnxruntime.InferenceSession(
        str(folder / FILE), options, providers=["CPUExecutionProvider"]
    )
    return lambda inputs: np.asarray(session.run(["logits"], dict(inputs))[0])
