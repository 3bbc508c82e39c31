import jax
import numpy as np
import pytest

from kd_jax.models import registry

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 20, (4, 16)).astype(np.int32)
MASK = np.arange(16)[None] < np.array([[16], [3], [1], [0]])


def make(**options):
    spec = {
        "name": "bag_of_embeddings",
        "num_classes": 3,
        "vocabulary_size": 20,
        "width": 6,
        "hidden": (5, 4),
        "dropout": 0.1,
    }
    module = registry.build(spec | options)
    return module, module.init(jax.random.key(0), IDS, MASK)


def test_matches_numpy():
    module, variables = make()
    output = module.apply(variables, IDS, MASK)
    params = jax.tree.map(np.float64, variables["params"])
    embeddings = params["word_embeddings"]["embedding"][IDS]
    x = np.stack(
        [e[m].mean(0) if m.any() else np.zeros(6) for e, m in zip(embeddings, MASK, strict=True)]
    )
    np.testing.assert_allclose(output.features["embeddings"], embeddings, rtol=1e-6)
    np.testing.assert_allclose(output.features["mean_embedding"], x, rtol=1e-5, atol=1e-6)
    for name in ("hidden_0", "hidden_1"):
        x = np.maximum(x @ params[name]["kernel"] + params[name]["bias"], 0)
    np.testing.assert_allclose(output.features["pooled"], x, rtol=1e-5, atol=1e-6)
    want = x @ params["classifier"]["kernel"] + params["classifier"]["bias"]
    np.testing.assert_allclose(output.logits, want, rtol=1e-5, atol=1e-6)


def test_masked_positions_and_padding_change_nothing():
    module, variables = make()
    want = module.apply(variables, IDS, MASK).logits
    changed = np.where(MASK, IDS, 7)
    np.testing.assert_allclose(
        module.apply(variables, changed, MASK.astype(np.int64)).logits, want, atol=1e-6
    )
    pad = ((0, 0), (0, 16))
    np.testing.assert_allclose(
        module.apply(variables, np.pad(IDS, pad), np.pad(MASK, pad)).logits, want, atol=1e-5
    )


def test_without_hidden_layers_pooled_is_the_mean_embedding():
    module, variables = make(hidden=())
    features = module.apply(variables, input_ids=IDS, attention_mask=MASK).features
    assert np.array_equal(features["pooled"], features["mean_embedding"])


@pytest.mark.usefixtures("own_refusals")
def test_refuses_pairs_and_other_shapes():
    module, variables = make()
    with pytest.raises(ValueError, match="reads single texts and got token_type_ids"):
        module.apply(variables, IDS, MASK, token_type_ids=IDS)
    with pytest.raises(ValueError, match=r"must both be \[B, T\], got \(4, 16\) and \(4, 15\)"):
        module.apply(variables, IDS, MASK[:, 1:])
