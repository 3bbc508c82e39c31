"""Word embeddings of another model: reduced, put in their place, and kept."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kd_jax.models import word_embeddings

SECTION = dict(name="bilstm", state=4, layers=1, head=(), dropout=0.0)
RNG = np.random.default_rng(0)


def test_a_reduced_table_has_the_nearest_inner_products():
    table = RNG.normal(size=(50, 8)).astype(np.float32)
    u, s, vt = np.linalg.svd(table.astype(np.float64), full_matrices=False)
    for rank in (1, 3, 8):
        found = word_embeddings.reduce(table, rank)
        assert found.shape == (50, rank)
        assert found.dtype == np.float32
        nearest = (u[:, :rank] * s[:rank]) @ vt[:rank]
        np.testing.assert_allclose(found @ found.T, nearest @ nearest.T, atol=1e-4)
    assert word_embeddings.reduce(table, None) is table


def test_the_sign_of_an_axis_does_not_depend_on_the_order_of_rows():
    table = RNG.normal(size=(50, 8))
    order = RNG.permutation(50)
    found = word_embeddings.reduce(table, 3)
    np.testing.assert_allclose(word_embeddings.reduce(table[order], 3), found[order], atol=1e-9)


def test_a_table_is_put_in_and_its_further_rows_left_out():
    variables = {"params": {"word_embeddings": {"embedding": jnp.zeros((3, 2))}, "other": 1}}
    found = word_embeddings.put(variables, np.arange(8.0).reshape(4, 2))
    np.testing.assert_array_equal(
        found["params"]["word_embeddings"]["embedding"], [[0, 1], [2, 3], [4, 5]]
    )
    assert found["params"]["other"] == 1
    with pytest.raises(ValueError, match="has rows for 2 tokens, and the view has 3"):
        word_embeddings.put(variables, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="is 3 wide, and the model's words are 2 wide"):
        word_embeddings.put(variables, np.zeros((4, 3)))
    with pytest.raises(ValueError, match="has no module 'word_embeddings'"):
        word_embeddings.put({"params": {}}, np.zeros((2, 2)))


def test_kept_embeddings_stay_without_decay_and_need_no_memory():
    params = {
        "model": {"word_embeddings": {"embedding": jnp.ones((5, 2))}, "head": jnp.ones((2, 2))},
        # A term of this name is no embedding.
        "objective": {"word_embeddings": jnp.ones((2, 2))},
    }
    optimizer = word_embeddings.keep(optax.adamw(0.1, weight_decay=0.5))
    state = optimizer.init(params)
    assert (5, 2) not in [leaf.shape for leaf in jax.tree.leaves(state)]
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(grads, state, params)
    new = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(new["model"]["word_embeddings"]["embedding"], np.ones((5, 2)))
    assert not np.allclose(new["model"]["head"], 1)
    assert not np.allclose(new["objective"]["word_embeddings"], 1)


def test_the_width_follows_the_table():
    section = SECTION | {"embeddings": dict(from_model="teacher", rank=3)}
    assert word_embeddings.with_width(section, 3)["width"] == 3
    assert "embeddings" not in word_embeddings.with_width(section, 3)
    assert word_embeddings.with_width(SECTION) == SECTION
    vgg = dict(name="text_vgg", embeddings=dict(from_model="teacher"))
    assert word_embeddings.with_width(vgg, 6)["embedding"] == 6
    electra = dict(name="encoder", width=8, embedding_width=4, embeddings=dict(from_model="x"))
    assert word_embeddings.with_width(electra, 4)["embedding_width"] == 4
    with pytest.raises(ValueError, match=r"model\.embedding_width is 4"):
        word_embeddings.with_width(electra, 8)
    # A published architecture reads words as well as the one that it is of.
    published = dict(name="bert_base", embeddings=dict(from_model="x"))
    assert word_embeddings.with_width(published, 768)["width"] == 768
    with pytest.raises(ValueError, match=r"model\.width is 4, and the embeddings"):
        word_embeddings.with_width(section | {"width": 4}, 3)
    with pytest.raises(ValueError, match=r"rank is 9, and the embeddings are 8 wide"):
        word_embeddings.width_of(np.zeros((5, 8)), 9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("teacher", "must be a section"),
        ({}, "one of from_model and pretrained"),
        (dict(from_model="teacher", pretrained="minilm"), "one of from_model and pretrained"),
        (dict(from_model=3), "from_model must be a name, got 3"),
        (dict(from_model="teacher", rank=0), "rank must be an integer from 1 on or None, got 0"),
        (dict(from_model="teacher", rank=True), "rank must be an integer"),
        (dict(from_model="teacher", trainable=0), "trainable must be True or False, got 0"),
        (dict(from_model="teacher", ranks=3), "ranks"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ValueError, match=words) as refusal:
        word_embeddings.check_options(SECTION | {"embeddings": options})
    assert "model.embeddings" in str(refusal.value)


@pytest.mark.parametrize(
    "section", [dict(name="cnn"), dict(pretrained="minilm"), dict(name="none")]
)
def test_models_without_words_of_their_own_are_refused(section):
    with pytest.raises(ValueError, match=r"model\.embeddings is for"):
        word_embeddings.check_options(section | {"embeddings": dict(from_model="teacher")})
