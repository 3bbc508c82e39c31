"""Inputs without labels: in order, one at a time, what can't be read in its place with the
reason."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

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
        ({"row": 1}, "a fine film", None),
        ({"row": 2}, None, "empty text"),
        ({"row": 3}, None, "empty text"),
        ({"row": 4}, None, "not valid UTF-8"),
        ({"row": 5}, "Überaus fade", None),
    ]


def test_bad_rows_of_a_table_stand_in_their_place(tmp_path):
    path = tmp_path / "films.csv"
    path.write_bytes(b'id,text\n1,"a, b"\n2,c,d\n3,\n4,"stray\n5,fine\n6,\xff\n7,"two\nlines"\n')
    rows = read(path)
    assert [row[0]["row"] for row in rows] == [2, 3, 4, 5, 6, 7, 8]
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
        ({"row": 2}, ('said "so"', "b"), None)
    ]


def test_a_table_is_read_as_a_stream(tmp_path, monkeypatch):
    """An endless file gives its first rows."""

    class Endless(io.RawIOBase):
        def __iter__(self):
            yield b"text\n"
            yield from itertools.repeat(b"fine\n")

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
            r"the model reads text, from \.txt, \.csv, \.tsv, \.jsonl files; '.*a\.pdf' is none",
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
