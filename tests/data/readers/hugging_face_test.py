"""A folder as the Hugging Face hub has them; the hub itself is asked in the same way."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd_jax.data.open import open_source
from kd_jax.data.readers import hugging_face

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def made(folder):
    """Two shards of a training split and a validation split, with named classes."""
    (folder / "data").mkdir(parents=True)
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    for name, rows in {
        "train-00000-of-00002": [("a", 0), ("b", 1)],
        "train-00001-of-00002": [("c", 1)],
        "validation-00000-of-00001": [("d", 0)],
    }.items():
        rows = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        datasets.Dataset.from_dict(rows, features).to_parquet(folder / "data" / f"{name}.parquet")
    return folder


def read(name, split, **options):
    options = dict(dir=None, inputs="text", label="label", max_rejected=0) | options
    return open_source(name, split, **options)


def pairs(source):
    names = [source.class_names[label] for label in source.labels]
    return {*zip(source.inputs, names, strict=True)}


def test_shards_are_one_split_and_classes_have_their_names(tmp_path):
    name = f"hf:{made(tmp_path / 'reviews')}"
    train = read(name, "train")
    assert pairs(train) == {("a", "bad"), ("b", "good"), ("c", "good")}
    assert pairs(read(name, "validation", class_names=train.class_names)) == {("d", "bad")}
    assert len(train.provenance["revision"]) == 64
    with pytest.raises(ValueError, match="has no split 'test'"):
        read(name, "test")


def test_what_was_made_once_is_found_again_until_it_changes(tmp_path, monkeypatch):
    folder = made(tmp_path / "reviews")
    first, facts = hugging_face.fetch(f"hf:{folder}")
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "load_dataset", None)
        assert hugging_face.fetch(f"hf:{folder}") == (first, facts)
    table = pa.table({"text": ["e"], "label": [1]})
    pq.write_table(table, folder / "data" / "test-00000-of-00001.parquet")
    assert hugging_face.fetch(f"hf:{folder}")[0] != first


def test_code_of_a_dataset_is_not_run(tmp_path):
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "reviews.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    with pytest.raises(ValueError, match="can't be read: "):
        hugging_face.fetch(f"hf:{folder}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["hf:reviews", "hf:a/b/c", "hf:./none", "hf:"])
def test_a_malformed_name_is_refused_with_what_it_may_be(name):
    with pytest.raises(ValueError, match="must be hf:OWNER/NAME, hf:OWNER/NAME:CONFIGURATION"):
        hugging_face.fetch(name)


def test_without_a_network_the_dataset_is_named(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise OSError("the network can't be reached")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", offline)
    with pytest.raises(ValueError, match="'hf:owner/name' can't be read: the network can't"):
        hugging_face.fetch("hf:owner/name")


def test_a_dataset_of_the_hub_is_pinned_to_its_commit(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def info(_, name, revision):
        asked.append((name, revision))
        return huggingface_hub.DatasetInfo(id=name, sha="abc", private=False, tags=[], downloads=0)

    def load(name, configuration, revision):
        asked.append((name, configuration, revision))
        return {"train": datasets.Dataset.from_dict({"text": ["x"], "label": ["y"]})}

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(datasets, "load_dataset", load)
    folder, facts = hugging_face.fetch("hf:owner/name:plain@main")
    assert asked == [("owner/name", "main"), ("owner/name", "plain", "abc")]
    assert facts == {"dataset": "owner/name:plain", "revision": "abc"}
    assert [path.name for path in folder.glob("*.parquet")] == ["train.parquet"]
