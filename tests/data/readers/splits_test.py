import itertools

import pytest

from kd_jax.data.readers import splits

COUNTS = {"train": 101, "test": 10}


def rows(spec):
    return [(name, row) for name, part in splits.select(spec, COUNTS, "x") for row in part]


@pytest.mark.parametrize(
    "boundary", ["0%", "33%", "50%", "95%", "100%", "0", "7", "100", "-20%", "-3"]
)
def test_two_parts_meet_and_never_overlap(boundary):
    # The row of test keeps an empty half from being refused.
    halves = [
        rows(f"test[:1]+{spec}")[1:] for spec in (f"train[:{boundary}]", f"train[{boundary}:]")
    ]
    assert [row for half in halves for row in half] == rows("train")


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ("test", range(10)),
        ("test[2:5]", range(2, 5)),
        ("test[-2:]", range(8, 10)),
        ("test[:-80%]", range(2)),
        ("test[25%:75%]", range(2, 8)),
    ],
)
def test_slices_as_python_does(spec, want):
    assert rows(spec) == [("test", row) for row in want]


def test_boundaries_are_those_of_tfds():
    import tensorflow_datasets as tfds

    infos = {"train": tfds.core.SplitInfo(name="train", shard_lengths=[101], num_bytes=0)}
    for start, stop in itertools.combinations(range(0, 101, 7), 2):
        spec = f"train[{start}%:{stop}%]"
        (want,) = tfds.core.ReadInstruction.from_spec(spec).to_absolute(infos)
        assert splits.select(spec, COUNTS, "x") == [
            ("train", range(want.from_ or 0, 101 if want.to is None else want.to))
        ]


def test_parts_are_joined():
    assert rows("test[:2]+train[:1]") == [("test", 0), ("test", 1), ("train", 0)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("train[:0%]", r"split 'train\[:0%\]' of 'x' is empty"),
        ("train[5:2]", "is empty"),
        ("nope", "'x' has no split 'nope'; it has test, train"),
        ("train[", "malformed split"),
        ("train[5]", "malformed split"),
        ("", "malformed split"),
        ("train[:200]", "reaches outside the 101 rows"),
        ("train[:110%]", "reaches outside"),
    ],
)
def test_bad_splits_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        rows(spec)


def test_the_order_of_a_row_depends_on_its_key_alone():
    keys = [str(key) for key in range(100)]
    order = [keys[i] for i in splits.fixed_order(keys)]
    assert sorted(order) == sorted(keys)
    assert order != keys
    fewer = keys[:50]
    assert [fewer[i] for i in splits.fixed_order(fewer)] == [key for key in order if key in fewer]
