import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models.network import DTYPES, Network, cast
from kd_jax.models.registry import build

CNN = {"name": "cnn", "num_classes": 4, "widths": (3,), "batch_norm": True}
BAG = {
    "name": "bag_of_embeddings",
    "num_classes": 4,
    "vocabulary_size": 9,
    "width": 5,
    "hidden": (4,),
    "dropout": 0.5,
}


def dtypes(tree):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


@pytest.fixture
def images(make_batch):
    rng = np.random.default_rng(0)
    return make_batch({"small": {"images": rng.normal(size=(6, 4, 4, 1)).astype(np.float32)}})


@pytest.fixture
def texts(make_batch):
    ids = np.random.default_rng(0).integers(0, 9, (6, 5)).astype(np.int32)
    return make_batch({"words": {"input_ids": ids, "attention_mask": np.ones((6, 5), bool)}})


def cnn(dtype="float32"):
    return Network(build(CNN), "small", DTYPES[dtype])


def bag(dtype="float32"):
    return Network(build(BAG), "words", DTYPES[dtype])


def train(network, variables, batch, seed=0):
    return network.train(variables, batch, dropout_key=jax.random.key(seed), axis_name=None)


def test_cast_leaves_integers_alone():
    tree = cast({"w": jnp.ones(2), "ids": jnp.ones(2, jnp.int32)}, jnp.bfloat16)
    assert (tree["w"].dtype, tree["ids"].dtype) == (jnp.bfloat16, jnp.int32)


def test_a_network_reads_its_own_view_of_a_batch(images, texts):
    both = images.replace(views=images.views | texts.views)
    for network in (cnn(), bag()):
        variables = network.init(jax.random.key(0), both)
        want = network.module.apply(variables, **both.views[network.view], train=False).logits
        np.testing.assert_array_equal(network(variables, both).logits, want)


# Dtypes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_variables_are_kept_in_float32_whatever_is_computed_in(images, dtype):
    assert dtypes(cnn(dtype).init(jax.random.key(0), images)) == {"float32"}


def test_variables_of_a_float64_network_are_kept_in_float64(images):
    with jax.enable_x64(True):
        assert dtypes(cnn("float64").init(jax.random.key(0), images)) == {"float64"}


def test_a_teacher_is_held_in_the_dtype_it_computes_in_and_its_statistics_stay_wide(images):
    network = cnn("bfloat16")
    held = network.frozen(network.init(jax.random.key(0), images))
    assert dtypes(held["params"]) == {"bfloat16"}
    assert dtypes(held["batch_stats"]) == {"float32"}


def test_a_teacher_computes_in_its_own_dtype_and_gives_float32_logits(images):
    network = cnn("bfloat16")
    variables = network.init(jax.random.key(0), images)
    output, wide = network(network.frozen(variables), images), cnn()(variables, images)
    assert output.features["pooled"].dtype == jnp.bfloat16
    assert output.logits.dtype == jnp.float32
    assert not np.array_equal(output.logits, wide.logits)
    np.testing.assert_allclose(output.logits, wide.logits, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("make", [cnn, bag], ids=["cnn", "bag"])
def test_freezing_changes_nothing_that_a_network_computes(images, texts, make):
    network, batch = make("bfloat16"), images if make is cnn else texts
    variables = network.init(jax.random.key(0), batch)
    frozen = network(network.frozen(variables), batch)
    np.testing.assert_array_equal(frozen.logits, network(variables, batch).logits)


# Training mode


def test_training_updates_the_batchnorm_statistics_and_inference_does_not(images):
    network = cnn()
    variables = network.init(jax.random.key(0), images)
    before = jax.tree.map(np.array, variables["batch_stats"])
    output, statistics = train(network, variables, images)
    jax.tree.map(
        lambda a, b: np.testing.assert_raises(AssertionError, np.testing.assert_array_equal, a, b),
        statistics,
        before,
    )
    network(variables, images)
    jax.tree.map(np.testing.assert_array_equal, variables["batch_stats"], before)
    assert not np.allclose(output.logits, network(variables, images).logits)


def test_inference_uses_the_stored_statistics_so_rows_do_not_depend_on_one_another(images):
    network = cnn()
    variables = network.init(jax.random.key(0), images)
    _, variables["batch_stats"] = train(network, variables, images)
    alone = jax.tree.map(lambda leaf: leaf[:1], images)
    np.testing.assert_allclose(
        network(variables, alone).logits,
        network(variables, images).logits[:1],
        rtol=1e-5,
        atol=1e-6,
    )


def test_rows_that_only_fill_do_not_enter_the_batchnorm_statistics(images):
    network = cnn()
    variables = network.init(jax.random.key(0), images)
    pixels = images.views["small"]["images"].copy()
    pixels[4:] = 1e3
    padded = images.replace(views={"small": {"images": pixels}}, valid=np.arange(6) < 4)
    _, statistics = train(network, variables, padded)
    _, wanted = train(network, variables, jax.tree.map(lambda leaf: leaf[:4], images))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), statistics, wanted
    )


def test_statistics_of_a_bfloat16_network_stay_in_float32(images):
    network = cnn("bfloat16")
    _, statistics = train(network, network.init(jax.random.key(0), images), images)
    assert dtypes(statistics) == {"float32"}


def test_a_network_without_batchnorm_has_no_statistics(texts):
    _, statistics = train(bag(), bag().init(jax.random.key(0), texts), texts)
    assert statistics == {}


def test_dropout_follows_its_key_in_training_and_is_off_in_inference(texts):
    network = bag()
    variables = network.init(jax.random.key(0), texts)
    first, again, other = (train(network, variables, texts, seed)[0].logits for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(
        network(variables, texts).logits, network(variables, texts).logits
    )
    assert not np.array_equal(first, network(variables, texts).logits)
