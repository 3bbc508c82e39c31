"""Whether what was written computes what the live model computes."""

from collections.abc import Callable

import jax
import numpy as np

from kd_jax.export.student import Student

BATCH_SIZES = (1, 3, 64)
"""Of the inputs that are compared."""

TOLERANCE = 1e-4
"""The largest difference of a logit that passes, against the largest logit where that is above
1."""


def sample(student: Student, rows: int, length: int | None = None) -> dict[str, np.ndarray]:
    """Inputs of the student's own shapes, the same every time: noise for images, texts of all
    lengths, padded to `length` tokens, or to as many as in training."""
    # The number of rows is the seed: the same sample every time, another for each size.
    rng, inputs = np.random.default_rng(rows), {}
    for name, shape in student.shapes(rows, length).items():
        if name == "images":
            inputs[name] = rng.normal(size=shape.shape).astype(shape.dtype)
        elif name == "input_ids":
            # Ids of the whole vocabulary, so that a wrong row of the embedding shows.
            inputs[name] = rng.integers(
                0, student.description["architecture"]["vocabulary_size"], shape.shape
            )
        elif name == "attention_mask":
            # At least one token, since attention over none has no meaning.
            lengths = rng.integers(1, shape.shape[1] + 1, rows)
            inputs[name] = np.arange(shape.shape[1])[None] < lengths[:, None]
        else:
            # No more types than the model has; of one type, or none, all tokens are of the first.
            types = student.description["architecture"].get("type_vocabulary", 2)
            inputs[name] = rng.integers(0, min(max(types, 1), 2), shape.shape)
        inputs[name] = inputs[name].astype(shape.dtype)
    return inputs


def largest_difference(
    student: Student,
    run: Callable[[dict[str, np.ndarray]], np.ndarray],
    rows: int,
    length: int | None = None,
) -> float:
    """Measures the largest difference of `run`'s logits from the live student's on a sample.

    Absolute, or relative to the largest logit where that is above 1; inf for another shape.
    """
    # Other logits for the same input would be the exporter's fault, so both get the same sample.
    inputs = sample(student, rows, length)
    want = np.asarray(jax.jit(student.logits)(*inputs.values()))
    found = np.asarray(run(inputs))
    # What stands at padding is meaningless, and each library has its own.
    if want.ndim == 3 and found.shape == want.shape:
        there = inputs["attention_mask"]
        want, found = want[there], found[there]
    # A wrong shape counts as an infinite difference, so that it fails like a wrong number.
    return (
        float(np.abs(found - want).max() / max(1.0, np.abs(want).max()))
        if found.shape == want.shape
        else np.inf
    )
