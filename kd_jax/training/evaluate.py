"""Evaluation: sums over every example of a split, exact under padding, divided once at the end."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax import losses
from kd_jax.core.types import Batch, Mean, ModelOutput, PyTree, Variables
from kd_jax.training.step import accuracy, sum_over

CALIBRATION_BINS = 15
"""Equal-width confidence bins, as in Guo et al. (https://arxiv.org/abs/1706.04599)."""


def calibration_sums(logits: jax.Array, batch: Batch) -> jax.Array:
    """[bins, 3]: examples, sum of confidences and number right in each bin of confidence."""
    probabilities = jax.nn.softmax(logits)
    confidence = jnp.max(probabilities, axis=-1)
    labels = batch.labels if batch.labels.ndim == 1 else jnp.argmax(batch.labels, axis=-1)
    counted = (batch.valid & batch.label_valid).astype(logits.dtype)
    right = (jnp.argmax(logits, axis=-1) == labels) * counted
    bins = jnp.clip(
        jnp.ceil(confidence * CALIBRATION_BINS).astype(jnp.int32) - 1, 0, CALIBRATION_BINS - 1
    )
    columns = jnp.stack([counted, confidence * counted, right], axis=-1)
    return jax.ops.segment_sum(columns, bins, num_segments=CALIBRATION_BINS)


def calibration_error(sums: np.ndarray) -> float:
    """Expected calibration error in 0..1 from `calibration_sums` added up over a split."""
    examples = sums[:, 0].sum()
    return float(np.abs(sums[:, 1] - sums[:, 2]).sum() / examples) if examples else 0.0


def eval_step(
    variables: Variables,
    frozen: Mapping[str, Variables],
    batch: Batch,
    *,
    network: Callable[[Any, Batch], ModelOutput],
    teachers: Mapping[str, Callable[[Any, Batch], ModelOutput]],
    axis_name: str | None = None,
) -> dict[str, Any]:
    """Sums over one batch.

    Args:
      variables: the model's.
      frozen: its teachers', by name.
      batch: leaves `[rows, ...]`; rows that aren't valid count nowhere.
      network: the model.
      teachers: whom to compare it with.
      axis_name: pmap's axis, None under jit.

    Returns:
      `Mean`s by metric, over labelled examples ("accuracy", "loss" in nats) or all
      ("agreement/<teacher>", "teacher_kl/<teacher>" in nats at temperature 1), and "calibration"
      sums [bins, 3].
    """
    logits = network(variables, batch).logits
    labelled = batch.valid & batch.label_valid
    nats = jnp.where(labelled, losses.cross_entropy(logits, jnp.asarray(batch.labels)), 0)
    sums: dict[str, Any] = {
        "accuracy": accuracy(logits, batch),
        "loss": Mean(jnp.sum(nats), jnp.sum(labelled)),
        "calibration": calibration_sums(logits, batch),
    }
    for name, teacher in teachers.items():
        taught = teacher(frozen[name], batch).logits
        count = jnp.sum(batch.valid)
        same = (jnp.argmax(logits, axis=-1) == jnp.argmax(taught, axis=-1)) & batch.valid
        divergence = jnp.where(
            batch.valid, losses.soft_target_kl(logits, taught, temperature=1.0), 0
        )
        sums[f"agreement/{name}"] = Mean(jnp.sum(same), count)
        sums[f"teacher_kl/{name}"] = Mean(jnp.sum(divergence), count)
    return sum_over(sums, axis_name)


def evaluate(
    compiled_step: Callable[[PyTree, PyTree, Batch], dict[str, Any]],
    variables: Variables,
    frozen: Mapping[str, Variables],
    batches: Iterable[Batch],
) -> dict[str, Any]:
    """Metrics of a whole split: "accuracy", "loss", "ece", and "agreement" and "teacher_kl" by
      teacher.

    Sums are added in float64 on the host, so the result doesn't depend on how the split was
    batched."""
    sums: dict[str, Any] = {}
    for batch in batches:
        parts = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), compiled_step(variables, frozen, batch)
        )
        sums = parts if not sums else jax.tree.map(np.add, sums, parts)
    bins = sums.pop("calibration")
    metrics: dict[str, Any] = {"agreement": {}, "teacher_kl": {}}
    for name, mean in sums.items():
        value = float(mean.total / max(mean.count, 1))
        kind, _, teacher = name.partition("/")
        if teacher:
            metrics[kind][teacher] = value
        else:
            metrics[name] = value
    return metrics | {"ece": calibration_error(bins)}
