import json

import pytest

from kd_jax.core import seal

DESCRIPTION = {"class_names": ["bad", "good"], "mean": 0.1 + 0.2, "fingerprint": "sha256:0"}


@pytest.fixture
def written(tmp_path):
    """Writes a description and a tokenizer, and returns the folder."""
    (tmp_path / "tokenizer.json").write_text('{"a": 0}', encoding="utf-8")
    sealed = seal.seal(DESCRIPTION, '{"a": 0}')
    (tmp_path / "finished.json").write_text(json.dumps(sealed))
    return tmp_path


def problem(folder):
    found = json.loads((folder / "finished.json").read_text())
    return seal.problem(folder, "finished.json", found)


def test_nothing_is_wrong_with_what_comes_back_from_json(written):
    assert problem(written) is None


@pytest.mark.parametrize(
    ("key", "value"), [("class_names", ["good", "bad"]), ("mean", 0.3), ("seal", "sha256:1")]
)
def test_a_changed_value_is_noticed(written, key, value):
    found = json.loads((written / "finished.json").read_text()) | {key: value}
    (written / "finished.json").write_text(json.dumps(found))
    assert problem(written) == (
        "finished.json or tokenizer.json was changed after it was written: it differs from its"
        " checksum"
    )


def test_a_changed_or_missing_tokenizer_is_noticed(written):
    (written / "tokenizer.json").write_text('{"a": 1}')
    assert "was changed" in problem(written)
    (written / "tokenizer.json").unlink()
    assert "was changed" in problem(written)


def test_the_order_of_keys_says_nothing(written):
    found = json.loads((written / "finished.json").read_text())
    (written / "finished.json").write_text(json.dumps(dict(reversed(found.items()))))
    assert problem(written) is None


def test_a_description_without_a_seal_is_of_an_older_version(written):
    (written / "finished.json").write_text(json.dumps(DESCRIPTION | {"class_names": []}))
    assert problem(written) is None
