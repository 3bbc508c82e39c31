import os
import warnings

import numpy as np
import pytest
from PIL import Image

from kd_jax.data.open import open_source
from kd_jax.data.readers import image_decoding


def read(path, split="train", max_rejected=0, **options):
    return open_source(
        str(path), split, dir=None, inputs="-", label="-", max_rejected=max_rejected, **options
    )


def save(path, value, mode="L", size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def test_class_folders_are_train(tmp_path):
    for number in range(6):
        save(tmp_path / f"c{number % 2}" / f"{number}.png", number * 10)
    (tmp_path / "c0" / "notes.txt").write_text("no image")
    source = read(tmp_path)
    assert source.inputs.shape == (6, 3, 4, 1)
    assert source.inputs.dtype == np.uint8
    assert source.class_names == ("c0", "c1")
    np.testing.assert_array_equal(source.inputs[:, 0, 0, 0] // 10 % 2, source.labels)
    first, rest = read(tmp_path, "train[:50%]"), read(tmp_path, "train[50%:]")
    assert sorted([*first.inputs[:, 0, 0, 0], *rest.inputs[:, 0, 0, 0]]) == [0, 10, 20, 30, 40, 50]


def test_split_folders_share_their_classes(tmp_path):
    save(tmp_path / "train" / "a" / "1.png", 1)
    save(tmp_path / "train" / "b" / "1.png", 2)
    save(tmp_path / "test" / "b" / "1.png", 3)
    test = read(tmp_path, "test")
    assert test.class_names == ("a", "b")
    np.testing.assert_array_equal(test.labels, [1])
    with pytest.raises(ValueError, match="no split 'dev'; it has test, train"):
        read(tmp_path, "dev")
    with pytest.raises(ValueError, match=r"label 'b' \(row 1\) is not among the classes x, y"):
        read(tmp_path, "test", class_names=("x", "y"))


def test_modes_and_sizes_mix(tmp_path):
    save(tmp_path / "a" / "grey.png", 100)
    save(tmp_path / "a" / "colour.jpg", (200, 0, 0), "RGB", (5, 5))
    save(tmp_path / "a" / "alpha.webp", (0, 200, 0, 9), "RGBA")
    save(tmp_path / "a" / "deep.png", 0x8001, "I;16")
    palette = Image.effect_noise((4, 3), 90).quantize(4)
    palette.save(tmp_path / "a" / "palette.png", transparency=b"\x00\x80")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = read(tmp_path)
    assert {image.shape for image in source.inputs} == {(3, 4, 3), (5, 5, 3)}
    assert {int(image[0, 0, 0]) for image in source.inputs} >= {100, 0x80}


def test_unreadable_images_are_set_aside(tmp_path):
    save(tmp_path / "a" / "good.png", 7, size=(64, 64))
    content = (tmp_path / "a" / "good.png").read_bytes()
    (tmp_path / "a" / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "a" / "text.jpg").write_text("no image")
    for number in range(4):
        save(tmp_path / "b" / f"{number}.png", 8, size=(64, 64))
    source = read(tmp_path, max_rejected=2)
    assert source.inputs.shape == (5, 64, 64, 1)
    np.testing.assert_array_equal(source.inputs[:, 0, 0, 0] - 7, source.labels)
    assert {(rejected.row, rejected.value) for rejected in source.rejected} == {
        (1, "a/cut.png"),
        (3, "a/text.jpg"),
    }
    assert all("unreadable image" in rejected.reason for rejected in source.rejected)
    with pytest.raises(
        ValueError, match=r"2 rows .* data.max_rejected=1; the first is row [13]: unreadable image"
    ):
        read(tmp_path, max_rejected=1)


def test_a_folder_without_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds neither"):
        read(tmp_path)


def test_what_does_not_fit_in_memory_is_decoded_on_access(tmp_path, monkeypatch):
    for number in range(5):
        save(tmp_path / "a" / f"{number}.png", number)
    (tmp_path / "a" / "bad.png").write_text("bad")
    eager = read(tmp_path, max_rejected=1)
    monkeypatch.setattr(image_decoding, "MEMORY", 30)
    lazy = read(tmp_path, max_rejected=1)
    assert isinstance(lazy.inputs, image_decoding.LazyImages)
    np.testing.assert_array_equal(np.stack(list(lazy.inputs)), eager.inputs)
    assert lazy.fingerprint == eager.fingerprint


def test_a_pipe_among_the_pictures_is_set_aside(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        save(tmp_path / label / "0.png", 7)
    os.mkfifo(tmp_path / "a" / "1.png")
    source = read(tmp_path, max_rejected=1)
    assert len(source) == 2
    assert [(each.reason, each.value) for each in source.rejected] == [
        ("not a regular file", "a/1.png")
    ]


def test_values_for_no_label_are_for_tables(tmp_path):
    (tmp_path / "a").mkdir()
    save(tmp_path / "a" / "0.png", 7)
    with pytest.raises(ValueError, match=r"data\.unlabelled says which labels of a table"):
        read(tmp_path, unlabelled=("none",))
