"""Batches and outputs have the shapes that their annotations say."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype.door import is_bearable
from jaxtyping import jaxtyped

from kd_jax.core.types import Mean, ModelOutput
from kd_jax.models import registry
from kd_jax.models.network import Network


def fits(value):
    """Tells whether the fields of a dataclass have the annotated dtypes and shapes, one size an
    axis."""
    hints = typing.get_type_hints(type(value))
    with jaxtyped("context"):
        return all(
            is_bearable(getattr(value, field.name), hints[field.name])
            for field in dataclasses.fields(value)
        )


def test_a_batch_of_training_and_a_models_output_fit(make_batch):
    batch = make_batch({"v": {"images": np.zeros((6, 8, 8, 3), np.float32)}})
    assert fits(batch)
    assert fits(jax.tree.map(lambda leaf: np.stack([leaf, leaf]), batch))  # Two microbatches.
    spec = dict(name="cifar_resnet8", num_classes=4)
    network = Network(registry.build(spec), "v", jnp.float32)
    output = network(network.init(jax.random.key(0), batch), batch)
    assert fits(output)
    assert fits(Mean(jnp.sum(output.logits), jnp.asarray(3)))


@pytest.mark.parametrize(
    "change",
    [
        dict(labels=np.zeros((5, 1), np.int32)),
        dict(labels=np.zeros(6)),
        dict(valid=np.ones(6, np.int32)),
        dict(index=np.arange(5)),
    ],
)
def test_a_batch_of_other_shapes_or_types_does_not(make_batch, change):
    assert not fits(make_batch({}, **change))


def test_an_output_of_integers_does_not():
    assert not fits(ModelOutput(jnp.zeros((2, 3), jnp.int32), {}))


def test_a_view_has_predictions_that_another_one_cuts_off(make_batch):
    short, long = np.array([[1, -1, -1]]), np.array([[1, 2, -1]])
    views = {"short": {"positions": short}, "long": {"positions": long}, "other": {}}
    batch = make_batch(views, rows=1, positions=(short >= 0) & (long >= 0))
    assert batch.as_read("long").positions.tolist() == [[True, True, False]]
    # Of two what both have; one that doesn't say has all of them.
    for views in (("short", "long"), ("other", "short")):
        assert batch.as_read(*views).positions.tolist() == [[True, False, False]]
    assert batch.as_read("other", "long").positions.tolist() == [[True, True, False]]
    # Of one that isn't there nobody knows more than what all have.
    for views in (("other",), ("none",), ("long", "")):
        assert batch.as_read(*views).positions.tolist() == [[True, False, False]]
    assert make_batch(views, rows=1).as_read("long").positions is None
