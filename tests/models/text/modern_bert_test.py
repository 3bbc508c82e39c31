"""ModernBERT's own ways; that it computes what PyTorch does is in hugging_face_test.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models import registry
from kd_jax.models.layers.transformer import select_blocks
from kd_jax.models.text.modern_bert import rotate

SECTION = dict(name="modernbert", num_classes=3, vocabulary_size=20, width=8, layers=4, heads=2)
SECTION |= dict(intermediate=6, max_positions=12, dropout=0.0, pooling="cls")
SECTION |= dict(global_blocks=(0, 2), window=2)


def made(**changes):
    module = registry.build(SECTION | changes)
    ids = np.random.default_rng(0).integers(0, 20, (2, 10))
    mask = np.arange(10)[None] < np.array([[10], [6]])
    return module, module.init(jax.random.key(0), ids, mask), ids, mask


def test_a_local_block_sees_only_what_is_near_and_a_global_one_everything():
    module, variables, ids, mask = made(layers=1, global_blocks=())
    changed = np.where(np.arange(10) == 9, (ids + 1) % 20, ids)
    for blocks, seen in (((), False), ((0,), True)):
        module = module.clone(global_blocks=blocks)
        states = [
            module.apply(variables, each, mask).features["last_block"][0] for each in (ids, changed)
        ]
        differ = np.abs(np.asarray(states[0] - states[1])).max(axis=-1) > 1e-7
        assert differ[7:].all()
        assert differ[:7].all() if seen else not differ[:7].any()


def test_scores_depend_on_distances_and_not_on_places():
    rng = np.random.default_rng(0)
    qkv = jnp.asarray(np.tile(rng.normal(size=(1, 1, 3, 8)), (1, 9, 1, 1)), jnp.float32)
    turned = rotate(qkv, jnp.arange(9)[None], heads=2, theta=100.0).reshape(9, 3, 2, 4)
    scores = np.einsum("qhd,khd->hqk", turned[:, 0], turned[:, 1])
    for offset in range(-8, 9):
        diagonal = np.diagonal(scores, offset, axis1=1, axis2=2)
        np.testing.assert_allclose(diagonal, diagonal[:, :1] + 0 * diagonal, atol=1e-5)
    np.testing.assert_array_equal(turned[:, 2], qkv.reshape(9, 3, 2, 4)[:, 2])


def test_blocks_that_are_kept_keep_their_kind_of_attention():
    module, variables, ids, mask = made()
    smaller, kept = select_blocks(module, variables, (0, 2, 3))
    assert (smaller.layers, smaller.global_blocks) == (3, (0, 1))
    assert np.isfinite(smaller.apply(kept, ids, mask).logits).all()
    with pytest.raises(ValueError, match="keep_layers must begin with 0"):
        select_blocks(module, variables, (1, 2))


def test_in_chunks_of_queries_each_token_sees_what_it_did():
    module, variables, ids, mask = made()
    found, want = (
        module.clone(query_chunk_size=size).apply(variables, ids, mask) for size in (4, 0)
    )
    np.testing.assert_allclose(found.logits, want.logits, rtol=1e-5)
    np.testing.assert_allclose(found.features["last_block"], want.features["last_block"], atol=1e-5)


def test_in_chunks_of_queries_no_block_holds_all_scores():
    ids = jnp.zeros((4, 256), jnp.int32)

    def temporary(size):
        module = registry.build(SECTION | {"max_positions": 256, "query_chunk_size": size})
        shapes = jax.eval_shape(module.init, jax.random.key(0), ids, ids)
        step = jax.jit(jax.grad(lambda v: module.apply(v, ids, ids).logits.sum()))
        return step.lower(shapes).compile().memory_analysis().temp_size_in_bytes

    # Of 4 texts and 2 heads.
    assert temporary(0) - temporary(16) > 4 * 2 * 256 * 256 * 4


def test_the_published_size():
    module = registry.build(dict(name="modernbert_base", num_classes=2, vocabulary_size=50_368))
    ids = jnp.ones((1, 4), jnp.int32)
    shapes = jax.eval_shape(lambda key: module.init(key, ids, ids), jax.random.key(0))
    # As the paper says: 149 million, with a classifier of two classes.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 149_606_402


def test_longer_texts_than_it_has_positions_are_refused():
    module, variables, _, _ = made()
    with pytest.raises(ValueError, match="12 positions, got texts of 13 tokens"):
        module.apply(variables, jnp.ones((1, 13), jnp.int32), jnp.ones((1, 13), bool))
