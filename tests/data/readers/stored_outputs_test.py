"""Outputs that another system computed, as files of them may look."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd_jax.core import limits
from kd_jax.data.readers.stored_outputs import read_outputs

IDS = ("key", "id", "ids")
NUMBERS = {"b": [0.25, 0.75], "a": [0.5, 0.5]}


def write(folder, name, rows=NUMBERS, column="probabilities"):
    path = folder / name
    records = [{"key": key, column: value} for key, value in rows.items()]
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        arrays = {"ids": np.array([*rows]), column: np.array([*rows.values()])}
        np.savez(path, allow_pickle=False, **arrays)
    return path


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet", "x.npz"])
def test_every_kind_of_file_gives_the_same_outputs(name, tmp_path):
    found = read_outputs(write(tmp_path, name), IDS, None, None)
    assert (found.kind, found.names) == ("probabilities", None)
    assert found.rows == {"b": 0, "a": 1}
    assert np.array_equal(found.values, [[0.25, 0.75], [0.5, 0.5]])


def test_named_outputs_keep_the_first_rows_order(tmp_path):
    rows = {"a": {"no": 1.0, "yes": 2.0}, "b": {"yes": 4.0, "no": 3.0}}
    found = read_outputs(write(tmp_path, "x.jsonl", rows, "logits"), IDS, None, None)
    assert found.names == ("no", "yes")
    assert np.array_equal(found.values, [[1, 2], [3, 4]])


def test_words_have_outputs_of_their_own(tmp_path):
    rows = {"a": [[1.0, 2.0]], "b": [{"O": 4.0, "B-x": 3.0}, {"B-x": 5.0, "O": 6.0}]}
    rows["a"] = [{"O": 1.0, "B-x": 2.0}]
    found = read_outputs(write(tmp_path, "x.jsonl", rows, "logits"), IDS, None, None)
    assert found.names == ("O", "B-x")
    assert [value.tolist() for value in found.values] == [[[1, 2]], [[4, 3], [6, 5]]]


def test_columns_of_a_table_are_outputs_and_its_rows_numbers_their_ids(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,no,yes\nfine,0.1,0.9\ndull,0.8,0.2\n")
    found = read_outputs(path, IDS, ("no", "yes"), "probabilities")
    assert (found.rows, found.names) == ({"2": 0, "3": 1}, ("no", "yes"))
    assert np.allclose(found.values, [[0.1, 0.9], [0.8, 0.2]])


def test_what_predict_could_not_read_has_no_outputs(tmp_path):
    path = tmp_path / "x.jsonl"
    answers = [{"row": 2, "values": {"score": 3.5}}, {"row": 3, "error": "empty text"}]
    path.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    found = read_outputs(path, ("row",), None, None)
    assert (found.rows, found.names, found.values[0].tolist()) == ({"2": 0}, ("score",), [3.5])


REFUSED = {
    "twice.jsonl": (
        '{"id": 1, "logits": [1, 2]}\n{"id": "1", "logits": [3, 4]}',
        "has the id '1' twice, in outputs 1 and 2",
    ),
    "nan.jsonl": ('{"id": 1, "logits": [1, NaN]}', "row 1: 'logits' has nan, which isn't finite"),
    "width.jsonl": (
        '{"id": 1, "logits": [1, 2]}\n{"id": 2, "logits": [1]}',
        "outputs of shape [1] for id '2', and of [2] for '1'",
    ),
    "names.jsonl": (
        '{"id": 1, "logits": {"a": 1}}\n{"id": 2, "logits": {"b": 1}}',
        "row 2: outputs of b, and of a before",
    ),
    "no_id.jsonl": ('{"logits": [1, 2]}', "has no ids, 'key' or 'id' or 'ids'; it has logits"),
    "no_outputs.jsonl": ('{"id": 1, "score": 2}', "has no outputs, of logits, probabilities"),
    "both.jsonl": (
        '{"id": 1, "logits": [1], "values": [1]}',
        "has several outputs (logits, values); say kind",
    ),
    "text.jsonl": ('{"id": 1, "logits": ["x"]}', "row 1: 'logits' has 'x' in place of a number"),
    "empty_id.jsonl": ('{"id": " ", "logits": [1]}', "row 1: column 'id' has no id but ' '"),
    "broken.jsonl": ("{", "1 rows of"),
    "none.jsonl": ("", "has no ids"),
    "x.txt": ("", "its name must end in .npz, .csv"),
    "damaged.npz": ("PK", "can't be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_says_no_outputs_is_refused_in_one_line(name, tmp_path):
    content, message = REFUSED[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_outputs(tmp_path / name, IDS, None, None)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_an_archive_is_measured_before_it_is_unpacked(tmp_path, monkeypatch):
    path = write(tmp_path, "x.npz")
    monkeypatch.setattr(limits, "OUTPUTS", 10)
    with pytest.raises(ValueError, match="holds more than"):
        read_outputs(path, IDS, None, None)


def test_arrays_of_python_objects_are_not_unpacked(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, ids=np.array(["a"]), logits=np.array([[object()]]))
    with pytest.raises(ValueError, match="can't be read: Object arrays"):
        read_outputs(path, IDS, None, None)


def test_columns_need_a_kind_and_a_table(tmp_path):
    path = write(tmp_path, "x.npz")
    with pytest.raises(ValueError, match="kind must be one of logits"):
        read_outputs(path, IDS, ("a",), None)
    with pytest.raises(ValueError, match=r"columns are of a table; .* is an \.npz file"):
        read_outputs(path, IDS, ("a",), "logits")
