"""Tensor parallelism: what is cut where, what the devices send one another, and equal numbers."""

import functools
import re
from collections import Counter

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sharded_training as grid

from kd_jax.core.pytree import map_with_path
from kd_jax.models import registry
from kd_jax.models.layers.logical_axes import axes_of, constrain, is_cutting
from kd_jax.models.network import Network
from kd_jax.training.sharding import make_parallel
from kd_jax.training.step import train_step

BERT_BASE = dict(
    name="encoder",
    num_classes=2,
    vocabulary_size=30_522,
    width=768,
    layers=12,
    heads=12,
    intermediate=3072,
    max_positions=512,
    type_vocabulary=2,
    dropout=0.1,
    pooling="cls",
)
ENCODER = dict(grid.ENCODER, width=16, heads=4, intermediate=32, layers=2)
MODERN = dict(
    name="modernbert",
    num_classes=3,
    vocabulary_size=40,
    width=16,
    layers=2,
    heads=4,
    intermediate=24,
    dropout=0.0,
    max_positions=16,
    window=4,
    global_blocks=(0,),
    pooling="mean",
)
VIT = dict(
    name="vit",
    num_classes=3,
    image_size=8,
    patch=4,
    distillation=False,
    width=16,
    layers=2,
    heads=4,
    intermediate=32,
    dropout=0.0,
)
FAMILIES = {
    "encoder": (ENCODER, grid.text_batch),
    "encoder, scanned": (dict(ENCODER, scan=True), grid.text_batch),
    "encoder, dropout": (dict(ENCODER, dropout=0.1), grid.text_batch),
    "encoder, dropout, in chunks": (
        dict(ENCODER, dropout=0.1, query_chunk_size=5),
        grid.text_batch,
    ),
    "modernbert": (MODERN, grid.text_batch),
    "vit": (VIT, grid.image_batch),
    "bag of embeddings": (grid.BAG, grid.text_batch),
    "cnn": (grid.CNN, grid.image_batch),
}
MESHES = {"1 x 2 x 4": dict(data=1, fsdp=2, tensor=4), "2 x 2 x 2": dict(data=2, fsdp=2, tensor=2)}


def case_of(family, teacher=None):
    student, make_batch = FAMILIES[family]
    objective = dict(hard=grid.HARD, soft=grid.SOFT)
    return grid.make_case(student, teacher or student, objective, make_batch(0)), make_batch


def spec_of(path, shape, replicated=(), **mesh):
    parallel = make_parallel(
        **(dict(backend="jit", data=1, fsdp=1, tensor=1) | mesh), replicated=replicated
    )
    return tuple(parallel.sharding(path, np.zeros(shape)).spec)


# What is cut


@pytest.mark.parametrize(
    ("path", "axes"),
    [
        ("params/block_0/qkv/kernel", ("embed", "heads")),
        ("models/s/opt_state/0/mu/model/block_11/output/kernel", ("mlp", "embed")),
        ("params/blocks/intermediate/kernel", (None, "embed", "mlp")),
        ("params/word_embeddings/embedding", ("vocab", "embed")),
        ("params/language_bias", ("vocab",)),
        ("params/block_0/output_norm/scale", (None,)),
        ("params/my_output/kernel", (None, None)),
    ],
)
def test_axes_are_named_by_the_end_of_a_path(path, axes):
    assert axes_of(path, len(axes)) == axes


def test_tensor_cuts_heads_and_fsdp_the_largest_other_axis():
    assert spec_of("block_0/qkv/kernel", (16, 48), fsdp=2, tensor=4) == ("fsdp", "tensor")
    # Also where what tensor left of its axis is larger than the other one.
    assert spec_of("block_0/output/kernel", (128, 16), fsdp=2, tensor=4) == ("tensor", "fsdp")
    assert spec_of("block_0/output_norm/scale", (16,), fsdp=2, tensor=4) == ("fsdp",)
    assert spec_of("classifier/kernel", (16, 3), tensor=4) == ()


