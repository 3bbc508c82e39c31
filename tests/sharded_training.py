"""A student and its teacher, trained on any layout of devices, for tests that compare layouts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kd_jax.core.types import Batch, Teacher
from kd_jax.distiller import Distiller
from kd_jax.models import registry
from kd_jax.models.network import Network
from kd_jax.objective.objective import make_objective
from kd_jax.objective.terms import TermSpec
from kd_jax.training.sharding import make_parallel
from kd_jax.training.state import TrainState
from kd_jax.training.step import ModelTraining, PeerGroup

STEPS, ROWS = 30, 32
LAYOUTS = {
    "jit on 1 device": dict(backend="jit", data=1, fsdp=1),
    "jit on 8 devices": dict(backend="jit", data=8, fsdp=1),
    "jit with fsdp=4": dict(backend="jit", data=2, fsdp=4),
    "jit with tensor=4": dict(backend="jit", data=1, fsdp=2, tensor=4),
    "jit with fsdp=2, tensor=2": dict(backend="jit", data=2, fsdp=2, tensor=2),
    "pmap on 1 device": dict(backend="pmap", data=1, fsdp=1),
    "pmap on 8 devices": dict(backend="pmap", data=8, fsdp=1),
}
CNN = dict(name="cnn", num_classes=3, widths=(8, 16), batch_norm=True)
RESNET = dict(name="cifar_resnet", num_classes=3, depth=8, stem=4, widths=(4, 8, 8), shortcut="pad")
BAG = dict(
    name="bag_of_embeddings", num_classes=3, vocabulary_size=40, width=16, hidden=(8,), dropout=0.0
)
ENCODER = dict(
    name="encoder",
    num_classes=3,
    vocabulary_size=40,
    width=12,
    layers=1,
    heads=2,
    intermediate=16,
    max_positions=16,
    type_vocabulary=2,
    dropout=0.0,
    pooling="mean",
)
HARD = dict(term="cross_entropy", weight=0.3)
SOFT = dict(term="soft_target_kl", weight=0.7, temperature=2.0)


def image_batch(step, valid_rows=ROWS):
    rng = np.random.default_rng(step)
    views = {"v": {"images": rng.normal(size=(ROWS, 8, 8, 1))}}
    return batch_of(views, rng, np.arange(ROWS) < valid_rows)


def text_batch(step):
    rng = np.random.default_rng(step)
    lengths = rng.integers(1, 13, size=ROWS)
    mask = np.arange(12) < lengths[:, None]
    ids = np.where(mask, rng.integers(1, 40, size=(ROWS, 12)), 0).astype(np.int32)
    # Uneven everywhere: lengths differ from row to row, valid rows and labels from device to
    # device.
    return batch_of({"v": {"input_ids": ids, "attention_mask": mask}}, rng, rng.random(ROWS) < 0.7)


def batch_of(views, rng, valid):
    labels = rng.integers(0, 3, size=ROWS).astype(np.int32)
    return Batch(np.arange(ROWS, dtype=np.int32), views, labels, rng.random(ROWS) < 0.8, valid)


def make_case(student, teacher, objective, batch, dtype=jnp.float64):
    """A group of one student and one teacher, its first state, and the teacher's variables."""
    networks = {
        name: Network(registry.build(spec), "v", dtype)
        for name, spec in (("s", student), ("t", teacher))
    }
    variables = {
        name: n.init(jax.random.key(i), batch) for i, (name, n) in enumerate(networks.items())
    }
    shapes = {name: jax.eval_shape(n, variables[name], batch) for name, n in networks.items()}
    tokens = batch.views["v"]["input_ids"].shape[1] if "input_ids" in batch.views["v"] else None
    inputs = {
        "v": jax.eval_shape(
            lambda view: {name: leaf[:1] for name, leaf in view.items()}, batch.views["v"]
        )
    }
    site = TermSpec(
        "v", shapes["s"], {"t": shapes["t"]}, tokens, {"t": "v"}, np.arange(ROWS) % 3, 3, inputs
    )
    built = make_objective(objective, site)
    learner = ModelTraining(
        networks["s"], built, optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))
    )
    state = TrainState(
        jnp.zeros((), jnp.int32), {"s": learner.init(variables["s"], jax.random.key(9))}
    )
    return PeerGroup({"s": learner}, seed=5), state, {"t": Teacher(variables["t"], networks["t"])}


def train(case, make_batch, layout, accumulate=1, steps=STEPS):
    """Losses of so many steps and the state after them."""
    group, state, frozen = case
    parallel = make_parallel(**{"tensor": 1, **layout})
    state, frozen = parallel.place(jax.tree.map(jnp.array, state)), parallel.place(frozen)
    distiller = Distiller.of_group(group, frozen, parallel)
    losses = []
    for number in range(steps):
        batch = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), make_batch(number))
        state, metrics = distiller.advance(state, batch)
        losses.append(float(metrics["s"]["loss"]))
    return np.array(losses), jax.tree.map(np.asarray, state)
