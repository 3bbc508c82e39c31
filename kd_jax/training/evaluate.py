"""Evaluation: sums over every example of a split, exact under padding, divided once at the end."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax import losses
from kd_jax.core.types import Batch, ForwardFn, Mean, PyTree, Teacher, Variables
from kd_jax.tasks import CLASSIFICATION, Rows, Task
from kd_jax.training.step import all_reduce_sum


def loss_of(term: str) -> Callable[..., jax.Array]:
    """Returns a task's loss by name, with its hyperparameters at their defaults."""
    return getattr(losses, term)


EvalStep = Callable[[PyTree, PyTree, Batch], dict[str, Any]]
"""`eval_step`, compiled: variables, teachers and a batch -> sums and rows."""


def eval_step(
    variables: Variables,
    teachers: Mapping[str, Teacher],
    batch: Batch,
    *,
    forward: ForwardFn,
    task: Task = CLASSIFICATION,
    axis_name: str | None = None,
) -> dict[str, Any]:
    """Sums a model's metrics over one batch.

    Args:
      variables: the model's.
      teachers: with whom to compare it, by name.
      batch: leaves `[rows, ...]`; rows that aren't valid count nowhere.
      forward: the model.
      task: what it predicts.
      axis_name: pmap's axis; None under jit.

    Returns:
      "sums": what the task sums over labelled examples, and what it compares, over all, as
      `Mean`s by "<comparison>/<teacher>". "rows": of all devices, what makes `Rows`, and which are
      "kept".
    """
    # Shapes are fixed under jit: rows that don't count are computed too and set to 0.
    outputs = forward(variables, batch).logits
    # What a teacher doesn't read of a text is no loss of the model's.
    view = getattr(forward, "view", "")
    own = batch.as_read(view)
    sums = task.sums(outputs, own)
    if task.hard_term is not None:
        counted, labels = task.counted(own), jnp.asarray(batch.labels)
        # Rows that only fill the batch may hold anything, also what gives infinity.
        values = jnp.where(counted, loss_of(task.hard_term)(outputs, labels), 0)
        sums |= {"loss": Mean(jnp.sum(values), jnp.sum(counted))}
    # A comparison with a teacher needs no label, so every valid example counts.
    taught = {name: teacher(batch).logits for name, teacher in teachers.items()}
    for name, theirs in taught.items():
        both = batch.as_read(view, getattr(teachers[name].forward, "view", ""))
        comparable = task.compared(both)
        count, compared = jnp.sum(comparable), {"agreement": task.agreement(outputs, theirs)}
        if task.divergence is not None:
            compared[task.divergence] = loss_of(task.soft_term)(outputs, theirs)
        for kind, each in compared.items():
            if each is not None:
                total = jnp.sum(jnp.where(comparable, each, 0))
                sums[f"{kind}/{name}"] = Mean(total, count)
    # Some metrics are of a whole split and no mean over its rows, so these leave the devices.
    made, labels = task.rows(outputs, own)
    rows = {
        "outputs": made,
        "labels": labels,
        "index": jnp.asarray(batch.index),
        "kept": task.kept(batch),
        "teachers": taught if task.meets_teachers else {},
    }
    if axis_name is not None:
        rows = jax.lax.all_gather(rows, axis_name, tiled=True)
    return {"sums": all_reduce_sum(sums, axis_name), "rows": rows}


def _wide(values: np.ndarray) -> np.ndarray:
    return values if values.dtype.kind in "iub" else values.astype(np.float64)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Joins the rows of all batches; with one value a word, all get as many as the longest."""
    if parts[0].ndim == 2 and len({part.shape[1] for part in parts}) > 1:
        longest = max(part.shape[1] for part in parts)
        fill = [((0, 0), (0, longest - part.shape[1])) for part in parts]
        parts = [np.pad(part, f, constant_values=-1) for part, f in zip(parts, fill, strict=True)]
    return np.concatenate(parts)


def evaluate(
    compiled_step: EvalStep,
    variables: Variables,
    teachers: Mapping[str, Teacher],
    batches: Iterable[Batch],
    task: Task = CLASSIFICATION,
    class_names: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """Computes metrics of a whole split: the task's, and those by teacher.

    Args:
      compiled_step: `eval_step`, compiled, of the same task.
      variables: the model's.
      teachers: with whom to compare it, by name.
      batches: the split, each example once.
      task: what the model predicts.
      class_names: [K] of the outputs, for what else the task knows of single rows: "details",
        "sample", "right", "errors" and how to "tell" a row, whose example is in "index"; None:
        without them.

    Returns:
      The task's metrics and "loss" as floats, None where one is undefined; its comparisons, such as
      "agreement" and "teacher_kl", by teacher's name.
    """
    sums, rows = collect(compiled_step, variables, teachers, batches)
    metrics: dict[str, Any] = {"agreement": {}}
    if task.divergence is not None:
        metrics[task.divergence] = {}
    for name in [name for name in sums if "/" in name]:
        kind, _, teacher = name.partition("/")
        mean: Mean = sums.pop(name)
        metrics[kind][teacher] = float(mean.total / max(float(mean.count), 1))
    loss: Mean | None = sums.pop("loss", None)
    metrics["loss"] = None if loss is None else float(loss.total / max(float(loss.count), 1))
    metrics |= task.summarize(sums, rows)
    if class_names is None:
        return metrics
    return metrics | {
        "details": task.details(rows, class_names),
        "sample": task.sample(rows),
        "right": task.right(rows),
        "errors": task.errors(rows),
        "index": rows.index,
        "tell": partial(task.tell_row, rows=rows, names=class_names),
    }


def collect(
    compiled_step: EvalStep,
    variables: Variables,
    teachers: Mapping[str, Teacher],
    batches: Iterable[Batch],
) -> tuple[dict[str, Any], Rows]:
    """Runs a model over a whole split.

    Args:
      compiled_step: `eval_step`, compiled.
      variables: the model's.
      teachers: with whom to compare it, by name.
      batches: the split, each example once.

    Returns:
      What `eval_step` sums, added up in float64, and the rows that count, in the split's order.
    """
    sums: dict[str, Any] = {}
    found: list[dict[str, Any]] = []
    for batch in batches:
        step = compiled_step(variables, teachers, batch)
        # Added in float64 on the host: the result doesn't depend on how the split was batched.
        parts = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), step["sums"])
        sums = parts if not sums else jax.tree.map(np.add, sums, parts)
        rows = jax.tree.map(np.asarray, step["rows"])
        kept = rows.pop("kept")
        # Numbers in float64, whatever they were computed in.
        wide = {key: jax.tree.map(_wide, rows[key]) for key in ("outputs", "teachers")}
        found.append(jax.tree.map(lambda column, kept=kept: column[kept], rows | wide))
    joined = jax.tree.map(lambda *columns: _joined(columns), *found)
    # Whatever batches the model's view makes: two models are compared row by row.
    order = np.argsort(joined["index"], kind="stable")
    return sums, Rows(**jax.tree.map(lambda column: column[order], joined))
