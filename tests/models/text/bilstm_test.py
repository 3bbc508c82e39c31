"""The BiLSTM against an LSTM in numpy, one step of one text at a time, and against PyTorch's on
packed sequences."""

import jax
import numpy as np
import pytest
from scipy.special import expit

from kd_jax.models import registry

pytestmark = pytest.mark.torch

SPEC = {
    "name": "bilstm",
    "num_classes": 3,
    "vocabulary_size": 20,
    "width": 6,
    "state": 5,
    "layers": 2,
    "head": (7, 4),
}
SPEC |= {"dropout": 0.1}
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 20, (4, 16)).astype(np.int32)
LENGTHS = np.array([16, 5, 2, 1])
MASK = np.arange(16)[None] < LENGTHS[:, None]
GATES = "ifgo"


def make(**options):
    """The module and variables without zeros, so that no bias can be forgotten."""
    module = registry.build(SPEC | options)
    variables = module.init(jax.random.key(0), IDS, MASK)
    rng = np.random.default_rng(1)
    return module, jax.tree.map(
        lambda x: (x + rng.normal(0, 0.3, x.shape)).astype(np.float32), variables
    )


def lstm(cell, x):
    """The states `[T, state]` of one direction over one text `[T, D]`, from left to right, in
    float64."""
    h = c = np.zeros(SPEC["state"])
    states = []
    for token in x:
        i, f, g, o = (
            token @ cell[f"i{gate}"]["kernel"]
            + h @ cell[f"h{gate}"]["kernel"]
            + cell[f"h{gate}"]["bias"]
            for gate in GATES
        )
        c = expit(f) * c + expit(i) * np.tanh(g)
        h = expit(o) * np.tanh(c)
        states.append(h)
    return np.stack(states)


def tang(params, ids):
    """The features of one text without padding."""
    x = params["word_embeddings"]["embedding"][ids]
    features = {}
    for i in range(SPEC["layers"]):
        forward, backward = (
            lstm(params[f"forward_{i}"], x),
            lstm(params[f"backward_{i}"], x[::-1])[::-1],
        )
        x = features[f"block_{i}"] = np.concatenate([forward, backward], axis=-1)
    # The backward direction ends at the first token.
    x = features["last_states"] = np.concatenate([forward[-1], backward[0]])
    for name in ("hidden_0", "hidden_1"):
        x = np.maximum(x @ params[name]["kernel"] + params[name]["bias"], 0)
    return features | {"pooled": x}


def test_matches_numpy():
    module, variables = make()
    output = jax.jit(module.apply)(variables, IDS, MASK)
    params = jax.tree.map(np.float64, variables["params"])
    for row, length in enumerate(LENGTHS):
        want = tang(params, IDS[row, :length])
        assert output.features.keys() == want.keys() | {"embeddings"}
        for key, value in want.items():
            found = output.features[key][row]
            found = found[:length] if key.startswith("block_") else found
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5, err_msg=key)
        logits = want["pooled"] @ params["classifier"]["kernel"] + params["classifier"]["bias"]
        np.testing.assert_allclose(output.logits[row], logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_matches_pytorch_on_packed_sequences(layers):
    torch = pytest.importorskip("torch")
    module, variables = make(layers=layers)
    params = variables["params"]
    other = torch.nn.LSTM(
        SPEC["width"], SPEC["state"], layers, batch_first=True, bidirectional=True
    )
    named = dict(other.named_parameters())
    for i in range(layers):
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            cell = params[f"{direction}_{i}"]
            parts = {
                "weight_ih": [cell[f"i{gate}"]["kernel"].T for gate in GATES],
                "weight_hh": [cell[f"h{gate}"]["kernel"].T for gate in GATES],
                "bias_hh": [cell[f"h{gate}"]["bias"] for gate in GATES],
                "bias_ih": [np.zeros(4 * SPEC["state"], np.float32)],
            }
            for name, leaves in parts.items():
                named[f"{name}_l{i}{suffix}"].data = torch.tensor(np.concatenate(leaves))
    output = jax.jit(module.apply)(variables, IDS, MASK)
    x = torch.tensor(np.asarray(output.features["embeddings"]))
    with torch.no_grad():
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True)
        states, (last, _) = other(packed)
        states, _ = torch.nn.utils.rnn.pad_packed_sequence(states, batch_first=True)
    found = np.where(MASK[:, :, None], output.features[f"block_{layers - 1}"], 0)
    np.testing.assert_allclose(found, states, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        output.features["last_states"],
        np.concatenate(last[-2:].numpy(), axis=-1),
        rtol=1e-5,
        atol=1e-5,
    )


def test_masked_positions_and_padding_change_nothing():
    module, variables = make()
    want = jax.jit(module.apply)(variables, IDS, MASK).logits
    changed = np.where(MASK, IDS, 7)
    np.testing.assert_allclose(
        module.apply(variables, changed, MASK.astype(np.int64)).logits, want, atol=1e-6
    )
    pad = ((0, 0), (0, 48))
    np.testing.assert_allclose(
        module.apply(variables, np.pad(IDS, pad), np.pad(MASK, pad)).logits, want, atol=1e-5
    )


def test_a_row_without_tokens_has_last_states_zero():
    module, variables = make()
    features = jax.jit(module.apply)(variables, IDS, np.zeros_like(MASK)).features
    np.testing.assert_array_equal(features["last_states"], np.zeros((4, 10)))


def test_without_hidden_layers_pooled_is_the_last_states():
    module, variables = make(head=())
    features = jax.jit(module.apply)(variables, input_ids=IDS, attention_mask=MASK).features
    assert np.array_equal(features["pooled"], features["last_states"])


def test_training_drops_out_the_input_of_every_layer():
    module, variables = make(dropout=0.5)

    def run(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return jax.jit(lambda v: module.apply(v, IDS, MASK, train=True, rngs=rngs))(
            variables
        ).features

    first, second = run(0), run(1)
    for layer in ("block_0", "block_1", "pooled"):
        assert not np.allclose(first[layer][0], second[layer][0], rtol=1e-3, atol=1e-4), layer
    np.testing.assert_array_equal(first["embeddings"], second["embeddings"])


@pytest.mark.usefixtures("own_refusals")
def test_refuses_pairs_and_other_shapes():
    module, variables = make()
    with pytest.raises(ValueError, match="bilstm reads single texts and got token_type_ids"):
        jax.jit(module.apply)(variables, IDS, MASK, token_type_ids=IDS)
    with pytest.raises(ValueError, match=r"must both be \[B, T\], got \(4, 16\) and \(4, 15\)"):
        jax.jit(module.apply)(variables, IDS, MASK[:, 1:])
