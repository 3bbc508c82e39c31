"""VGG on text against numpy, one text at a time without padding, and its independence from padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import models
from kd_jax.models import text_vgg

SPEC = {"name": "text_vgg", "num_classes": 3, "vocabulary_size": 20, "embedding": 6, "depth": 13, "width": 0.1}
SPEC |= {"batch_norm": True, "head": (5,), "dropout": 0.0}
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
LENGTHS = (37, 13, 5, 2, 1, 0)
IDS = np.random.default_rng(0).integers(0, 20, (len(LENGTHS), 37)).astype(np.int32)
MASK = np.arange(37)[None] < np.array(LENGTHS)[:, None]


def make(**options):
    """The module and variables without zeros and ones, so that no bias, scale or statistic can be forgotten."""
    module = models.build(SPEC | options)
    variables = jax.jit(module.init)(jax.random.key(0), IDS, MASK)
    rng = np.random.default_rng(1)
    noisy = jax.tree.map(lambda x: (x + rng.uniform(0, 0.3, x.shape)).astype(np.float32), variables)
    return module, noisy


def pad(ids, mask, length):
    """Both, padded to a length, the ids with one that is a word too."""
    width = ((0, 0), (0, length - ids.shape[1]))
    return np.pad(ids, width, constant_values=9), np.pad(mask, width)


def convolve(layer, statistics, x):
    """Width 3 with one zero on either side, normalization by running statistics or a bias, ReLU, for one text."""
    around = np.pad(x, ((1, 1), (0, 0)))
    y = sum(around[k : k + len(x)] @ layer["conv"]["kernel"][k] for k in range(3))
    if statistics is None:
        return np.maximum(y + layer["conv"]["bias"], 0)
    norm, running = layer["norm"], statistics["norm"]
    return np.maximum((y - running["mean"]) / np.sqrt(running["var"] + 1e-5) * norm["scale"] + norm["bias"], 0)


def vgg(variables, ids, depth):
    """The features of one text without padding, in float64."""
    params, statistics = variables["params"], variables.get("batch_stats", {})
    x = params["word_embeddings"]["embedding"][ids]
    features = {}
    for i, count in enumerate(CONVOLUTIONS[depth]):
        for j in range(count):
            x = convolve(params[f"conv_{i}_{j}"], statistics.get(f"conv_{i}_{j}"), x)
        x = features[f"block_{i}"] = np.stack([x[t : t + 2].max(0) for t in range(0, len(x), 2)])
    pooled = np.maximum(x.max(0) @ params["hidden_0"]["kernel"] + params["hidden_0"]["bias"], 0)
    return features | {"pooled": pooled}


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("depth", [11, 16])
def test_matches_numpy_on_each_text_alone(depth, batch_norm):
    module, variables = make(depth=depth, batch_norm=batch_norm)
    output = jax.jit(module.apply)(variables, IDS, MASK)
    wide = jax.tree.map(np.float64, variables)
    for row, length in enumerate(LENGTHS[:-1]):
        want = vgg(wide, IDS[row, :length], depth)
        assert output.features.keys() == want.keys() | {"embeddings"}
        for key, value in want.items():
            found = output.features[key][row]
            if key.startswith("block_"):
                assert np.all(found[len(value) :] == 0), key
                found = found[: len(value)]
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5, err_msg=f"{key} of {length} tokens")
        head = wide["params"]["classifier"]
        logits = want["pooled"] @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(output.logits[row], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [38, 48, 63, 64])
def test_a_text_has_the_same_logits_however_far_it_is_padded(length):
    module, variables = make(depth=16)
    want = jax.jit(module.apply)(variables, IDS, MASK).logits
    found = jax.jit(module.apply)(variables, *pad(IDS, MASK, length)).logits
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    for shorter in (16, 5):
        rows = slice(1, None) if shorter == 16 else slice(2, None)
        alone = jax.jit(module.apply)(variables, IDS[rows, :shorter], MASK[rows, :shorter]).logits
        np.testing.assert_allclose(alone, want[rows], rtol=1e-5, atol=1e-5)
    assert np.ptp(want, axis=0).min() > 1e-3, "the texts can't be told apart"


def test_masked_tokens_change_nothing():
    module, variables = make()
    want = module.apply(variables, IDS, MASK).logits
    changed = np.where(MASK, IDS, 7)
    np.testing.assert_allclose(module.apply(variables, changed, MASK.astype(np.int64)).logits, want, atol=1e-6)


def test_padding_does_not_enter_the_batch_statistics_nor_the_gradients():
    module, variables = make()

    def loss(params, ids, mask):
        output, changed = module.apply(variables | {"params": params}, ids, mask, train=True, mutable=["batch_stats"])
        return jnp.sum(output.logits**2), (output.logits, changed)

    run = jax.jit(jax.grad(loss, has_aux=True))
    grads, (logits, statistics) = run(variables["params"], IDS, MASK)
    padded = run(variables["params"], *pad(IDS, MASK, 48))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), padded,
                 (grads, (logits, statistics)))  # fmt: skip


def test_statistics_count_the_tokens_and_not_the_padding():
    module, variables = make(depth=11)
    _, changed = module.apply(variables, IDS, MASK, train=True, mutable=["batch_stats"])
    params = jax.tree.map(np.float64, variables["params"])
    responses = []
    for row, length in enumerate(LENGTHS):
        around = np.pad(params["word_embeddings"]["embedding"][IDS[row, :length]], ((1, 1), (0, 0)))
        kernel = params["conv_0_0"]["conv"]["kernel"]
        responses += [np.einsum("kd,kdf->f", around[t : t + 3], kernel) for t in range(length)]
    old = variables["batch_stats"]["conv_0_0"]["norm"]
    found = changed["batch_stats"]["conv_0_0"]["norm"]
    np.testing.assert_allclose(found["mean"], 0.9 * old["mean"] + 0.1 * np.mean(responses, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["var"], 0.9 * old["var"] + 0.1 * np.var(responses, 0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_depth_counts_the_layers_with_weights_of_the_paper(depth):
    variables = jax.eval_shape(models.build(SPEC | {"depth": depth}).init, jax.random.key(0), IDS, MASK)
    convolutions = [name for name in variables["params"] if name.startswith("conv_")]
    assert len(convolutions) + 3 == depth  # The paper's three dense layers.


@pytest.mark.parametrize(("length", "lengths"), [(64, [32, 16, 8, 4, 2]), (33, [17, 9, 5, 3, 2]), (1, [1] * 5)])
def test_features_by_length(length, lengths):
    texts = jax.ShapeDtypeStruct((2, length), jnp.int32)
    output, _ = jax.eval_shape(models.build(SPEC | {"width": 1.0, "head": ()}).init_with_output, jax.random.key(0),
                               texts, texts)  # fmt: skip
    shapes = {key: feature.shape[1:] for key, feature in output.features.items()}
    want = {f"block_{i}": (t, c) for i, (t, c) in enumerate(zip(lengths, (64, 128, 256, 512, 512), strict=True))}
    assert shapes == want | {"embeddings": (length, 6), "pooled": (512,)}


def test_batch_norm_replaces_the_bias():
    _, variables = make()
    assert set(variables["params"]["conv_0_0"]) == {"conv", "norm"}
    assert set(variables["params"]["conv_0_0"]["conv"]) == {"kernel"}
    assert set(make(batch_norm=False)[1]) == {"params"}


def test_halve_keeps_an_odd_last_position_and_the_pools_with_a_token():
    x = np.array([3, 1, 4, 0, 5], np.float32).reshape(1, 5, 1)
    mask = np.array([[True, True, True, False, False]])
    pooled, counted = text_vgg.halve(jnp.asarray(x), jnp.asarray(mask))
    assert np.array_equal(pooled[0, :, 0], [3, 4, 5])
    assert np.array_equal(counted, [[True, True, False]])


def test_training_drops_out_embeddings():
    module, variables = make(dropout=0.5, depth=11)

    def run(seed):
        options = {"train": True, "rngs": {"dropout": jax.random.key(seed)}, "mutable": ["batch_stats"]}
        return module.apply(variables, IDS, MASK, **options)[0].features

    first, second = run(0), run(1)
    assert not np.allclose(first["block_0"][0], second["block_0"][0], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(first["embeddings"], second["embeddings"])


def test_refuses_pairs_and_other_shapes():
    module, variables = make()
    with pytest.raises(ValueError, match="text_vgg reads single texts and got token_type_ids"):
        module.apply(variables, IDS, MASK, token_type_ids=IDS)
    with pytest.raises(ValueError, match=r"must both be \[B, T\], got \(6, 37\) and \(6, 36\)"):
        module.apply(variables, IDS, MASK[:, 1:])
