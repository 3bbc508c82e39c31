r"""What mixing adds to a training step of a ResNet-8, and an ensemble's forward pass beside those
of its members.

  uv run benchmarks/mixing.py [--pairs=20]

Batch 64, random images of 32x32, SGD. Bounds: 1.03 of the step without mixing; the sum of three
members, one call each. Contenders are interleaved; see `pairs.py` for what is kept and printed."""

import argparse
import functools
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pairs import interleave, show

from kd_jax.core.types import Batch
from kd_jax.models import registry
from kd_jax.models.network import Network
from kd_jax.objective.objective import make_objective
from kd_jax.objective.terms import TermSpec
from kd_jax.teachers.ensemble import Ensemble
from kd_jax.training import xla_flags
from kd_jax.training.mixup import Mixing
from kd_jax.training.state import TrainState
from kd_jax.training.step import ModelTraining, PeerGroup, train_step

BATCH, CLASSES = 64, 10
STUDENT = dict(name="cifar_resnet8", num_classes=CLASSES)
MEMBERS = ("cifar_resnet8", "cifar_resnet14", "vgg8_cifar")
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
ROWS = Batch(
    np.arange(BATCH),
    {"v": {"images": IMAGES}},
    RNG.integers(0, CLASSES, BATCH).astype(np.int32),
    np.ones(BATCH, bool),
    np.ones(BATCH, bool),
)


def compiled_step(mixing: Mixing | None) -> Callable[[], None]:
    """One training step from labels, which keeps its state."""
    network = Network(registry.build(STUDENT), "v", jnp.float32)
    variables = network.init(jax.random.key(0), ROWS)
    spec = TermSpec(
        "v",
        jax.eval_shape(network, variables, ROWS),
        {},
        None,
        {},
        np.asarray(ROWS.labels),
        CLASSES,
    )
    objective = make_objective(dict(hard=dict(term="cross_entropy", weight=1.0)), spec)
    training = ModelTraining(network, objective, optax.sgd(0.05, momentum=0.9))
    group = PeerGroup({"s": training}, 0, mixing)
    step = jax.jit(functools.partial(train_step, group=group), donate_argnums=0)
    batch = jax.device_put(jax.tree.map(lambda leaf: leaf[None], ROWS))
    state = TrainState(jnp.zeros((), jnp.int32), {"s": training.init(variables, jax.random.key(1))})

    def run() -> None:
        nonlocal state
        state, metrics = step(state, {}, batch)
        jax.block_until_ready((state, metrics))

    return run


def compiled_ensemble() -> tuple[Callable[[], None], Callable[[], None]]:
    """Logits of an ensemble in one call, and of its members in a call each."""
    networks = {
        name: Network(registry.build(dict(name=name, num_classes=CLASSES)), "v", jnp.float32)
        for name in MEMBERS
    }
    variables = {name: network.init(jax.random.key(0), ROWS) for name, network in networks.items()}
    equal = (1 / len(MEMBERS),) * len(MEMBERS)
    ensemble = Ensemble(networks, "mean_probabilities", equal, (1.0,) * len(MEMBERS), "v")
    batch = jax.device_put(ROWS)
    together = jax.jit(lambda variables, batch: ensemble(variables, batch).logits)
    alone = {
        name: jax.jit(lambda variables, batch, network=network: network(variables, batch).logits)
        for name, network in networks.items()
    }

    def members() -> None:
        for name, forward in alone.items():
            jax.block_until_ready(forward(variables[name], batch))

    return lambda: jax.block_until_ready(together(variables, batch)), members


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=20)
    pairs = parser.parse_args().pairs
    xla_flags.prepare(text=False)
    plain, held = compiled_step(None), []
    for kind in ("mixup", "cutmix"):
        mixed = compiled_step(Mixing(kind, 1.0, 1.0, 1.0, 1, CLASSES))
        for run in (mixed, plain) * 3:
            run()
        samples = interleave(mixed, plain, pairs=pairs, limit=6 * pairs)
        held.append(show(f"step with {kind}, of one without", samples, 1.03))
    together, members = compiled_ensemble()
    for run in (together, members) * 3:
        run()
    held.append(
        show(
            "ensemble of three, of its members one by one",
            interleave(together, members, pairs=pairs, limit=6 * pairs),
            1.0,
        )
    )
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
