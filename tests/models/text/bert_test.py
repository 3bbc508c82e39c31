"""The encoder against an independent float64 BERT in numpy, and its behaviour under masks and
padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from kd_jax.models import registry
from kd_jax.models.layers import transformer

pytestmark = pytest.mark.torch

SPEC = {
    "name": "encoder",
    "num_classes": 3,
    "vocabulary_size": 23,
    "width": 12,
    "layers": 2,
    "heads": 3,
    "intermediate": 20,
}
SPEC |= {"max_positions": 33, "type_vocabulary": 2, "dropout": 0.1, "pooling": "cls"}
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 23, (4, 16)).astype(np.int32)
TYPES = RNG.integers(0, 2, (4, 16)).astype(np.int32)
MASK = np.arange(16)[None] < np.array([[16], [9], [2], [1]])


def make(**options):
    """The module and variables without zeros and ones, so that no bias or scale can be
    forgotten."""
    module = registry.build(SPEC | options)
    variables = module.init(jax.random.key(0), IDS, MASK)
    rng = np.random.default_rng(1)
    noisy = jax.tree.map(lambda x: (x + rng.normal(0, 0.3, x.shape)).astype(np.float32), variables)
    return module, noisy


def bert(params, ids, mask, types, pooling, heads=3):
    """Devlin et al. once more: float64, one text, one head and one projection at a time."""

    def dense(layer, x):
        return x @ layer["kernel"] + layer["bias"]

    def norm(layer, x):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12) * layer["scale"] + layer["bias"]

    def table(name):
        return params[name]["embedding"]

    x = (
        table("word_embeddings")[ids]
        + table("position_embeddings")[: len(ids)]
        + table("type_embeddings")[types]
    )
    x = norm(params["embeddings_norm"], x)
    features = {"embeddings": x}
    for i in range(2):
        block = params[f"block_{i}"]
        query, key, value = (
            np.split(part, heads, axis=-1) for part in np.split(dense(block["qkv"], x), 3, axis=-1)
        )
        scores = [q @ k.T / np.sqrt(q.shape[-1]) for q, k in zip(query, key, strict=True)]
        weights = [special.softmax(np.where(mask[None], s, -np.inf), axis=-1) for s in scores]
        context = np.concatenate([w @ v for w, v in zip(weights, value, strict=True)], axis=-1)
        x = norm(block["attention_norm"], x + dense(block["attention_output"], context))
        hidden = dense(block["intermediate"], x)
        hidden = hidden * 0.5 * (1 + special.erf(hidden / np.sqrt(2)))
        x = norm(block["output_norm"], x + dense(block["output"], hidden))
        parts = {"query": query, "key": key, "value": value, "attention": scores}
        features |= {f"{name}_{i}": np.stack(by_head) for name, by_head in parts.items()} | {
            f"block_{i}": x
        }
    pooled = np.tanh(dense(params["pooler"], x[0])) if pooling == "cls" else x[mask].mean(0)
    return dense(params["classifier"], pooled), features | {"pooled": pooled, "last_block": x}


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("types", [TYPES, None], ids=["pairs", "single"])
def test_matches_bert_in_numpy(pooling, types):
    module, variables = make(pooling=pooling)
    params = jax.tree.map(np.float64, variables["params"])
    rows = zip(IDS, MASK, np.zeros_like(IDS) if types is None else types, strict=True)
    want = [bert(params, *row, pooling) for row in rows]
    output = jax.jit(module.apply)(variables, IDS, MASK, types)
    np.testing.assert_allclose(output.logits, [logits for logits, _ in want], rtol=1e-4, atol=1e-5)
    assert output.features.keys() == want[0][1].keys()
    for key, feature in output.features.items():
        np.testing.assert_allclose(
            feature, [features[key] for _, features in want], rtol=1e-4, atol=1e-4, err_msg=key
        )
    with jax.enable_x64(True):
        wide = jax.jit(module.apply)({"params": params}, IDS, MASK, types)
    np.testing.assert_allclose(wide.logits, [logits for logits, _ in want], rtol=1e-10, atol=1e-10)


def test_names_and_shapes_of_the_features():
    module, variables = make()
    output = jax.eval_shape(module.apply, variables, IDS, MASK)
    by_token = ("embeddings", "block_0", "block_1", "last_block")
    want = dict.fromkeys(by_token, (4, 16, 12)) | {"pooled": (4, 12)}
    want |= {f"{name}_{i}": (4, 3, 16, 4) for name in ("query", "key", "value") for i in (0, 1)}
    want |= dict.fromkeys(("attention_0", "attention_1"), (4, 3, 16, 16))
    assert {key: feature.shape for key, feature in output.features.items()} == want


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_masked_positions_and_padding_change_nothing(pooling):
    module, variables = make(pooling=pooling)
    want = module.apply(variables, IDS, MASK, TYPES).logits
    changed = module.apply(
        variables, np.where(MASK, IDS, 5), MASK.astype(np.int32), np.where(MASK, TYPES, 1)
    ).logits
    np.testing.assert_allclose(changed, want, rtol=1e-5, atol=1e-6)
    ids, mask, types = (np.pad(a, ((0, 0), (0, 16))) for a in (IDS, MASK, TYPES))
    padded = module.apply(
        variables, input_ids=ids, attention_mask=mask, token_type_ids=types
    ).logits
    np.testing.assert_allclose(padded, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_text_without_tokens_is_finite_and_so_is_its_gradient(pooling, dtype):
    module, variables = make(pooling=pooling)
    variables = jax.tree.map(lambda x: x.astype(dtype), variables)
    mask = np.zeros_like(MASK)

    def loss(variables):
        output = module.apply(variables, IDS, mask)
        return jnp.sum(output.logits**2), output

    (_, output), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)
    for leaf in jax.tree.leaves((output, grad)):
        assert np.isfinite(np.float32(leaf)).all()


def test_softmax_and_means_are_summed_in_float32():
    """In bfloat16 a sum of 1s stops at 256, so a mean over 1,000 equal tokens would be far off."""
    ids, mask = np.full((1, 1000), 3, np.int32), np.ones((1, 1000), bool)
    module, variables = make(pooling="mean", max_positions=1000)
    variables["params"]["position_embeddings"]["embedding"] *= 0
    output = jax.jit(module.apply)(
        jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables), ids, mask
    )
    want = np.float32(output.features["block_1"][0, 0])
    np.testing.assert_allclose(np.float32(output.features["pooled"][0]), want, rtol=0.01)


@pytest.mark.usefixtures("own_refusals")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((IDS, MASK[:, :5]), r"must both be \[B, T\], got \(4, 16\) and \(4, 5\)"),
        ((IDS[0], MASK[0]), r"must both be \[B, T\], got \(16,\) and \(16,\)"),
        ((IDS, MASK, TYPES[:1]), r"token_type_ids must be \(4, 16\), as input_ids, got \(1, 16\)"),
        ((np.tile(IDS, 3), np.tile(MASK, 3)), "has 33 positions, got texts of 48 tokens"),
    ],
)
def test_refuses_other_shapes(args, message):
    module, variables = make()
    with pytest.raises(ValueError, match=message):
        module.apply(variables, *args)


@pytest.mark.parametrize(
    "options",
    [
        {"remat": True},
        {"remat": "dots_saveable"},
        {"scan": True},
        {"remat": "dots_with_no_batch_dims_saveable", "scan": True},
        {"query_chunk_size": 6},
        {"query_chunk_size": 8, "scan": True, "remat": True},
        {"query_chunk_size": 100},
    ],
)
def test_how_it_is_computed_changes_neither_outputs_nor_gradients(options):
    module, variables = make()
    other = registry.build(SPEC | options)
    stacked = (
        {"params": transformer.stack_blocks(variables["params"])}
        if "scan" in options
        else variables
    )

    def loss(module, variables):
        output = module.apply(variables, IDS, MASK, TYPES)
        return jnp.sum(jnp.sin(output.logits)) + jnp.sum(
            jnp.sin(output.features["block_0"])
        ), output

    (_, want), gradient = jax.value_and_grad(lambda v: loss(module, v), has_aux=True)(variables)
    (_, found), found_gradient = jax.value_and_grad(lambda v: loss(other, v), has_aux=True)(stacked)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, want)
    found_gradient = transformer.unstack_blocks(found_gradient["params"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found_gradient,
        gradient["params"],
    )


def test_in_chunks_of_queries_positions_are_added_to_the_scores_as_before():
    module, variables = make(family="mpnet", type_vocabulary=0)
    found, want = (
        module.clone(query_chunk_size=size).apply(variables, IDS, MASK).logits for size in (5, 0)
    )
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def saved_bytes(tokens=64, **options):
    """Bytes that the backward pass keeps, of a stack of 8 blocks unless told."""
    module = registry.build(SPEC | {"layers": 8, "max_positions": 64} | options)
    ids = np.zeros((4, tokens), np.int32)
    variables = jax.eval_shape(module.init, jax.random.key(0), ids, ids)
    step = jax.jit(jax.grad(lambda v: module.apply(v, ids, ids).logits.sum()))
    return step.lower(variables).compile().memory_analysis().temp_size_in_bytes


def test_remat_keeps_less_for_the_backward_pass():
    policies = (True, "dots_with_no_batch_dims_saveable", "dots_saveable", False)
    kept = [saved_bytes(scan=True, remat=remat) for remat in policies]
    assert kept == sorted(set(kept))
    assert kept[0] < 0.6 * kept[-1]


@pytest.mark.parametrize("options", [{}, {"scan": True}, {"scan": True, "remat": True}])
def test_in_chunks_of_queries_no_block_holds_all_scores(options):
    """Of 4 texts, 3 heads, and 256 tokens by 256."""
    size = dict(layers=2, max_positions=256, tokens=256) | options
    whole, chunked = (saved_bytes(query_chunk_size=each, **size) for each in (0, 16))
    assert whole - chunked > 4 * 3 * 256 * 256 * 4


def test_an_unknown_policy_is_named():
    with pytest.raises(
        ValueError, match=r"encoder.remat must be one of \[False, True, .* got 'dots'"
    ):
        registry.build(SPEC | {"remat": "dots"})


def test_scanned_blocks_start_different_and_drop_out_differently():
    module = registry.build(SPEC | {"scan": True, "dropout": 0.5})
    variables = module.init(jax.random.key(0), IDS, MASK)
    kernels = variables["params"]["blocks"]["qkv"]["kernel"]
    assert kernels.shape == (2, 12, 36)
    assert not np.allclose(kernels[0], kernels[1])
    # With the same weights in both blocks and nothing but dropout between runs, equal draws would
    # be visible.
    runs = [
        module.apply(variables, IDS, MASK, train=True, rngs={"dropout": jax.random.key(k)}).logits
        for k in (0, 1)
    ]
    assert not np.allclose(runs[0], runs[1])


def test_stacking_blocks_can_be_undone():
    _, variables = make()
    there = transformer.stack_blocks(variables["params"])
    back = transformer.unstack_blocks(there)
    assert jax.tree.structure(back) == jax.tree.structure(dict(variables["params"]))
    jax.tree.map(np.testing.assert_array_equal, back, dict(variables["params"]))
    assert transformer.unstack_blocks(back) is back


def test_padding_does_not_advance_the_positions_of_roberta():
    module, variables = make(family="roberta", type_vocabulary=1)
    ids = np.where(MASK, np.where(IDS == 1, 2, IDS), 1)
    table = variables["params"]["position_embeddings"]["embedding"]
    assert table.shape == (35, 12)
    want = module.apply(variables, ids, MASK).features["embeddings"]
    shifted = np.pad(ids, ((0, 0), (3, 0)), constant_values=1)
    found = module.apply(variables, shifted, shifted != 1).features["embeddings"][:, 3:]
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("family", "types"), [("roberta", 1), ("distilbert", 0)])
def test_families_without_token_types_do_not_read_them(family, types):
    module, variables = make(family=family, type_vocabulary=types)
    assert ("type_embeddings" in variables["params"]) == (types == 1)
    pairs = module.apply(variables, IDS, MASK, TYPES).logits
    np.testing.assert_array_equal(pairs, module.apply(variables, IDS, MASK).logits)


def test_the_language_head_is_tied_to_the_word_embeddings():
    module, variables = make(language_head=True, embedding_width=8)
    output = module.apply(variables, IDS, MASK)
    assert output.features["vocabulary_logits"].shape == (4, 16, 23)
    changed = jax.tree.map(jnp.asarray, variables)
    changed["params"]["word_embeddings"]["embedding"] = (
        changed["params"]["word_embeddings"]["embedding"].at[5].add(1.0)
    )
    ids = np.where(IDS == 5, 4, IDS)
    before, after = (
        module.apply(v, ids, MASK).features["vocabulary_logits"] for v in (variables, changed)
    )
    np.testing.assert_array_equal(np.delete(after, 5, axis=-1), np.delete(before, 5, axis=-1))
    assert not np.allclose(after[..., 5], before[..., 5])
