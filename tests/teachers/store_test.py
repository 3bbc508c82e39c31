"""The folder of a teacher's outputs: whole files that come back bit for bit, or none."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest

from kd_jax.core.types import LOGITS
from kd_jax.teachers.outputs import Varying, column
from kd_jax.teachers.store import Damaged, Store, map_file

RNG = np.random.default_rng(0)
FACTS = ("teacher", "data", "view", "tokenizer")
ROWS = 10


def columns(count, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, count)
    return {
        LOGITS: column(rng.normal(size=(count, 3)).astype(np.float32)),
        "pooled": column(rng.normal(size=(count, 2)).astype(ml_dtypes.bfloat16)),
        "block_0": Varying(rng.normal(size=2 * sizes.sum()), (None, 2), sizes),
    }


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, FACTS, ROWS, ("pooled", "block_0"), per_file=4)


@pytest.fixture
def written(store):
    made = [columns(len(part), part.start) for part in store.parts]
    for part, each in zip(store.parts, made, strict=True):
        store.write(part, each)
    store.finish()
    return made


def test_outputs_come_back_bit_for_bit(store, written):
    assert store.missing() == []
    for part, made in zip(store.open(store.keep), written, strict=True):
        for name, each in made.items():
            assert part[name].dtype == each.dtype
            assert part[name].shape == each.shape
            np.testing.assert_array_equal(part[name].values, each.values)
            np.testing.assert_array_equal(part[name].sizes, each.sizes)
    assert len([*store.folder.glob("*.tmp")]) == 0


def test_they_are_mapped_and_not_read(store, written):
    assert [{*part} for part in store.open(())] == [{LOGITS}] * 3
    values = store.open(())[0][LOGITS].values
    while values.base is not None and not isinstance(values, np.memmap):
        values = values.base
    assert isinstance(values, np.memmap)
    assert not values.flags.writeable


def test_what_is_there_is_gone_on_with(store):
    parts = store.parts
    assert [len(part) for part in parts] == [4, 4, 2]
    assert store.missing() == parts
    store.write(parts[1], columns(4))
    assert store.missing() == [parts[0], parts[2]]


def test_another_teacher_data_view_or_output_has_another_folder(tmp_path):
    every = [FACTS, ("other", *FACTS[1:]), ("teacher", "other", *FACTS[2:])]
    folders = {Store(tmp_path, facts, ROWS, ()).folder for facts in every}
    folders |= {Store(tmp_path, FACTS, ROWS + 1, ()).folder}
    folders |= {Store(tmp_path, FACTS, ROWS, ("pooled",)).folder}
    assert len(folders) == 5


def test_who_reads_less_takes_what_is_there(store, written, tmp_path):
    less = Store(tmp_path, FACTS, ROWS, ("pooled",))
    assert less.among().folder == store.folder
    assert Store(tmp_path, FACTS, ROWS, ("block_7",)).among().folder != store.folder
    assert Store(tmp_path, ("other", *FACTS[1:]), ROWS, ("pooled",)).among().folder != store.folder


def test_half_a_store_is_nobodys(store, tmp_path):
    store.write(store.parts[0], columns(4))
    less = Store(tmp_path, FACTS, ROWS, ())
    assert less.among().folder == less.folder


def flip(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def longer_header(content):
    return struct.pack("<Q", 2**40) + content[8:]


def another_offset(content):
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header[LOGITS]["data_offsets"][1] += 8
    told = json.dumps(header).encode()
    return struct.pack("<Q", len(told)) + told + content[8 + length :]


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda content: content[:-9],
        lambda content: content[:4],
        lambda _: b"",
        longer_header,
        another_offset,
        lambda _: struct.pack("<Q", 3) + b"[1]",
        lambda _: struct.pack("<Q", 2) + b"{}",
    ],
    ids=["flipped", "short", "shorter", "empty", "header", "offset", "list", "nothing"],
)
def test_a_damaged_file_is_announced_and_computed_again(store, written, damage, caplog):
    path = store.path(store.parts[1])
    path.write_bytes(damage(path.read_bytes()))
    assert store.missing() == [store.parts[1]]
    assert f"{path} is computed again" in caplog.text


def test_a_file_of_other_rows_or_outputs_is_no_part(store, written, caplog):
    first, second, last = store.parts
    store.path(last).write_bytes(store.path(first).read_bytes())
    store.write(second, {name: columns(4)[name] for name in (LOGITS, "pooled")})
    assert store.missing() == [second, last]
    assert "it holds logits, pooled" in caplog.text
    assert "it has not 2 rows" in caplog.text


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"a picture, perhaps, or something else")
    with pytest.raises(Damaged, match=r"its header of \d+ bytes is longer than the file"):
        map_file(tmp_path / "x")
