import json

import numpy as np
import pytest

from kd_jax.data.open import open_source
from kd_jax.data.readers.tables import read_table


def read(path, split="train", inputs="text", label="label", max_rejected=0, **options):
    return open_source(
        str(path), split, dir=None, inputs=inputs, label=label, max_rejected=max_rejected, **options
    )


def pairs(source):
    return {
        (text, source.class_names[label])
        for text, label in zip(source.inputs, source.labels, strict=True)
    }


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


GOOD = {
    "a.csv": 'text,label\n"two\nlines, ""quoted""",pos\nplain é,neg\n',
    "a.tsv": 'label\ttext\npos\ta "quote\nneg\tplain\n',
    "a.jsonl": '{"text": "a\\nb", "label": "pos"}\n\n{"text": "plain", "label": "neg", "more": 1}\n',
}
WANT = {"a.csv": 'two\nlines, "quoted"', "a.tsv": 'a "quote', "a.jsonl": "a\nb"}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("prefix", ["", "\ufeff"])
def test_reads_each_kind(tmp_path, name, prefix):
    source = read(write(tmp_path, name, prefix + GOOD[name]))
    plain = "plain é" if name == "a.csv" else "plain"
    assert pairs(source) == {(WANT[name], "pos"), (plain, "neg")}
    assert (source.class_names, source.modality, len(source)) == (("neg", "pos"), "text", 2)


HOSTILE_CSV = (
    b"text,label\n"
    b"good one,pos\n"  # 2
    b"bad \xff bytes,pos\n"  # 3
    b"too,many,columns\n"  # 4
    b"few\n"  # 5
    b'"closed"too early,neg\n'  # 6
    b" ,neg\n"  # 7
    b"no label,\n"  # 8
    b'"multi\nline",neg\n'  # 9, 10
    b'"never closed,neg\n'  # 11
    b"good two,neg"  # 12
)


def test_csv_sets_hostile_rows_aside_and_keeps_the_rest(tmp_path):
    source = read(write(tmp_path, "h.csv", HOSTILE_CSV), max_rejected=7)
    assert pairs(source) == {("good one", "pos"), ("multi\nline", "neg"), ("good two", "neg")}
    assert [rejected.row for rejected in source.rejected] == [3, 4, 5, 6, 7, 8, 11]
    for rejected, reason in zip(
        source.rejected,
        (
            "UTF-8",
            "3 columns instead of 2",
            "1 columns",
            "broken row",
            "empty text",
            "missing label",
            "broken row",
        ),
        strict=True,
    ):
        assert reason in rejected.reason
        assert len(rejected.value) <= 60


def test_jsonl_sets_hostile_rows_aside(tmp_path):
    lines = [
        b'{"text": "fine", "label": 0}',
        b'{"text": "cut',
        b"[1, 2]",
        b'{"text": "\xff", "label": 1}',
        b'{"label": 1}',
        b'{"text": 3, "label": 1}',
        b'{"text": "float", "label": 0.5}',
        b'{"text": "\\ud800", "label": 1}',
        b"[" * 100_000,
        b'{"text": "other", "label": 1}',
    ]
    source = read(write(tmp_path, "h.jsonl", b"\n".join(lines)), max_rejected=8)
    assert pairs(source) == {("fine", "0"), ("other", "1")}
    assert [rejected.row for rejected in source.rejected] == list(range(2, 10))


def test_too_many_bad_rows_are_an_error_in_one_line(tmp_path):
    path = write(tmp_path, "h.csv", HOSTILE_CSV)
    with pytest.raises(
        ValueError, match=r"^7 rows of .* data.max_rejected=6; the first is row 3: .*UTF-8.*$"
    ):
        read(path, max_rejected=6)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("text,label\na,b\n", {"inputs": "txt"}, "no column 'txt'; it has label, text"),
        ("text,label\na,b\n", {"label": "class"}, "no column 'class'; it has label, text"),
        ("text,label\na,b\n", {"split": "test"}, "no split 'test'; it has train"),
        ("text,label\n", {}, "is empty"),
        ("", {}, "has no header"),
        ("text,text\na,b\n", {}, "names a column twice"),
        (
            "text,label\na,x\n",
            {"class_names": ("neg", "pos")},
            r"label 'x' \(row 2\) is not among the classes neg, pos",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, content, options, message):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, "t.csv", content), **options)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"not a table; its name must end in \.csv"):
        read(write(tmp_path, "t.txt", "x"))
    with pytest.raises(ValueError, match="there is no file or folder"):
        read(tmp_path / "missing.csv")


