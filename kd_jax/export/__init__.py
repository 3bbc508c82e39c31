"""What people deploy: a finished model in our own format, for transformers, as StableHLO and as
  ONNX.

Each is read back and compared with the live model before the export says that it succeeded.
"""

import importlib.util
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kd_jax.export import hugging_face, kd_jax_format, model_card, onnx, stablehlo
from kd_jax.export.student import Student, Unsupported, open_student
from kd_jax.export.verify import BATCH_SIZES, TOLERANCE, largest_difference

log = logging.getLogger("kd_jax")

FORMATS: dict[str, Callable[[Student, Path], Callable[[dict[str, np.ndarray]], np.ndarray]]] = {
    "kd_jax": kd_jax_format.write,
    "huggingface": hugging_face.write,
    "stablehlo": stablehlo.write,
    "onnx": onnx.write,
}
"""Name -> what writes a student to a folder and returns its logits `[B, K]` of given inputs, by
what it wrote."""


def export(workdir: Path, name: str | None = None, formats: Sequence[str] = ()) -> Path:
    """Exports a finished model of a run to `workdir/export/<name>`, in place of what was there.

    Args:
      workdir: of a finished run.
      name: of the model; None: the compared student.
      formats: of `FORMATS`; none: all that can hold this student. "kd_jax" is always written.

    Returns:
      The folder.

    Raises:
      ValueError: if there is no such model or format, a format that was asked for can't hold it, or
        what was written doesn't compute what the student computes.
    """
    # Refused before anything is deleted or written.
    if unknown := sorted(set(formats) - set(FORMATS)):
        raise ValueError(
            f"unknown format {', '.join(map(repr, unknown))}; there are {', '.join(FORMATS)}"
        )
    student = open_student(workdir, name)
    folder = workdir / "export" / student.name
    shutil.rmtree(
        folder, ignore_errors=True
    )  # What an earlier export left could be of another student.
    folder.mkdir(parents=True)
    written: list[str] = []
    for format_name, write in FORMATS.items():
        if formats and format_name not in formats and format_name != "kd_jax":
            continue
        # Only a format that the user asked for by name may stop the export.
        try:
            run = write(student, folder)
        except Unsupported as reason:
            if format_name in formats:
                raise
            log.info("%s: left out: %s", format_name, reason)
            continue
        # What was written is read back: files that open without an error can still be wrong.
        try:
            _verify(student, format_name, run)
        except ValueError:
            shutil.rmtree(folder)  # So that nobody deploys it.
            raise
        written.append(format_name)
    card = model_card.make(student, written)
    (folder / model_card.FILE).write_text(card, encoding="utf-8")
    return folder


def _verify(student: Student, format_name: str, run: Any) -> None:
    full, *shorter = student.lengths
    cases = [(size, full) for size in BATCH_SIZES] + [(BATCH_SIZES[1], size) for size in shorter]
    worst = max(largest_difference(student, run, *case) for case in cases)
    # Written with `not`, so that NaN counts as a difference.
    if not worst <= TOLERANCE:
        raise ValueError(
            f"{format_name}: what was written differs from the live model by {worst:.2g}, more than"
            f" {TOLERANCE:.0e}"
        )
    sizes = "batches of " + ", ".join(map(str, BATCH_SIZES))
    if shorter:
        sizes += "; texts of " + ", ".join(map(str, student.lengths)) + " tokens"
    log.info(
        "%s: written, and read back by %s: logits as the live model's to %.1g (%s)",
        format_name,
        reader_of(format_name),
        worst,
        sizes,
    )


def reader_of(format_name: str) -> str:
    """Names what reads a format back when it is verified."""
    if format_name == "huggingface" and importlib.util.find_spec("torch") is not None:
        return "transformers and PyTorch"
    return {"stablehlo": "jax.export", "onnx": "onnxruntime"}.get(format_name, "kd_jax itself")