def test_an_odd_vocabulary_is_cut_along_its_width():
    assert spec_of("word_embeddings/embedding", (41, 16), tensor=4) == (None, "tensor")
    assert spec_of("word_embeddings/embedding", (40, 16), tensor=4) == ("tensor",)


def test_a_replicated_model_is_whole_on_each_device():
    path = "models/student/params/block_0/qkv/kernel"
    assert spec_of(path, (16, 48), ["student"], fsdp=2, tensor=4) == ()
    assert spec_of(path.replace("student", "peer"), (16, 48), ["student"], tensor=4) != ()


def test_a_device_holds_less_than_a_sixth_of_a_pair_of_bert_base():
    parallel = make_parallel(backend="jit", data=1, fsdp=2, tensor=4)
    network = Network(registry.build(BERT_BASE), "v", jnp.float32)
    batch = grid.text_batch(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), batch)
    whole = sum(leaf.size for leaf in jax.tree.leaves(shapes))

    def on_one(path, leaf):
        return int(np.prod(parallel.sharding(path, leaf).shard_shape(leaf.shape)))

    # Teacher, student and the student's two moments are all cut alike.
    assert sum(jax.tree.leaves(map_with_path(on_one, shapes))) < whole / 6


@pytest.mark.parametrize("tensor", [1, 4])
def test_steps_are_traced_where_activations_are_cut(tensor):
    parallel, seen = make_parallel(backend="jit", data=1, fsdp=1, tensor=tensor), []

    def step(state, *_, axis_name):
        seen.append(is_cutting())
        return state, axis_name

    state = {"a": jnp.zeros(4)}
    parallel.compile_train_step(step, state).lower(state, {}, {})
    assert seen == [tensor > 1]
    assert not is_cutting()


def test_activations_stay_as_they_are_where_nothing_is_cut():
    x = jnp.ones((2, 3))
    assert constrain(x, None, "mlp") is x


# Equal numbers


@pytest.fixture
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.grid
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_eight_devices_train_as_one(family, mesh, double_precision):
    case, make_batch = case_of(family)
    one = grid.train(case, make_batch, grid.LAYOUTS["jit on 1 device"], steps=3)
    eight = grid.train(case, make_batch, dict(backend="jit", **MESHES[mesh]), steps=3)
    np.testing.assert_allclose(eight[0], one[0], rtol=1e-9)
    chex.assert_trees_all_close(eight[1], one[1], rtol=1e-9, atol=1e-9)


# What devices send one another


def collectives(layout, batch):
    """Returns how often each kind of collective stands in a compiled step of two encoders."""
    (group, state, frozen), _ = case_of("encoder")
    parallel = make_parallel(backend="jit", **layout)
    state, frozen = parallel.place(jax.tree.map(jnp.array, state)), parallel.place(frozen)
    step = parallel.compile_train_step(functools.partial(train_step, group=group), state)
    placed = parallel.place_batch(jax.tree.map(lambda x: x[None], batch), axis=1)
    text = step.lower(state, frozen, placed).compile().as_text()
    kinds = (
        r"= .*? (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
    )
    return Counter(re.findall(kinds, text))


@pytest.mark.grid
def test_a_block_is_reduced_twice_and_its_heads_are_gathered_from_the_kernel(double_precision):
    found = collectives(dict(data=1, fsdp=1, tensor=4), grid.text_batch(0))
    # Forward: embeddings and two of each block, of teacher and student; backward: two of each block
    # of the student; then the gradient's norm, and whether all is finite.
    assert found["all-reduce"] <= 2 * (1 + 4) + 4 + 2
    # Kernel and bias of queries, keys and values are stored side by side, and are cut by heads.
    assert found["all-gather"] <= 12
    assert {*found} == {"all-reduce", "all-gather"}


@pytest.mark.grid
def test_data_parallelism_reduces_once_for_gradients(double_precision):
    assert collectives(dict(data=8, fsdp=1, tensor=1), grid.text_batch(0)) == {"all-reduce": 2}
