"""The vision transformer's own ways; that it computes what PyTorch does is in
hugging_face_test.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models import registry

SECTION = dict(name="vit", num_classes=3, image_size=12, patch=3, width=8, layers=2, heads=2)
SECTION |= dict(intermediate=12, dropout=0.0, distillation=True)
IMAGES = np.random.default_rng(0).normal(size=(2, 12, 12, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def made():
    module = registry.build(SECTION)
    return module, module.init(jax.random.key(0), IMAGES)


def test_in_chunks_of_queries_the_same_is_computed(made):
    module, variables = made
    # 18 tokens: the last chunk is shorter.
    found, want = (module.clone(query_chunk_size=size).apply(variables, IMAGES) for size in (7, 0))
    np.testing.assert_allclose(found.logits, want.logits, rtol=1e-4, atol=1e-6)
    assert found.features["attention_1"].shape == (2, 2, 18, 18)


def test_in_chunks_of_queries_no_block_holds_all_scores():
    images = jnp.zeros((4, 48, 48, 1))

    def temporary(size):
        module = registry.build(SECTION | {"image_size": 48, "query_chunk_size": size})
        shapes = jax.eval_shape(module.init, jax.random.key(0), images)
        step = jax.jit(jax.grad(lambda v: module.apply(v, images).logits.sum()))
        return step.lower(shapes).compile().memory_analysis().temp_size_in_bytes

    # Of 4 images, 2 heads, 256 patches and 2 more tokens.
    assert temporary(0) - temporary(16) > 4 * 2 * 258 * 258 * 4


def test_images_of_another_size_are_refused(made):
    module, variables = made
    with pytest.raises(ValueError, match="reads images of 12 x 12, got 9 x 9"):
        module.apply(variables, IMAGES[:, :9, :9])
