import collections
import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from kd_jax.data.batches import evaluation_batches, repeated_batches, training_batches
from kd_jax.data.source import Source
from kd_jax.data.views.image import ImageView
from kd_jax.data.views.text import TextView, bucket_lengths, load_tokenizer

COUNT = 90


def make_text():
    # 60 short texts, 30 of 20 to 27 tokens; every fifth without a label.
    texts = [" ".join(["word"] * (3 if i % 3 else 18 + i % 8)) + f" t{i}" for i in range(COUNT)]
    labels = np.array([-1 if i % 5 == 0 else i % 4 for i in range(COUNT)], np.int32)
    source = Source("made up", "text", texts, labels, tuple("abcd"), "sha256:0")
    tokenizer = load_tokenizer("trained", texts=texts, vocabulary_size=200)
    views = {
        "long": TextView(tokenizer, 32).prepare(source),
        "short": TextView(tokenizer, 10).prepare(source),
    }
    return source, views, bucket_lengths(32)


def make_images():
    images = np.arange(COUNT, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    source = Source(
        "made up", "image", images, np.arange(COUNT, dtype=np.int32) % 4, tuple("abcd"), "sha256:0"
    )
    return source, {"view": ImageView(None, (0.0,), (1 / 255,), None).prepare(source)}, ()


MAKERS = pytest.mark.parametrize("make", [make_text, make_images])


def train(made, *, batch_size=12, accumulate=1, seed=0, process_index=0, process_count=1, **more):
    source, views, buckets = made
    return training_batches(
        source,
        views,
        batch_size=batch_size,
        accumulate=accumulate,
        seed=seed,
        process_index=process_index,
        process_count=process_count,
        buckets=buckets,
        **more,
    )


def evaluate(made, *, batch_size=8, process_index=0, process_count=1):
    source, views, buckets = made
    return evaluation_batches(
        source,
        views,
        batch_size=batch_size,
        process_index=process_index,
        process_count=process_count,
        buckets=buckets,
    )


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@MAKERS
@pytest.mark.parametrize(
    "batches", [lambda made: itertools.islice(train(made), 8), evaluate], ids=["train", "evaluate"]
)
def test_soft_labels_go_where_their_examples_go(make, batches):
    """Row `index` of the source's."""
    source, views, buckets = make()
    soft = np.random.default_rng(0).dirichlet(np.ones(4), COUNT).astype(np.float32)
    made = dataclasses.replace(source, soft_labels=soft), views, buckets
    for batch in batches(made):
        rows = np.asarray(batch.valid).nonzero()
        np.testing.assert_array_equal(
            np.asarray(batch.labels)[rows], soft[np.asarray(batch.index)[rows]]
        )


@MAKERS
@pytest.mark.parametrize("position", [0, 1, 13])
def test_resumes_exactly(make, position):
    made = make()
    batches = train(made)
    for _ in range(position):
        next(batches)
    state = json.loads(json.dumps(batches.get_state()))
    want = list(itertools.islice(batches, 12))
    fresh = train(made)
    next(fresh)
    fresh.set_state(state)
    for got, expected in zip(fresh, want, strict=False):
        assert_same(got, expected)


@MAKERS
def test_processes_and_microbatches_are_slices_of_one_batch(make):
    made = make()
    whole = itertools.islice(train(made), 10)
    parts = [train(made, accumulate=3, process_index=index, process_count=2) for index in range(2)]
    for batch, *slices in zip(whole, *parts, strict=False):
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *slices)
        assert joined.index.shape == (3, 4)
        assert_same(jax.tree.map(lambda leaf: leaf.reshape(1, 12, *leaf.shape[2:]), joined), batch)


