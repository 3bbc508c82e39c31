"""Evaluation: sums over every example of a split, exact under padding, divided once at the end."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax import losses
from kd_jax.core.types import Batch, ForwardFn, Mean, PyTree, Teacher, Variables
from kd_jax.training.step import accuracy, all_reduce_sum

CALIBRATION_BINS = 15
"""Equal-width confidence bins, as in Guo et al. (https://arxiv.org/abs/1706.04599)."""


def calibration_sums(logits: jax.Array, batch: Batch) -> jax.Array:
    """Returns [bins, 3]: examples, sum of confidences and number right, by bin of confidence."""
    # Padding and examples without a label have no right answer, so they count in no bin.
    probabilities = jax.nn.softmax(logits)
    confidence = jnp.max(probabilities, axis=-1)
    # Of a soft label the largest class is the right one.
    labels = batch.labels if batch.labels.ndim == 1 else jnp.argmax(batch.labels, axis=-1)
    counted = (batch.valid & batch.label_valid).astype(logits.dtype)
    right = (jnp.argmax(logits, axis=-1) == labels) * counted
    # Bins are open on the left, so a confidence of exactly 1 falls into the last one.
    bins = jnp.clip(
        jnp.ceil(confidence * CALIBRATION_BINS).astype(jnp.int32) - 1, 0, CALIBRATION_BINS - 1
    )
    columns = jnp.stack([counted, confidence * counted, right], axis=-1)
    return jax.ops.segment_sum(columns, bins, num_segments=CALIBRATION_BINS)


def calibration_error(sums: np.ndarray) -> float:
    """Computes the expected calibration error in 0..1 from `calibration_sums` added up over a
    split.
    """
    examples = sums[:, 0].sum()
    return float(np.abs(sums[:, 1] - sums[:, 2]).sum() / examples) if examples else 0.0


def eval_step(
    variables: Variables,
    teachers: Mapping[str, Teacher],
    batch: Batch,
    *,
    forward: ForwardFn,
    axis_name: str | None = None,
) -> dict[str, Any]:
    """Sums a model's metrics over one batch.

    Args:
      variables: the model's.
      teachers: with whom to compare it, by name.
      batch: leaves `[rows, ...]`; rows that aren't valid count nowhere.
      forward: the model.
      axis_name: pmap's axis; None under jit.

    Returns:
      `Mean`s by metric, over labelled examples ("accuracy", "loss" in nats) or all
      ("agreement/<teacher>", "teacher_kl/<teacher>" in nats at temperature 1), and "calibration"
      sums [bins, 3].
    """
    # Shapes are fixed under jit: rows that don't count are computed too and set to 0.
    logits = forward(variables, batch).logits
    labelled = batch.valid & batch.label_valid
    # Rows that only fill the batch may hold anything, also what gives infinity.
    nats = jnp.where(labelled, losses.cross_entropy(logits, jnp.asarray(batch.labels)), 0)
    sums: dict[str, Any] = {
        "accuracy": accuracy(logits, batch),
        "loss": Mean(jnp.sum(nats), jnp.sum(labelled)),
        "calibration": calibration_sums(logits, batch),
    }
    # A comparison with a teacher needs no label, so every valid example counts.
    for name, teacher in teachers.items():
        teacher_logits = teacher(batch).logits
        # Agreement with a teacher needs no label.
        count = jnp.sum(batch.valid)
        same = (jnp.argmax(logits, axis=-1) == jnp.argmax(teacher_logits, axis=-1)) & batch.valid
        kl = losses.soft_target_kl(logits, teacher_logits, temperature=1.0)
        sums[f"agreement/{name}"] = Mean(jnp.sum(same), count)
        sums[f"teacher_kl/{name}"] = Mean(jnp.sum(jnp.where(batch.valid, kl, 0)), count)
    return all_reduce_sum(sums, axis_name)


def evaluate(
    compiled_step: Callable[[PyTree, PyTree, Batch], dict[str, Any]],
    variables: Variables,
    teachers: Mapping[str, Teacher],
    batches: Iterable[Batch],
) -> dict[str, Any]:
    """Computes metrics of a whole split: "accuracy", "loss", "ece", and those by teacher.

    Args:
      compiled_step: `eval_step`, compiled.
      variables: the model's.
      teachers: with whom to compare it, by name.
      batches: the split, each example once.

    Returns:
      "accuracy", "loss" and "ece" as floats; "agreement" and "teacher_kl" by teacher's name.
    """
    sums: dict[str, Any] = {}
    for batch in batches:
        # Added in float64 on the host: the result doesn't depend on how the split was batched.
        parts = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), compiled_step(variables, teachers, batch)
        )
        sums = parts if not sums else jax.tree.map(np.add, sums, parts)
    # The bins are no mean; they are reduced to one number at the very end.
    bins = sums.pop("calibration")
    metrics: dict[str, Any] = {"agreement": {}, "teacher_kl": {}}
    for name, mean in sums.items():
        # A split without labels gives 0 here instead of a division by zero.
        value = float(mean.total / max(mean.count, 1))
        kind, _, teacher = name.partition("/")
        if teacher:
            metrics[kind][teacher] = value
        else:
            metrics[name] = value
    return metrics | {"ece": calibration_error(bins)}
