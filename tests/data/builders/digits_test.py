import numpy as np
import pytest
from sklearn.datasets import load_digits

from kd_jax.data.builders import digits
from kd_jax.data.open import open_source

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("tfds"))
    options = {"dir": root, "inputs": "image", "label": "label", "max_rejected": 0}
    return {split: open_source("digits", split, **options) for split in ("train", "test")}


def as_pairs(images, labels):
    return sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


def test_holds_scikit_learns_images_once_each(sources):
    found = np.concatenate([source.inputs for source in sources.values()])
    labels = np.concatenate([source.labels for source in sources.values()])
    assert found.shape == (1797, 8, 8, 1)
    want = load_digits()
    scaled = np.round(want.images * 255 / 16).astype(np.uint8)
    assert as_pairs(found, labels) == as_pairs(scaled, want.target)


def test_splits_are_stratified(sources):
    counts = {split: np.bincount(source.labels) for split, source in sources.items()}
    np.testing.assert_allclose(counts["test"] / (counts["test"] + counts["train"]), 0.2, atol=0.005)


def test_picks_an_even_share_of_each_class():
    picked = digits.split_by_class(np.array([0, 1] * 10), 0.2)
    np.testing.assert_array_equal(np.bincount(np.array([0, 1] * 10)[picked]), [2, 2])


def test_carries_its_provenance(sources):
    assert "scikit-learn" in sources["train"].provenance["packages"]
    assert sources["train"].class_names == tuple("0123456789")
