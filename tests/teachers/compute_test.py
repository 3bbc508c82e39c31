import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.data.batches import evaluation_batches
from kd_jax.data.source import Source
from kd_jax.models.network import Network
from kd_jax.models.registry import build
from kd_jax.teachers import compute
from kd_jax.training.interruption import Interrupted
from kd_jax.training.sharding import make_parallel

pytestmark = pytest.mark.slow

EXAMPLES, LENGTH = 45, 20
ENCODER = dict(
    name="encoder",
    num_classes=3,
    vocabulary_size=30,
    width=8,
    layers=1,
    heads=2,
    intermediate=16,
    max_positions=LENGTH,
    type_vocabulary=2,
    dropout=0.5,
    pooling="mean",
)


class Words:
    """Token ids of differing lengths, so that the split falls into two buckets."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.lengths = rng.integers(3, LENGTH + 1, EXAMPLES).astype(np.int32)
        self.ids = rng.integers(1, 30, (EXAMPLES, LENGTH)).astype(np.int32)

    def gather(self, indices, length, draws=None):
        assert draws is None, "cached outputs are of examples as they are"
        mask = np.arange(length) < self.lengths[indices][:, None]
        return {
            "input_ids": np.where(mask, self.ids[indices][:, :length], 0),
            "attention_mask": mask,
        }


class AtBatch:
    """Asks to stop at a batch; at batch 0, never."""

    def __init__(self, batch):
        self.left = batch

    def asked(self, *, agree):
        self.left -= 1
        return self.left == 0


@pytest.fixture(scope="module")
def words():
    return Words()


@pytest.fixture(scope="module")
def teacher(words):
    network = Network(build(ENCODER), "v", jnp.float32)
    return network, network.init(jax.random.key(0), batch_of(words, np.arange(1), LENGTH))


def batch_of(words, indices, length):
    from kd_jax.core.types import Batch

    everyone = np.ones(len(indices), bool)
    return Batch(
        indices.astype(np.int32),
        {"v": words.gather(indices, length)},
        np.zeros(len(indices), np.int32),
        everyone,
        everyone,
    )


def table_of(words, teacher, *, backend="jit", data=1, batch_size=16, stop=None):
    source = Source(
        "words", "text", ["x"] * EXAMPLES, np.zeros(EXAMPLES, np.int32), ("a", "b", "c"), "sha256:0"
    )
    batches = evaluation_batches(
        source,
        {"v": words},
        batch_size=batch_size,
        process_index=0,
        process_count=1,
        buckets=(8, LENGTH),
    )
    network, variables = teacher
    compiled = make_parallel(backend=backend, data=data, fsdp=1, tensor=1).evaluate(
        functools.partial(compute.output_rows, network=network)
    )
    return compute.compute(compiled, variables, batches, EXAMPLES, "big", stop or AtBatch(0))


@pytest.fixture(scope="module")
def table(words, teacher):
    return table_of(words, teacher)


def test_every_example_has_its_own_row_whatever_bucket_and_batch_it_fell_into(
    words, teacher, table
):
    network, variables = teacher
    assert set(table) == {"logits", "pooled"}
    for index in range(EXAMPLES):
        alone = network(variables, batch_of(words, np.array([index]), LENGTH))
        np.testing.assert_allclose(table["logits"][index], alone.logits[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            table["pooled"][index], alone.features["pooled"][0], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("backend", ["jit", "pmap"])
def test_the_table_does_not_depend_on_devices_or_batches(words, teacher, table, backend):
    other = table_of(words, teacher, backend=backend, data=8, batch_size=24)
    for name, column in table.items():
        np.testing.assert_allclose(other[name], column, rtol=1e-4, atol=1e-5)


def test_sigterm_is_heeded_while_the_outputs_are_computed(words, teacher):
    with pytest.raises(Interrupted, match="stopped while big's outputs were computed"):
        table_of(words, teacher, stop=AtBatch(2))
