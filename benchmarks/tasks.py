r"""What metrics add to an evaluation pass, and tagging's training step beside a classifier's.

  uv run benchmarks/tasks.py [--pairs=12]

An encoder of MiniLM's size, texts of 32 tokens, random weights. An evaluation is of 512 examples.
Its metrics are timed by themselves, as an evaluation of a model that gives stored logits at once,
and compared with the encoder's pass: a difference of two passes would drown in their noise; bound:
0.02. Tagging learns a tag
for each token in place of one class a text; bound: 1.1. Contenders are interleaved; see `pairs.py`
for what is kept and printed."""

import argparse
import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pairs import interleave, show

from kd_jax.core.types import Batch, ModelOutput
from kd_jax.models import registry
from kd_jax.models.network import Network
from kd_jax.objective.objective import make_objective
from kd_jax.objective.terms import TermSpec
from kd_jax.tasks import Task, make_task
from kd_jax.training import xla_flags
from kd_jax.training.evaluate import eval_step, evaluate
from kd_jax.training.state import TrainState
from kd_jax.training.step import ModelTraining, PeerGroup, train_step

BATCH, LENGTH, CLASSES, BATCHES = 64, 32, 9, 8
ENCODER = dict(
    name="encoder",
    vocabulary_size=30_522,
    width=384,
    layers=6,
    heads=12,
    intermediate=1_536,
    max_positions=512,
    type_vocabulary=2,
    dropout=0.1,
    pooling="mean",
    num_classes=CLASSES,
)
RNG = np.random.default_rng(0)


def batch_of(task: Task) -> Batch:
    """Random tokens, and labels as the task has them."""
    view = {
        "input_ids": RNG.integers(0, 30_522, (BATCH, LENGTH)).astype(np.int32),
        "attention_mask": np.ones((BATCH, LENGTH), bool),
    }
    index, valid = np.arange(BATCH, dtype=np.int32), np.ones(BATCH, bool)
    if task.words:
        view["positions"] = np.tile(np.arange(LENGTH, dtype=np.int32), (BATCH, 1))
        labels = RNG.integers(0, CLASSES, (BATCH, LENGTH)).astype(np.int32)
        return Batch(index, {"v": view}, labels, valid, valid, view["positions"] >= 0)
    labels = {
        "classification": RNG.integers(0, CLASSES, BATCH).astype(np.int32),
        "multilabel": (RNG.random((BATCH, CLASSES)) < 0.3).astype(np.float32),
        "regression": RNG.normal(size=(BATCH, CLASSES)).astype(np.float32),
    }[task.name]
    return Batch(index, {"v": view}, labels, valid, valid)


def network_of(task: Task) -> Network:
    spec = ENCODER | ({"predicts": task.predicts} if task.predicts != "example" else {})
    return Network(registry.build(spec), "v", jnp.float32)


def evaluations(name: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """A pass with a task's metrics but without an encoder, and one that only fetches its logits."""
    task = make_task(name)
    if name == "tagging":
        tags = tuple(f"{p}-{k}" for p in "BI" for k in "abcd")
        task = replace(task, tags=("O", *tags))
    network, batch = network_of(task), batch_of(task)
    variables = network.init(jax.random.key(0), batch)
    batches = [replace(batch, index=batch.index + BATCH * i) for i in range(BATCHES)]
    logits = network(variables, batch).logits

    def stored(found: Any, batch: Batch) -> ModelOutput:
        del batch
        return ModelOutput(found, {})

    step = jax.jit(functools.partial(eval_step, forward=stored, task=task))
    forward = jax.jit(lambda variables, batch: network(variables, batch).logits)

    def plain() -> None:
        for each in batches:
            np.asarray(forward(variables, each))

    return lambda: evaluate(step, logits, {}, batches, task) and None, plain


def compiled_step(name: str) -> Callable[[], None]:
    """One training step from labels, which keeps its state."""
    task = make_task(name)
    network, rows = network_of(task), batch_of(task)
    variables = network.init(jax.random.key(0), rows)
    output = jax.eval_shape(network, variables, rows)
    spec = TermSpec("v", output, {}, LENGTH, {}, np.asarray(rows.labels), CLASSES, task=task)
    objective = make_objective(dict(hard=dict(term="cross_entropy", weight=1.0)), spec)
    training = ModelTraining(network, objective, optax.adamw(1e-4))
    group = PeerGroup({"s": training}, 0, None, task)
    step = jax.jit(functools.partial(train_step, group=group), donate_argnums=0)
    batch = jax.device_put(jax.tree.map(lambda leaf: leaf[None], rows))
    state = TrainState(jnp.zeros((), jnp.int32), {"s": training.init(variables, jax.random.key(1))})

    def run() -> None:
        nonlocal state
        state, metrics = step(state, {}, batch)
        jax.block_until_ready((state, metrics))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=12)
    pairs = parser.parse_args().pairs
    xla_flags.prepare(text=True)
    held = []
    for name in ("classification", "multilabel", "regression", "tagging"):
        measured, plain = evaluations(name)
        for run in (measured, plain) * 2:
            run()
        samples = interleave(measured, plain, pairs=pairs, limit=6 * pairs)
        held.append(show(f"the metrics of {name}, of an encoder's pass", samples, 0.02))
    tagging, classifying = compiled_step("tagging"), compiled_step("classification")
    for run in (tagging, classifying) * 2:
        run()
    samples = interleave(tagging, classifying, pairs=pairs, limit=6 * pairs)
    held.append(show("a training step of tagging, of a classifier's", samples, 1.1))
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
