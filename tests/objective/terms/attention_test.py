"""Relations of queries, keys and values: MiniLMv2's, against numpy, between networks of other heads
and widths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from kd_jax.core.types import ModelOutput
from kd_jax.losses.attention import self_relations
from kd_jax.objective.objective import bind_term
from kd_jax.objective.terms import StepContext, TermSpec

ROWS, TOKENS = 3, 5
MASK = np.arange(TOKENS)[None] < np.array([[5], [3], [1]])


def output(seed, heads, size):
    rng = np.random.default_rng(seed)
    layers = {
        f"{kind}_0": rng.normal(size=(ROWS, heads, TOKENS, size))
        for kind in ("query", "key", "value")
    }
    layers["attention_0"] = rng.normal(size=(ROWS, heads, TOKENS, TOKENS))
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32), ModelOutput(rng.normal(size=(ROWS, 3)), layers)
    )


STUDENT, TEACHER = output(0, 2, 6), output(1, 3, 8)


def term(**spec):
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (STUDENT, {"big": TEACHER})
    )
    site = TermSpec("text", *shapes, TOKENS, {"big": "text"}, np.zeros(9, np.int32), 3)
    return bind_term({"term": "relation_kl"} | spec, site)


def relations(vectors, heads):
    """One text: `[h, T, d]` -> `[heads, T, T]`, head by head."""
    joined = np.concatenate(list(np.float64(vectors)), axis=-1)
    return np.stack(
        [part @ part.T / np.sqrt(part.shape[-1]) for part in np.split(joined, heads, axis=-1)]
    )


@pytest.mark.parametrize("kind", ["query", "key", "value"])
@pytest.mark.parametrize("heads", [1, 4, 12])
def test_matches_the_paper(kind, heads, make_batch):
    built = term(student=f"{kind}_0", teacher=f"{kind}_0", heads=heads)
    batch = make_batch({"text": {"attention_mask": MASK}}, rows=ROWS, classes=3)
    values, _ = built.compute(
        {}, {}, StepContext(STUDENT, {"big": TEACHER}, batch, 0, jax.random.key(0))
    )
    for row, value in enumerate(values):
        count = MASK[row].sum()
        ours, theirs = (
            relations(x.features[f"{kind}_0"][row], heads)[:, :count, :count]
            for x in (STUDENT, TEACHER)
        )
        p, q = special.softmax(theirs, axis=-1), special.softmax(ours, axis=-1)
        np.testing.assert_allclose(
            value, special.rel_entr(p, q).sum(-1).mean(), rtol=1e-5, atol=1e-6
        )


def test_vectors_need_the_number_of_relation_heads():
    with pytest.raises(ValueError, match="layer 'query_0' holds vectors, not scores; give heads"):
        term(student="query_0", teacher="query_0")
    with pytest.raises(
        ValueError, match="heads must divide the width 12 of all heads together, got 5"
    ):
        term(student="query_0", teacher="query_0", heads=5)


@pytest.mark.usefixtures("own_refusals")
@pytest.mark.parametrize("heads", [0, True, 2.0])
def test_refuses_numbers_of_heads_that_are_none(heads):
    with pytest.raises(ValueError, match="heads must divide the width"):
        self_relations(STUDENT.features["query_0"], heads)


@pytest.mark.usefixtures("own_refusals")
def test_relations_are_computed_in_float32():
    wide = self_relations(STUDENT.features["key_0"].astype(jnp.bfloat16), 2)
    assert wide.dtype == jnp.float32
    with pytest.raises(ValueError, match="vectors"):
        self_relations(jnp.zeros((2, 3, 4)), 1)
