"""VGG on text against numpy, one text at a time without padding, and its independence from
padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models import registry
from kd_jax.models.text import text_vgg

pytestmark = pytest.mark.grid

SPEC = {
    "name": "text_vgg",
    "num_classes": 3,
    "vocabulary_size": 20,
    "embedding": 6,
    "depth": 13,
    "width": 0.1,
}
SPEC |= {"batch_norm": True, "head": (5,), "dropout": 0.0}
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
LENGTHS = (37, 13, 5, 2, 1, 0)
IDS = np.random.default_rng(0).integers(0, 20, (len(LENGTHS), 37)).astype(np.int32)
MASK = np.arange(37)[None] < np.array(LENGTHS)[:, None]


def make(**options):
    """The module and variables without zeros and ones, so that no bias, scale or statistic can be
    forgotten."""
    module = registry.build(SPEC | options)
    variables = jax.jit(module.init)(jax.random.key(0), IDS, MASK)
    rng = np.random.default_rng(1)
    noisy = jax.tree.map(lambda x: (x + rng.uniform(0, 0.3, x.shape)).astype(np.float32), variables)
    return module, noisy


def pad(ids, mask, length):
    """Both, padded to a length, the ids with one that is a word too."""
    width = ((0, 0), (0, length - ids.shape[1]))
    return np.pad(ids, width, constant_values=9), np.pad(mask, width)


def convolve(layer, statistics, x):
    """Width 3 with one zero on either side, scaled, normalized by running statistics or with a
    bias, ReLU; one text."""
    around = np.pad(x, ((1, 1), (0, 0)))
    y = sum(around[k : k + len(x)] @ layer["conv"]["kernel"][k] for k in range(3))
    y *= np.sqrt([[3 / len(range(max(t - 1, 0), min(t + 2, len(x))))] for t in range(len(x))])
    if statistics is None:
        return np.maximum(y + layer["bias"], 0)
    norm, running = layer["norm"], statistics["norm"]
    return np.maximum(
        (y - running["mean"]) / np.sqrt(running["var"] + 1e-5) * norm["scale"] + norm["bias"], 0
    )


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
    logits = []
    for row, length in enumerate(LENGTHS[:-1]):
        want = vgg(wide, IDS[row, :length], depth)
        assert output.features.keys() == want.keys() | {"embeddings"}
        for key, value in want.items():
            found = output.features[key][row]
            if key.startswith("block_"):
                assert np.all(found[len(value) :] == 0), key
                found = found[: len(value)]
            np.testing.assert_allclose(
                found, value, rtol=1e-4, atol=1e-5, err_msg=f"{key} of {length} tokens"
            )
        head = wide["params"]["classifier"]
        logits.append(want["pooled"] @ head["kernel"] + head["bias"])
    np.testing.assert_allclose(output.logits[:-1], logits, rtol=1e-4, atol=1e-5)
    with jax.enable_x64(True):
        exact = jax.jit(module.apply)(wide, IDS, MASK).logits[:-1]
        np.testing.assert_allclose(exact, logits, rtol=1e-11, atol=1e-11)


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
    np.testing.assert_allclose(
        module.apply(variables, changed, MASK.astype(np.int64)).logits, want, atol=1e-6
    )


def test_padding_does_not_enter_the_batch_statistics_nor_the_gradients():
    module, variables = make()

    def loss(params, ids, mask):
        output, changed = module.apply(
            variables | {"params": params}, ids, mask, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(output.logits**2), (output.logits, changed)

    run = jax.jit(jax.grad(loss, has_aux=True))
    grads, (logits, statistics) = run(variables["params"], IDS, MASK)
    padded = run(variables["params"], *pad(IDS, MASK, 48))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        padded,
        (grads, (logits, statistics)),
    )


def test_statistics_count_the_tokens_and_not_the_padding():
    module, variables = make(depth=11)
    _, changed = module.apply(variables, IDS, MASK, train=True, mutable=["batch_stats"])
    params = jax.tree.map(np.float64, variables["params"])
    responses = []
    for row, length in enumerate(LENGTHS):
        around = np.pad(params["word_embeddings"]["embedding"][IDS[row, :length]], ((1, 1), (0, 0)))
        kernel = params["conv_0_0"]["conv"]["kernel"]
        scales = np.sqrt(
            [3 / sum(0 <= u < length for u in (t - 1, t, t + 1)) for t in range(length)]
        )
        responses += [
            scales[t] * np.einsum("kd,kdf->f", around[t : t + 3], kernel) for t in range(length)
        ]
    old = variables["batch_stats"]["conv_0_0"]["norm"]
    found = changed["batch_stats"]["conv_0_0"]["norm"]
    np.testing.assert_allclose(
        found["mean"], 0.9 * old["mean"] + 0.1 * np.mean(responses, 0), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        found["var"], 0.9 * old["var"] + 0.1 * np.var(responses, 0, ddof=1), rtol=1e-5
    )


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_depth_counts_the_layers_with_weights_of_the_paper(depth):
    variables = jax.eval_shape(
        registry.build(SPEC | {"depth": depth}).init, jax.random.key(0), IDS, MASK
    )
    convolutions = [name for name in variables["params"] if name.startswith("conv_")]
    assert len(convolutions) + 3 == depth  # The paper's three dense layers.


@pytest.mark.parametrize(
    ("length", "lengths"), [(64, [32, 16, 8, 4, 2]), (33, [17, 9, 5, 3, 2]), (1, [1] * 5)]
)
def test_features_by_length(length, lengths):
    texts = jax.ShapeDtypeStruct((2, length), jnp.int32)
    output, _ = jax.eval_shape(
        registry.build(SPEC | {"width": 1.0, "head": ()}).init_with_output,
        jax.random.key(0),
        texts,
        texts,
    )
    shapes = {key: feature.shape[1:] for key, feature in output.features.items()}
    want = {
        f"block_{i}": (t, c)
        for i, (t, c) in enumerate(zip(lengths, (64, 128, 256, 512, 512), strict=True))
    }
    assert shapes == want | {"embeddings": (length, 6), "pooled": (512,)}


def test_batch_norm_replaces_the_bias():
    _, variables = make()
    assert set(variables["params"]["conv_0_0"]) == {"conv", "norm"}
    assert set(variables["params"]["conv_0_0"]["conv"]) == {"kernel"}
    _, plain = make(batch_norm=False)
    assert set(plain) == {"params"}
    assert set(plain["params"]["conv_0_0"]) == {"conv", "bias"}


@pytest.mark.parametrize("length", [1, 5, 37])
def test_the_signal_survives_the_depth_at_every_length(length):
    module = registry.build(
        SPEC | {"depth": 16, "width": 0.5, "embedding": 64, "batch_norm": False}
    )
    mask = np.arange(37)[None] < np.full((8, 1), length)
    ids = np.random.default_rng(0).integers(0, 20, mask.shape).astype(np.int32)
    output, _ = jax.jit(module.init_with_output)(jax.random.key(0), ids, mask)
    before, after = (np.std(output.features[key][:, 0]) for key in ("block_0", "block_4"))
    assert 0.3 < after / before < 3


def test_statistics_hardly_depend_on_the_length():
    module = registry.build(SPEC | {"depth": 16, "width": 0.5, "embedding": 64})
    ids = np.random.default_rng(0).integers(0, 20, (64, 37)).astype(np.int32)
    variables = jax.jit(module.init)(jax.random.key(0), ids, ids)

    def variances(length):
        mask = np.arange(37)[None] < np.full((64, 1), length)
        _, changed = jax.jit(
            lambda: module.apply(variables, ids, mask, train=True, mutable=["batch_stats"])
        )()
        return np.array(
            [np.mean(leaf["norm"]["var"]) - 0.9 for leaf in changed["batch_stats"].values()]
        )

    ratio = variances(37) / variances(8)
    assert np.all((ratio > 0.5) & (ratio < 2))


@pytest.mark.parametrize(
    ("mask", "want"),
    [([1, 1, 1, 1, 0], [2, 3, 3, 2, 1]), ([1, 0, 0, 0, 0], [1, 1, 0, 0, 0]), ([1], [1])],
)
def test_count_under_kernel(mask, want):
    assert np.array_equal(text_vgg.count_under_kernel(np.array([mask], bool)), [want])


def test_halve_keeps_an_odd_last_position_and_the_pools_with_a_token():
    x = np.array([3, 1, 4, 0, 5], np.float32).reshape(1, 5, 1)
    mask = np.array([[True, True, True, False, False]])
    pooled, counted = text_vgg.halve(jnp.asarray(x), jnp.asarray(mask))
    assert np.array_equal(pooled[0, :, 0], [3, 4, 5])
    assert np.array_equal(counted, [[True, True, False]])


def test_training_drops_out_embeddings():
    module, variables = make(dropout=0.5, depth=11)

    def run(seed):
        options = {
            "train": True,
            "rngs": {"dropout": jax.random.key(seed)},
            "mutable": ["batch_stats"],
        }
        return module.apply(variables, IDS, MASK, **options)[0].features

    first, second = run(0), run(1)
    assert not np.allclose(first["block_0"][0], second["block_0"][0], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(first["embeddings"], second["embeddings"])


@pytest.mark.usefixtures("own_refusals")
def test_refuses_pairs_and_other_shapes():
    module, variables = make()
    with pytest.raises(ValueError, match="text_vgg reads single texts and got token_type_ids"):
        module.apply(variables, IDS, MASK, token_type_ids=IDS)
    with pytest.raises(ValueError, match=r"must both be \[B, T\], got \(6, 37\) and \(6, 36\)"):
        module.apply(variables, IDS, MASK[:, 1:])
