"""Inputs without labels: in order, one at a time, what can't be read in its place with the
reason."""

import io
import itertools
import json
import os

import numpy as np
import pytest
from PIL import Image

from kd_jax.core import limits
from kd_jax.data.readers import unlabelled


def read(path, modality="text", columns=("text",), channels=None):
    return [
        (row.place, row.value, row.error)
        for row in unlabelled.read(path, modality, columns, channels)
    ]


def test_a_text_file_is_one_text_a_line(tmp_path):
    path = tmp_path / "films.txt"
    path.write_bytes(
        "\ufeffa fine film\r\n\n  \nbad \xff bytes\nÜberaus fade".encode(
            "latin-1", "ignore"
        ).replace(b"\xdcberaus", "Überaus".encode())
    )
    assert read(path) == [
        ({"row": 1, "record": 1}, "a fine film", None),
        ({"row": 2, "record": 2}, None, "empty text"),
        ({"row": 3, "record": 3}, None, "empty text"),
        ({"row": 4, "record": 4}, None, "not valid UTF-8"),
        ({"row": 5, "record": 5}, "Überaus fade", None),
    ]


def test_bad_rows_of_a_table_stand_in_their_place(tmp_path):
    path = tmp_path / "films.csv"
    path.write_bytes(b'id,text\n1,"a, b"\n2,c,d\n3,\n4,"stray\n5,fine\n6,\xff\n7,"two\nlines"\n')
    rows = read(path)
    assert [row[0]["row"] for row in rows] == [2, 3, 4, 5, 6, 7, 8]
    assert [row[0]["record"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row[1] for row in rows] == ["a, b", None, None, None, "fine", None, "two\nlines"]
    reasons = [row[2] for row in rows]
    assert reasons[1] == "3 columns instead of 2"
    assert reasons[2] == "empty text in column 'text'"
    assert reasons[3].startswith("broken row")
    assert reasons[5] == "column 'text' is not valid UTF-8"


def test_json_lines_and_tsv_are_read_alike(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\nnonsense\n{"text": 3}\n{"other": "x"}\n')
    assert [(value, error) for _, value, error in read(tmp_path / "a.jsonl")] == [
        ("fine", None),
        (None, "broken JSON: Expecting value: line 1 column 1 (char 0)"),
        (None, "column 'text' is no text"),
        (None, "empty text in column 'text'"),
    ]
    (tmp_path / "a.tsv").write_text('text\tother\nsaid "so"\tb\n')
    assert read(tmp_path / "a.tsv", columns=("text", "other")) == [
        ({"row": 2, "record": 1}, ('said "so"', "b"), None)
    ]


def kept(path, keep):
    rows = unlabelled.read(path, "text", ("text",), None, keep)
    return [(row.place["record"], row.kept, row.error is None) for row in rows]


def test_columns_are_kept_beside_good_and_bad_rows(tmp_path):
    path = tmp_path / "films.csv"
    path.write_bytes(b'id,text\n7,fine\n8,\n9,"two\nlines"\n10,a,b\n\xff,dull\n')
    assert kept(path, {"id": "id", "review": "text"}) == [
        (1, {"id": "7", "review": "fine"}, True),
        (2, {"id": "8", "review": ""}, False),
        (3, {"id": "9", "review": "two\nlines"}, True),
        (4, {"id": None, "review": None}, False),
        (5, {"id": "\\udcff", "review": "dull"}, True),
    ]
    deep = '{"a":' * 500 + "1" + "}" * 500
    (tmp_path / "a.jsonl").write_text(
        '{"text": "fine", "id": 7}\n{"text": "dull", "id": {"a": [NaN, "\\udcff"]}}\n'
        '{"text": "one"}\n{"text": "x", "id": ' + deep + "}\n"
    )
    rows = kept(tmp_path / "a.jsonl", {"id": "id"})
    assert rows[:3] == [
        (1, {"id": 7}, True),
        (2, {"id": {"a": [None, "\\udcff"]}}, True),
        (3, {"id": None}, True),
    ]
    for _, value, _ in rows:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def test_a_column_of_a_table_without_rows_is_there(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n1,a,b\n")
    assert kept(tmp_path / "a.csv", {"id": "id"}) == [(1, {"id": None}, False)]
    (tmp_path / "a.csv").write_text("id,text\n")
    assert kept(tmp_path / "a.csv", {"id": "id"}) == []


def test_a_column_to_keep_must_be_there(tmp_path):
    for name, content in {
        "a.csv": "text\nfine\n",
        "a.jsonl": '{"text": "fine"}\n',
        "a.txt": "fine\n",
    }.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=r"no.* column.* 'id'|columns to keep \(id\)"):
            kept(tmp_path / name, {"id": "id"})


def test_a_table_is_read_as_a_stream(tmp_path, monkeypatch):
    """An endless file gives its first rows."""

    class Endless(io.RawIOBase):
        lines = itertools.chain([b"text\n"], itertools.repeat(b"fine\n"))

        def readline(self, size=-1):
            return next(self.lines)

    (tmp_path / "big.csv").write_text("text\n")
    monkeypatch.setattr("pathlib.Path.open", lambda *_args, **_kwargs: Endless())
    rows = unlabelled.read(tmp_path / "big.csv", "text", ("text",), None)
    assert [row.place["row"] for row in itertools.islice(rows, 3)] == [2, 3, 4]


def test_images_are_found_in_folders_in_folders(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    Image.fromarray(grey).save(tmp_path / "in" / "deep" / "b.png")
    Image.fromarray(grey).save(tmp_path / "in" / "c.PNG")
    (tmp_path / "in" / "a.jpg").write_bytes(b"no picture")
    (tmp_path / "in" / "notes.txt").write_text("")
    rows = read(tmp_path / "in", "image", channels=3)
    assert [row[0]["file"] for row in rows] == ["a.jpg", "c.PNG", "deep/b.png"]
    assert rows[0][2].startswith("unreadable image: cannot identify image file")
    np.testing.assert_array_equal(rows[2][1], np.repeat(grey[..., None], 3, axis=-1))
    ((place, image, _),) = read(tmp_path / "in" / "deep" / "b.png", "image", channels=1)
    assert (place, image.shape) == ({"file": "b.png"}, (8, 8, 1))


@pytest.mark.parametrize(
    ("name", "modality", "columns", "message"),
    [
        (
            "nowhere.csv",
            "text",
            ("text",),
            r"there is no file or folder '.*nowhere\.csv' to predict",
        ),
        ("a.csv", "text", ("txt",), r"a\.csv' has no column 'txt'; it has text"),
        (
            "a.txt",
            "text",
            ("a", "b"),
            "the model reads pairs of texts; give a table with the columns a and b",
        ),
        (
            "a.pdf",
            "text",
            ("text",),
            r"the model reads text, from \.txt, \.csv, .* files; '.*a\.pdf' is none",
        ),
        ("empty", "image", (), r"empty' holds no \.png, .* images"),
        ("empty", "text", ("text",), r"empty' is none"),
    ],
)
def test_what_can_not_be_read_at_all_is_said(name, modality, columns, message, tmp_path):
    for file in ("a.csv", "a.txt", "a.pdf"):
        (tmp_path / file).write_text("text\nfine\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name, modality, columns)


# Hostile input


def test_a_line_beyond_the_limit_keeps_its_place_and_is_never_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "ROW", 100)
    long, good = b"x" * 1000, b"fine"
    (tmp_path / "a.txt").write_bytes(b"\n".join([good, long, good, long]))
    rows = read(tmp_path / "a.txt", "text")
    assert [row[0]["row"] for row in rows] == [1, 2, 3, 4]
    assert [row[1] for row in rows] == ["fine", None, "fine", None]
    assert rows[1][2].startswith("longer than ")
    (tmp_path / "a.csv").write_bytes(b"text\n" + b"\n".join([good, long, b'"' + long, good]))
    rows = read(tmp_path / "a.csv", "text")
    assert [(row[0]["row"], row[1]) for row in rows] == [
        (2, "fine"),
        (3, None),
        (4, None),
        (5, "fine"),
    ]
    lines = [b'{"text": "fine"}', b'{"text": "' + long + b'"}', b'{"text": "fine"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    rows = read(tmp_path / "a.jsonl", "text")
    assert [(row[0]["row"], row[1]) for row in rows] == [(1, "fine"), (2, None), (3, "fine")]


def test_only_regular_files_within_the_folder_are_opened(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    grey = Image.fromarray(np.zeros((8, 8), np.uint8))
    grey.save(folder / "good.png")
    grey.save(tmp_path / "outside.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "out.png").symlink_to(tmp_path / "outside.png")
    (folder / "in.png").symlink_to(folder / "good.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "again").symlink_to(folder)
    rows = {place["file"]: error for place, _, error in read(folder, "image", channels=1)}
    assert rows == {
        "good.png": None,
        "in.png": None,
        "out.png": "a link that leads out of the folder",
        **dict.fromkeys(("gone.png", "loop.png", "pipe.png", "zero.png"), "not a regular file"),
    }


def test_a_name_that_is_not_utf_8_is_spelled_out(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    ((place, _, error),) = read(tmp_path, "image", channels=1)
    assert (place, error) == ({"file": "\\xff.png"}, None)
    json.dumps(place, ensure_ascii=False).encode()


def test_a_stray_quote_costs_its_own_line_also_where_the_next_row_closes_it(tmp_path):
    (tmp_path / "a.csv").write_text('id,text\n1,"stray\n2,", and so on"\n3,",",\n4,"fine, too"\n')
    rows = read(tmp_path / "a.csv")
    assert [(place["row"], value) for place, value, _ in rows] == [
        (2, None),
        (3, ", and so on"),
        (4, None),
        (5, "fine, too"),
    ]