def test_a_file_sorted_by_class_slices_into_fair_parts(tmp_path):
    content = "text,label\n" + "".join(f"t{i},{'ab'[i >= 500]}\n" for i in range(1000))
    path = write(tmp_path, "sorted.csv", content)
    first, rest = read(path, "train[:90%]"), read(path, "train[90%:]")
    assert (len(first), len(rest)) == (900, 100)
    assert not set(first.inputs) & set(rest.inputs)
    assert 30 < rest.labels.sum() < 70
    assert first.fingerprint != rest.fingerprint
    assert first.fingerprint == read(path, "train[:90%]").fingerprint


def test_files_of_a_folder_are_splits_with_one_set_of_classes(tmp_path):
    write(tmp_path, "train.csv", "text,label\na,2\nb,10\n")
    write(
        tmp_path, "test.jsonl", "\n".join(json.dumps({"text": text, "label": 2}) for text in "cd")
    )
    test = read(tmp_path, "test")
    assert test.class_names == ("2", "10")
    np.testing.assert_array_equal(test.labels, [0, 0])
    with pytest.raises(ValueError, match="no split 'dev'; it has test, train"):
        read(tmp_path, "dev")
    write(tmp_path, "train.tsv", "text\tlabel\na\tb\n")
    with pytest.raises(ValueError, match="both name split 'train'"):
        read(tmp_path)


def test_pairs_are_tuples(tmp_path):
    path = write(tmp_path, "p.csv", "one,two,label\na,b,0\n,b,0\n")
    source = read(path, inputs=("one", "two"), max_rejected=1)
    assert source.inputs == [("a", "b")]
    assert source.rejected[0].reason == "empty text in column 'one'"


def test_labels_that_mean_none_leave_their_rows_unlabelled(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,-1\nb,0\nc,1\nd,?\n")
    source = open_source(
        str(tmp_path / "a.csv"),
        "train",
        dir=None,
        inputs="text",
        label="label",
        max_rejected=0,
        unlabelled=("-1", "?"),
    )
    assert source.class_names == ("0", "1")
    found = dict(zip(source.inputs, source.labels.tolist(), strict=True))
    assert found == {"a": -1, "b": 0, "c": 1, "d": -1}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_row_without_a_label_is_kept_where_that_is_asked_for_and_else_rejected(name, tmp_path):
    path = tmp_path / name
    content = {
        "a.csv": "text,label\na,\nb,no\nc,yes\nd, \n",
        "a.jsonl": '{"text": "a"}\n{"text": "b", "label": "no"}\n{"text": "c", "label": "yes"}\n'
        '{"text": "d", "label": null}\n',
    }
    path.write_text(content[name])
    kept = read(path, keep_blank=True)
    assert dict(zip(kept.inputs, kept.labels.tolist(), strict=True)) == dict(a=-1, b=0, c=1, d=-1)
    with pytest.raises(ValueError, match="missing label in column 'label'"):
        read(path)


def test_a_value_for_no_label_that_occurs_nowhere_is_said(tmp_path, caplog):
    path = write(tmp_path, "a.csv", "text,label\nx,good\ny,bad\n")
    read(path, unlabelled=("none", "bad"))
    assert [record.getMessage() for record in caplog.records] == [
        f"data.unlabelled: no row of {str(path)!r} has the label none"
    ]


def test_a_document_longer_than_pythons_own_limit_is_one_row(tmp_path):
    document = "word, " * 40_000
    path = write(tmp_path, "a.csv", f'text,label\n"{document}",good\ny,bad\n')
    assert {len(text) for text, _ in pairs(read(path))} == {len(document.strip()), 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": "txt"}, "no column 'txt'; it has label, text$"),
        ({"label": "class"}, "no column 'class'; it has label, text$"),
    ],
)
def test_columns_of_json_rows_are_all_that_some_row_has(tmp_path, options, message):
    """Told before the rows that lack the column, of which each would be a bad one."""
    content = '{"text": "a"}\n{"text": "b", "label": "x"}\n'
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, "t.jsonl", content), **({"max_rejected": 9} | options))


def test_equal_labels_are_in_memory_once(tmp_path):
    path = write(tmp_path, "t.csv", "text,label\na,longer\nb,other\nc,longer\n")
    table = read_table(path, ("text",), ("label",))
    assert table.labels == ["longer", "other", "longer"]
    assert table.labels[0] is table.labels[2]
