r"""What looking a teacher's kept outputs up costs of a training step.

  uv run benchmarks/stored_outputs.py [--pairs=30]

Logits of 2 and of 50,000 classes, whole and as the 64 largest, and vectors of tokens, of 8,192
examples in files as training reads them; beside them the step that reads them, of a student of 2
blocks of MiniLM's width, batch 128, 32 tokens, on the same cores. Bound: 3 % of the step."""

import argparse
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pairs import interleave, show

from kd_jax.core.types import LOGITS, Batch
from kd_jax.distiller import Distiller
from kd_jax.models import registry
from kd_jax.models.network import Network
from kd_jax.objective.objective import make_objective
from kd_jax.objective.terms import TermSpec
from kd_jax.teachers.compression import Compression
from kd_jax.teachers.outputs import Alike, Outputs
from kd_jax.teachers.store import Store
from kd_jax.training import host_memory
from kd_jax.training.sharding import make_parallel
from kd_jax.training.state import TrainState
from kd_jax.training.step import ModelTraining, PeerGroup

ROWS, BATCH, TOKENS, WIDTH = 8192, 128, 32, 384
BOUND = 0.03
STUDENT = dict(
    name="encoder",
    num_classes=2,
    vocabulary_size=30_522,
    width=WIDTH,
    layers=2,
    heads=12,
    intermediate=4 * WIDTH,
    max_positions=512,
    type_vocabulary=2,
    dropout=0.1,
    pooling="mean",
)


def kept(folder: Path, name: str, make) -> Outputs:
    """Writes outputs to files and opens them; `make` returns those of some rows by name."""
    names = [*make(1)]
    store = Store(folder, (name,), ROWS, names, 1024)
    for part in store.parts:
        store.write(part, {key: Alike(values) for key, values in make(len(part)).items()})
    store.finish()
    return Outputs(store.open(names))


def outputs(folder: Path) -> dict[str, Outputs]:
    """Returns what is looked up, by what it is called in the table."""
    rng = np.random.default_rng(0)

    def logits(rows: int, classes: int) -> np.ndarray:
        return rng.normal(size=(rows, classes)).astype(np.float32)

    def largest(rows: int) -> dict[str, np.ndarray]:
        found = Compression(top_k=64, dtype="float16").compress(jnp.asarray(logits(rows, 50_000)))
        return {key: np.asarray(value) for key, value in found.items()}

    def tokens(rows: int) -> dict[str, np.ndarray]:
        vectors = rng.normal(size=(rows, TOKENS, WIDTH)).astype(np.float32)
        return {LOGITS: logits(rows, 2), "block_5": vectors}

    return {
        "2 logits": kept(folder, "few", lambda rows: {LOGITS: logits(rows, 2)}),
        "50,000 logits": kept(folder, "many", lambda rows: {LOGITS: logits(rows, 50_000)}),
        "the 64 largest of 50,000": kept(folder, "largest", largest),
        "32 vectors of 384": kept(folder, "tokens", tokens),
    }


def step():
    """Returns a function that takes a step of the student."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 30_000, (1, BATCH, TOKENS)).astype(np.int32)
    view = {"input_ids": ids, "attention_mask": np.ones_like(ids, bool)}
    flags = np.ones((1, BATCH), bool)
    labels = rng.integers(0, 2, (1, BATCH)).astype(np.int32)
    batch = Batch(np.arange(BATCH, dtype=np.int32)[None], {"v": view}, labels, flags, flags)
    one = jax.tree.map(lambda leaf: leaf[0], batch)
    network = Network(registry.build(STUDENT), "v", jnp.float32)
    variables = network.init(jax.random.key(0), one)
    shape = jax.eval_shape(network, variables, one)
    site = TermSpec("v", shape, {}, TOKENS, {}, np.zeros(1, np.int32), 2)
    objective = make_objective(dict(hard=dict(term="cross_entropy", weight=1.0)), site)
    training = ModelTraining(network, objective, optax.adamw(1e-4))
    parallel = make_parallel(backend="jit", data=1, fsdp=1, tensor=1)
    state = TrainState(jnp.zeros((), "int32"), {"s": training.init(variables, jax.random.key(1))})
    distiller = Distiller.of_group(PeerGroup({"s": training}, 0), {}, parallel)
    held = [parallel.place(state)]

    def call():
        held[0], metrics = distiller.advance(held[0], batch)
        return jax.block_until_ready(metrics)

    return call


def main() -> None:
    """Prints each ratio and whether it holds the bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    pairs = parser.parse_args().pairs
    # As the command does.
    host_memory.keep()
    rng, call = np.random.default_rng(1), step()
    call()
    with tempfile.TemporaryDirectory() as folder:
        fine = True
        for name, each in outputs(Path(folder)).items():

            def look_up(each=each):
                each.gather(rng.integers(0, ROWS, BATCH), TOKENS)

            samples = interleave(look_up, call, pairs=pairs, limit=4 * pairs)
            fine &= show(f"looking up {name} / step", samples, BOUND)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
