import os
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT

from kd_jax.data.open import open_source
from kd_jax.data.readers import tfds_folders

SHARED = Path(os.environ.get("KD_JAX_TFDS_DATA", ROOT / ".." / "shared" / "tfds_data"))


def read(name, split, inputs, label="label", dir=SHARED, **options):
    if dir is SHARED and not SHARED.is_dir():
        pytest.skip(f"the prepared datasets are not at {SHARED}; set KD_JAX_TFDS_DATA")
    return open_source(
        name, split, dir=str(dir), inputs=inputs, label=label, max_rejected=0, **options
    )


def test_reads_text():
    train, held_out = (
        read("glue/sst2", split, "sentence") for split in ("train[:95%]", "train[95%:]")
    )
    assert len(train) + len(held_out) == 67_349
    assert len(train) == 63_982
    assert train.class_names == ("negative", "positive")
    assert train.inputs[0] == "for the uninitiated plays better on video with the sound "
    assert set(train.labels.tolist()) == {0, 1}
    assert train.name == "glue/sst2 train[:95%]"


def test_unlabelled_stays_unlabelled():
    assert (read("glue/sst2", "test", "sentence").labels == -1).all()


def test_reads_pairs():
    source = read("glue/mrpc:2.0.0", "validation", ("sentence1", "sentence2"))
    assert len(source) == 408
    assert all(isinstance(text, str) for pair in source.inputs for text in pair)
    assert len(source.inputs[0]) == 2


def test_reads_images_in_the_prepared_order():
    source = read("mnist", "test[100:1100]", "image")
    assert source.inputs.shape == (1000, 28, 28, 1)
    again = read("mnist", "test[1000:1100]", "image")
    np.testing.assert_array_equal(source.inputs[900:], again.inputs)
    np.testing.assert_array_equal(source.labels[900:], again.labels)
    assert source.modality == "image"


def test_other_class_names_are_matched_by_name():
    plain = read("glue/sst2", "validation", "sentence")
    turned = read("glue/sst2", "validation", "sentence", class_names=("positive", "negative"))
    np.testing.assert_array_equal(turned.labels, 1 - plain.labels)
    with pytest.raises(ValueError, match="is not among the classes a, b"):
        read("glue/sst2", "validation", "sentence", class_names=("a", "b"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("glue/sst2", "train", "text"), "no feature 'text'; it has idx, label, sentence"),
        (
            ("glue/sst2", "train", "sentence", "idx"),
            "feature 'idx' of 'glue/sst2' is no class label",
        ),
        (("glue/sst2", "dev", "sentence"), "no split 'dev'; it has test, train, validation"),
        (("glue/sst2", "train[:0%]", "sentence"), "is empty"),
        (("glue/sst2", "train[:1%]", "idx"), "neither text nor an image"),
    ],
)
def test_what_is_wrong_with_a_dataset_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        read(*arguments)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "no file, folder or TFDS dataset 'mnits'; did you mean mnist"),
        ("docstring", "did you mean docstrings"),
        ("glue/sst3", "TFDS dataset 'glue' has no config 'sst3'; it has sst2"),
    ],
)
def test_unknown_names_get_the_nearest(tmp_path, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(name, "train", "x", dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_dataset_that_cannot_be_prepared_says_how_it_can(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ImportError("No module named 'tensorflow'\nand more")

    monkeypatch.setattr("tensorflow_datasets.builder", fail)
    with pytest.raises(
        ValueError,
        match=r"not prepared in .*No module named 'tensorflow'.*uv run --with tensorflow",
    ) as caught:
        read("mnist", "train", "image", dir=tmp_path)
    assert "\n" not in str(caught.value)
    assert f"tfds.builder('mnist', data_dir='{tmp_path}', file_format='array_record')" in str(
        caught.value
    )


def test_the_data_directory_is_argument_then_environment_then_default(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/from/environment")
    assert tfds_folders.find_root("/given") == Path("/given")
    assert tfds_folders.find_root(None) == Path("/from/environment")
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert tfds_folders.find_root(None) == Path.home() / "tensorflow_datasets"


def test_the_highest_prepared_version_is_read(tmp_path):
    for version in ("2.0.0", "10.0.0", "9.1.0"):
        (tmp_path / "name" / version).mkdir(parents=True)
        (tmp_path / "name" / version / "dataset_info.json").touch()
    (tmp_path / "name" / "11.0.0").mkdir()
    assert tfds_folders.find_folder(tmp_path, "name") == tmp_path / "name" / "10.0.0"
    assert tfds_folders.find_folder(tmp_path, "name:9.1.0") == tmp_path / "name" / "9.1.0"
    assert tfds_folders.find_folder(tmp_path, "name:1.0.0") is None
