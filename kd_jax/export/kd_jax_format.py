"""Our own format: safetensors, a JSON of the architecture, and the tokenizer."""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from kd_jax.core import seal
from kd_jax.core.json_files import write_json
from kd_jax.core.pytree import fingerprint
from kd_jax.export.student import Student, apply
from kd_jax.models import registry
from kd_jax.models.weights import load
from kd_jax.training.trained_model import write_variables

DESCRIPTION = "architecture.json"


def write(student: Student, folder: Path) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Writes model.safetensors, architecture.json and tokenizer.json; returns what reads them
    back."""
    (folder / DESCRIPTION).unlink(missing_ok=True)  # Its presence says that all of it is whole.
    write_variables(folder / "model.safetensors", student.variables)
    tokenizer = None
    if student.tokenizer is not None:
        tokenizer = student.ready_tokenizer().to_str(pretty=True)
        (folder / seal.TOKENIZER).write_text(tokenizer, encoding="utf-8")
    # All that a prediction needs to know, so that the folder works without its run.
    kept = {
        key: student.description[key]
        for key in ("inputs", "view", "columns", "class_names", "dtype", "task")
        if key in student.description
    }
    architecture = {
        "architecture": registry.describe(student.module),
        "fingerprint": fingerprint(student.variables),
    }
    # Written last, since its presence says that the other files are whole.
    write_json(folder / DESCRIPTION, seal.seal(architecture | kept, tokenizer))
    # Loaded from the folder, so that the comparison tests the files and not what is in memory.
    module, variables = load.load(folder)
    run = jax.jit(lambda inputs: apply(module, variables, inputs))
    return lambda inputs: np.asarray(run(dict(inputs)))