@MAKERS
def test_every_example_comes_once_an_epoch_of_its_bucket(make):
    seen = collections.defaultdict(list)
    for batch in itertools.islice(train(make(), batch_size=10), 90):
        seen[jax.tree.leaves(batch.views)[0].shape[2]].extend(batch.index.ravel().tolist())
    assert sum(len(indices) for indices in seen.values()) == 900
    sizes = []
    for indices in seen.values():
        size = len(set(indices))
        sizes.append(size)
        epochs = [indices[start : start + size] for start in range(0, len(indices), size)]
        assert len(epochs) == 10, "buckets are not drawn in proportion to their examples"
        assert all(sorted(epoch) == sorted(set(indices)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == 10, "epochs repeat an order"
    assert sum(sizes) == COUNT


@pytest.mark.parametrize("epochs", [1, 3])
def test_batches_that_come_again_hold_every_example_of_rare_lengths_too(epochs):
    texts = ["a b c"] * 97 + [" ".join("abcdefghijklmnopqrstuvwxyz")] * 3
    labels = np.zeros(100, np.int32)
    source = Source("made up", "text", texts, labels, ("x",), "sha256:0")
    view = TextView(load_tokenizer("trained", texts=texts, vocabulary_size=60), 32).prepare(source)
    made = source, {"view": view}, bucket_lengths(32)
    count = repeated_batches(
        *made[:2],
        batch_size=16,
        buckets=made[2],
        augmented_epochs=epochs,
        process_index=0,
        process_count=1,
    )
    batches = train(made, batch_size=16, augmented_epochs=epochs)
    found = [*itertools.islice(batches, 2 * count)]
    for first, again in zip(found[:count], found[count:], strict=True):
        assert_same(again, first)
    assert_same(batches.at(count + 1), found[1])
    assert {*np.concatenate([batch.index.ravel() for batch in found])} == {*range(100)}
    # Each bucket by itself: 97 and 3 examples in batches of 16.
    assert count == -(-97 * epochs // 16) + -(-3 * epochs // 16)


def test_the_seed_sets_the_order():
    made = make_images()
    first, same, other = (next(train(made, seed=seed)).index for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


@MAKERS
def test_a_batch_may_be_of_one_example(make):
    batches = train(make(), batch_size=1)
    seen = [int(next(batches).index.item()) for _ in range(3 * COUNT)]
    assert len(set(seen)) == COUNT
    state = batches.get_state()
    rest = [int(next(batches).index.item()) for _ in range(5)]
    batches.set_state(state)
    assert [int(next(batches).index.item()) for _ in range(5)] == rest


def test_a_batch_may_be_larger_than_the_source():
    batch = next(train(make_images(), batch_size=200))
    assert (
        np.bincount(batch.index.ravel()).tolist().count(2)
        + np.bincount(batch.index.ravel()).tolist().count(3)
        == COUNT
    )


def test_text_is_padded_to_its_bucket_and_to_its_views_own_length():
    source, views, buckets = make_text()
    shapes = set()
    for batch in itertools.islice(train((source, views, buckets)), 20):
        length = batch.views["long"]["input_ids"].shape[-1]
        shapes.add((length, batch.views["short"]["input_ids"].shape[-1]))
        lengths = views["long"].lengths[batch.index]
        np.testing.assert_array_equal(batch.views["long"]["attention_mask"].sum(-1), lengths)
        np.testing.assert_array_equal(
            batch.views["short"]["attention_mask"].sum(-1), np.minimum(lengths, 10)
        )
        assert (np.searchsorted(buckets, lengths) == buckets.index(length)).all()
        np.testing.assert_array_equal(batch.labels, source.labels[batch.index])
        np.testing.assert_array_equal(batch.label_valid, batch.labels >= 0)
        assert batch.valid.all()
    assert shapes == {(16, 10), (32, 10)}


@MAKERS
@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluation_covers_every_example_once(make, process_count):
    made = make()
    source = made[0]
    parts = [
        evaluate(made, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    seen = []
    for _ in range(2):
        seen.clear()
        rounds = list(zip(*parts, strict=True))
        assert len(rounds) == len(parts[0])
        for batch in itertools.chain.from_iterable(rounds):
            assert batch.index.shape == (8 // process_count,)
            assert not (batch.label_valid & ~batch.valid).any()
            np.testing.assert_array_equal(
                batch.label_valid, batch.valid & (source.labels[batch.index] >= 0)
            )
            seen.extend(batch.index[batch.valid].tolist())
    assert sorted(seen) == list(range(COUNT))


def test_evaluation_rows_are_their_examples():
    source, views, buckets = make_images()
    for batch in evaluate((source, views, buckets)):
        np.testing.assert_allclose(
            batch.views["view"]["images"][:, 0, 0, 0], batch.index, rtol=1e-6
        )
        np.testing.assert_array_equal(batch.labels, source.labels[batch.index])


def test_bad_arguments_are_refused():
    source, views, _ = made = make_text()
    with pytest.raises(
        ValueError, match="batch_size 12 is not divisible by accumulate x process_count, 8"
    ):
        train(made, accumulate=4, process_count=2)
    with pytest.raises(ValueError, match="batch_size 8 is not divisible by process_count 3"):
        evaluate(made, process_count=3)
    with pytest.raises(
        ValueError,
        match=r"27 tokens is longer than the last bucket, 16|longer than the last bucket, 16",
    ):
        train((source, views, (16,)))
