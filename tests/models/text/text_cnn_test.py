"""TextCNN against the paper's formulas in numpy, window by window, and its behaviour under masks
and padding."""

import jax
import numpy as np
import pytest

from kd_jax.models import registry

SPEC = {
    "name": "text_cnn",
    "num_classes": 3,
    "vocabulary_size": 20,
    "width": 6,
    "kernels": (2, 3, 5),
    "filters": 4,
}
SPEC |= {"dropout": 0.1}
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 20, (4, 16)).astype(np.int32)
MASK = np.arange(16)[None] < np.array([[16], [3], [1], [0]])


def make(**options):
    module = registry.build(SPEC | options)
    variables = module.init(jax.random.key(0), IDS, MASK)
    rng = np.random.default_rng(1)
    return module, jax.tree.map(
        lambda x: (x + rng.normal(0, 0.3, x.shape)).astype(np.float32), variables
    )


def kim(params, ids, mask):
    """The features of one text in float64: every window that stands on a token that counts, cut out
    by hand."""
    embeddings = params["word_embeddings"]["embedding"][ids]
    features = {"embeddings": embeddings}
    maxima = []
    for i, kernel in enumerate(SPEC["kernels"]):
        layer = params[f"conv_{i}"]
        before = (kernel - 1) // 2
        around = np.zeros((len(ids) + kernel - 1, embeddings.shape[1]))
        around[before : before + len(ids)] = np.where(mask[:, None], embeddings, 0)
        block = np.zeros((len(ids), SPEC["filters"]))
        for t in np.flatnonzero(mask):
            response = (
                np.einsum("kd,kdf->f", around[t : t + kernel], layer["kernel"]) + layer["bias"]
            )
            block[t] = np.maximum(response, 0)
        features[f"block_{i}"] = block
        maxima.append(block[mask].max(0) if mask.any() else np.zeros(SPEC["filters"]))
    return features | {"pooled": np.concatenate(maxima)}


def test_matches_numpy():
    module, variables = make()
    output = jax.jit(module.apply)(variables, IDS, MASK)
    params = jax.tree.map(np.float64, variables["params"])
    want = [kim(params, *row) for row in zip(IDS, MASK, strict=True)]
    assert output.features.keys() == want[0].keys()
    for key, feature in output.features.items():
        np.testing.assert_allclose(
            feature, [each[key] for each in want], rtol=1e-5, atol=1e-6, err_msg=key
        )
    logits = np.stack([each["pooled"] for each in want]) @ params["classifier"]["kernel"]
    np.testing.assert_allclose(
        output.logits, logits + params["classifier"]["bias"], rtol=1e-5, atol=1e-5
    )


def test_masked_positions_and_padding_change_nothing():
    module, variables = make()
    want = module.apply(variables, IDS, MASK).logits
    changed = np.where(MASK, IDS, 7)
    np.testing.assert_allclose(
        module.apply(variables, changed, MASK.astype(np.int64)).logits, want, atol=1e-6
    )
    pad = ((0, 0), (0, 48))
    np.testing.assert_allclose(
        module.apply(variables, np.pad(IDS, pad), np.pad(MASK, pad)).logits, want, atol=1e-5
    )
    short = module.apply(variables, IDS[1:3, :3], MASK[1:3, :3]).logits
    np.testing.assert_allclose(short, want[1:3], atol=1e-5)


def test_the_order_of_the_tokens_counts():
    module, variables = make()
    turned = IDS.copy()
    turned[1, :3] = IDS[1, 2::-1]
    first, second = (module.apply(variables, ids, MASK).logits[1] for ids in (IDS, turned))
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.usefixtures("own_refusals")
def test_refuses_pairs_other_shapes_and_no_kernels():
    module, variables = make()
    with pytest.raises(ValueError, match="text_cnn reads single texts and got token_type_ids"):
        module.apply(variables, IDS, MASK, token_type_ids=IDS)
    with pytest.raises(ValueError, match=r"must both be \[B, T\], got \(4, 16\) and \(4, 15\)"):
        module.apply(variables, IDS, MASK[:, 1:])
    with pytest.raises(
        ValueError, match=r"kernels must name at least one convolution's width, got \(\)"
    ):
        registry.build(SPEC | {"kernels": ()})
