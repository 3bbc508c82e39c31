"""Parquet and Arrow files are tables like any other, with the class names that `datasets` keeps."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd_jax.data.open import open_source
from kd_jax.tasks import make_task

ROWS = 40
CLASSES = ["no", "yes"]


def table(names=False):
    rows = {
        "text": [f"text {i}" for i in range(ROWS)],
        "label": [i % 2 for i in range(ROWS)],
        "words": [["a", f"b{i}"] for i in range(ROWS)],
        "tags": [[0, 1]] * ROWS,
    }
    made = pa.table(rows)
    if not names:
        return made
    features = {
        "label": {"names": CLASSES, "_type": "ClassLabel"},
        "tags": {"feature": {"names": ["O", "B-x"], "_type": "ClassLabel"}, "_type": "Sequence"},
    }
    return made.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )


def write(made, path, kind):
    if kind == "parquet":
        pq.write_table(made, path, row_group_size=7)
        return
    new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, made.schema) as writer:
        writer.write_table(made, max_chunksize=9)


def opened(path, **changes):
    options = dict(dir=None, inputs="text", label="label", max_rejected=0) | changes
    return open_source(str(path), "train", **options)


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_rows_are_those_of_the_same_table_as_json(kind, tmp_path):
    path = tmp_path / f"t.{'parquet' if kind == 'parquet' else 'arrow'}"
    write(table(), path, kind)
    lines = [json.dumps(record) for record in table().to_pylist()]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    ours, theirs = opened(path), opened(tmp_path / "t.jsonl")
    assert ours.inputs == theirs.inputs
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert ours.fingerprint == theirs.fingerprint


def test_classes_that_datasets_named_have_their_names(tmp_path):
    write(table(names=True), tmp_path / "t.parquet", "parquet")
    assert opened(tmp_path / "t.parquet").class_names == ("no", "yes")
    tags = opened(tmp_path / "t.parquet", inputs="words", label="tags", task=make_task("tagging"))
    assert tags.class_names == ("B-x", "O")
    assert tags.labels[0].tolist() == [1, 0]


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_a_damaged_file_is_refused_by_name(name, tmp_path):
    (tmp_path / name).write_bytes(b"PAR1 no file of this kind PAR1")
    with pytest.raises(ValueError, match=f"{name}' can't be read as"):
        opened(tmp_path / name)


def test_a_missing_column_is_told_with_those_there_are(tmp_path):
    write(table(), tmp_path / "t.parquet", "parquet")
    with pytest.raises(ValueError, match="no column 'score'; it has label, tags, text, words"):
        opened(tmp_path / "t.parquet", label="score")


def test_a_file_without_a_header_gets_its_columns_by_name(tmp_path):
    (tmp_path / "t.tsv").write_text('one\t0\nan "open quote\t1,0\nthree\t\n')
    task = make_task({"name": "multilabel", "separator": ","})
    found = opened(
        tmp_path / "t.tsv",
        header=("text", "label"),
        class_names=("joy", "fear"),
        task=task,
        max_rejected=1,
    )
    assert sorted(found.inputs) == ['an "open quote', "one"]
    assert found.class_names == ("joy", "fear")
    assert found.labels[found.inputs.index("one")].tolist() == [1, 0]
    assert found.labels[found.inputs.index('an "open quote')].tolist() == [1, 1]
