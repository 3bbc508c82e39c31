import importlib.metadata
import sys

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from kd_jax.data.builders import docstrings
from kd_jax.data.open import open_source

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    options = {
        "dir": str(tmp_path_factory.mktemp("tfds")),
        "inputs": "text",
        "label": "label",
        "max_rejected": 0,
    }
    before = set(sys.modules)
    found = {
        split: open_source("docstrings", split, **options)
        for split in ("train", "validation", "test")
    }
    assert not [name for name in set(sys.modules) - before if name.startswith("transformers")]
    return found


def test_has_about_27_thousand_texts_in_8_classes(sources):
    sizes = {split: len(source) for split, source in sources.items()}
    total = sum(sizes.values())
    assert 20_000 < total < 40_000
    assert abs(sizes["train"] / total - 0.8) < 0.01
    assert abs(sizes["test"] / total - 0.1) < 0.01
    counts = np.bincount(
        np.concatenate([source.labels for source in sources.values()]), minlength=8
    )
    assert (counts > 500).all()
    assert sources["train"].class_names == docstrings.PACKAGES


def test_no_text_stands_twice(sources):
    texts = [text for source in sources.values() for text in source.inputs]
    assert len(set(texts)) == len(texts)
    assert all(text == " ".join(text.split()) for text in texts)


def test_records_the_versions_it_was_made_from(sources):
    found = sources["train"].provenance["packages"]
    assert found == {
        package: importlib.metadata.version(package) for package in docstrings.PACKAGES
    }


def test_is_neither_trivial_nor_noise(sources):
    vectorizer = TfidfVectorizer(min_df=2)
    train, test = sources["train"], sources["test"]
    model = LogisticRegression(max_iter=300, tol=1e-3).fit(
        vectorizer.fit_transform(train.inputs), train.labels
    )
    assert 0.78 < model.score(vectorizer.transform(test.inputs), test.labels) < 0.84


def test_a_text_of_two_packages_belongs_to_none():
    found = docstrings.label_texts({"a": {"one", "both"}, "b": {"two", "both"}, "c": {"both"}})
    assert found == {"one": "a", "two": "b"}


def test_reads_first_paragraphs_wherever_they_stand(tmp_path):
    file = tmp_path / "code.py"
    file.write_text(
        '"""Of the   module,\ntwo lines.\n\nSecond paragraph."""\nx = "No docstring at all"\n'
        'class A:\n    """Of the class A."""\n    if x:\n        def f(self):\n            """Of'
        ' the method f."""\n'
        'try:\n    pass\nexcept E:\n    async def g():\n        """Of the function g."""\n'
        'def short():\n    """Short."""\n'
    )
    assert set(docstrings.read_file(file)) == {
        "Of the module, two lines.",
        "Of the class A.",
        "Of the method f.",
        "Of the function g.",
    }
    file.write_bytes(b"def broken(:\n\xff\x00")
    assert not list(docstrings.read_file(file))
