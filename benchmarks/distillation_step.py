r"""What one distillation step costs beside the sum of its parts, a pipeline that feeds it, and a
second start.

  uv run benchmarks/distillation_step.py [--pairs=30] [--layers=6] [--width=384]

Teacher: an encoder of MiniLM's size with random weights, run live. Student: an encoder of 2 layers
and width 128. Batch 32, 64 tokens, docstrings. Contenders are interleaved; see `pairs.py` for what
is kept and printed."""

import argparse
import functools
import os
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental.compilation_cache import compilation_cache
from pairs import interleave, show, timed

from kd_jax.core.types import Teacher
from kd_jax.data.batches import training_batches
from kd_jax.data.open import open_source
from kd_jax.data.views.text import TextView, load_tokenizer
from kd_jax.distiller import Distiller
from kd_jax.models import registry
from kd_jax.models.network import Network
from kd_jax.objective.objective import make_objective
from kd_jax.objective.terms import StepContext, TermSpec
from kd_jax.training.optimizers import make_optimizer
from kd_jax.training.sharding import make_parallel
from kd_jax.training.state import TrainState
from kd_jax.training.step import ModelTraining, PeerGroup, train_step

BATCH, TOKENS, VOCABULARY = 32, 64, 30522
STUDENT = dict(name="encoder", width=128, layers=2, heads=2, intermediate=512)
SHARED = dict(
    vocabulary_size=VOCABULARY,
    num_classes=8,
    max_positions=512,
    type_vocabulary=2,
    dropout=0.1,
    pooling="mean",
)


def make_batches():
    source = open_source(
        "docstrings", "train", dir=None, inputs="text", label="label", max_rejected=0
    )
    tokenizer = load_tokenizer("trained", texts=source.inputs, vocabulary_size=VOCABULARY)
    views = {"text": TextView(tokenizer, TOKENS).prepare(source)}
    return training_batches(
        source,
        views,
        batch_size=BATCH,
        accumulate=1,
        seed=0,
        process_index=0,
        process_count=1,
        buckets=(TOKENS,),
    )


def make_case(teacher_spec, batch):
    rows = jax.tree.map(lambda leaf: leaf[0], batch)
    student, teacher = (
        Network(registry.build(spec | SHARED), "text", jnp.float32)
        for spec in (STUDENT, teacher_spec)
    )
    variables, frozen = student.init(jax.random.key(0), rows), teacher.init(jax.random.key(1), rows)
    spec = TermSpec(
        "text",
        jax.eval_shape(student, variables, rows),
        {"t": jax.eval_shape(teacher, frozen, rows)},
        TOKENS,
        {"t": "text"},
        np.zeros(1, np.int32),
        8,
    )
    objective = make_objective(
        dict(
            hard=dict(term="cross_entropy", weight=0.1),
            soft=dict(term="soft_target_kl", weight=0.9, temperature=2.0),
        ),
        spec,
    )
    optimizer, _ = make_optimizer(
        dict(name="adamw", learning_rate=1e-3, weight_decay=0.01, clip_norm=1.0),
        dict(name="constant", warmup_steps=0),
        1000,
    )
    training = ModelTraining(student, objective, optimizer)
    state = TrainState(jnp.zeros((), jnp.int32), {"s": training.init(variables, jax.random.key(2))})
    parallel = make_parallel(backend="jit", data=1, fsdp=1, tensor=1)
    group, teachers = PeerGroup({"s": training}, 0), {"t": Teacher(frozen, teacher)}
    return Distiller.of_group(group, teachers, parallel), state


def part_functions(distiller):
    """Teacher forward; student forward and backward; optimizer: each compiled alone."""
    training, teacher = distiller.group.models["s"], distiller.teachers["t"].forward

    def loss(trainable, taught, batch):
        key = jax.random.key(0)
        variables = {"params": trainable["model"]}
        output, _ = training.network.train(variables, batch, dropout_key=key, axis_name=None)
        sums, _ = training.objective.sums({}, {}, StepContext(output, {"t": taught}, batch, 0, key))
        return training.objective.weighted_sum(sums, training.objective.normalizers(batch), 0)

    def optimize(gradients, opt_state, trainable):
        updates, opt_state = training.optimizer.update(gradients, opt_state, trainable)
        return optax.apply_updates(trainable, updates), opt_state

    donated = jax.jit(optimize, donate_argnums=(1, 2))
    return jax.jit(teacher), jax.jit(jax.grad(loss)), donated


def whole_against_parts(case, batch, pairs):
    distiller, state = case
    teach, differentiate, optimize = part_functions(distiller)
    frozen = distiller.teachers["t"].variables
    rows = jax.device_put(jax.tree.map(lambda leaf: leaf[0], batch))
    student = state.models["s"]
    box = {"state": jax.tree.map(jnp.array, state)}
    box["trainable"], box["opt"] = jax.tree.map(
        jnp.array, ({"model": student.params, "objective": {}}, student.opt_state)
    )

    def whole():
        box["state"], metrics = distiller.advance(box["state"], batch)
        jax.block_until_ready((box["state"], metrics))

    def parts():
        taught = jax.block_until_ready(teach(frozen, rows))
        gradients = jax.block_until_ready(differentiate(box["trainable"], taught, rows))
        box["trainable"], box["opt"] = jax.block_until_ready(
            optimize(gradients, box["opt"], box["trainable"])
        )

    for run in (whole, parts):
        run()
    return interleave(whole, parts, pairs=pairs, limit=5 * pairs)


def fed_against_fixed(case, batches, batch, pairs):
    distiller, state = case
    box = {"state": jax.tree.map(jnp.array, state)}

    def advance(get):
        box["state"], metrics = distiller.advance(box["state"], get())
        jax.block_until_ready((box["state"], metrics))

    fed, fixed = (lambda: advance(lambda: next(batches))), (lambda: advance(lambda: batch))
    for run in (fed, fixed):
        run()
    return interleave(fed, fixed, pairs=pairs, limit=5 * pairs)


def second_against_first_start(case, batch, pairs):
    distiller, state = case
    step = jax.jit(functools.partial(train_step, group=distiller.group))

    def compile_step():
        jax.clear_caches()
        compilation_cache.reset_cache()
        step.lower(state, distiller.teachers, batch).compile()

    def first():
        jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())
        compile_step()

    # The second start reads what the pair's first one wrote, so the order within a pair is fixed.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    samples = []
    for _ in range(5 * pairs):
        (cold, quiet_cold), (warm, quiet_warm) = timed(first), timed(compile_step)
        if quiet_cold and quiet_warm:
            samples.append((warm, cold))
        if len(samples) == pairs:
            break
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    return np.array(samples).reshape(-1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    arguments = parser.parse_args()
    teacher = dict(
        name="encoder",
        width=arguments.width,
        layers=arguments.layers,
        heads=12,
        intermediate=4 * arguments.width,
    )
    batches = make_batches()
    batch = next(batches)
    case = make_case(teacher, batch)
    print(
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {os.cpu_count()} cores", flush=True
    )
    show(
        "whole step over the sum of its parts",
        whole_against_parts(case, batch, arguments.pairs),
        1.05,
    )
    show(
        "step fed by the pipeline over one fixed batch",
        fed_against_fixed(case, batches, batch, arguments.pairs),
        1.03,
    )
    show(
        "trace and compile, second start over first",
        second_against_first_start(case, batch, arguments.pairs),
        0.5,
    )


if __name__ == "__main__":
    main()
