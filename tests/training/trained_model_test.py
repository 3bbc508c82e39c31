import json
import logging

import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.core import seal
from kd_jax.core.pytree import fingerprint
from kd_jax.training import trained_model
from kd_jax.training.trained_model import Contents


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    variables = {
        "params": {
            "conv": {"kernel": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)},
            "scale": jnp.ones(2),
        },
        "batch_stats": {"norm": {"mean": jnp.zeros(2), "var": jnp.ones(2, jnp.bfloat16)}},
    }
    return Contents(
        variables, {"spec": {"name": "cnn"}, "fingerprint": fingerprint(variables), "step": 7}, {}
    )


def test_a_model_comes_back_bit_for_bit(model, tmp_path):
    trained_model.save(tmp_path / "student", model)
    found = trained_model.load(tmp_path / "student")
    assert found.description == seal.seal(model.description, None)
    assert fingerprint(found.variables) == fingerprint(model.variables)
    assert found.variables["batch_stats"]["norm"]["var"].dtype == jnp.bfloat16


def test_there_is_none_in_an_empty_folder(tmp_path):
    assert trained_model.load(tmp_path) is None


def test_tensors_without_their_description_are_not_finished(model, tmp_path):
    """A kill between the two files leaves this."""
    trained_model.save(tmp_path, model)
    (tmp_path / "finished.json").unlink()
    assert trained_model.load(tmp_path) is None


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "flipped": _flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_announced_and_counts_as_not_finished(model, tmp_path, damage, caplog):
    trained_model.save(tmp_path, model)
    DAMAGES[damage](tmp_path / "model.safetensors")
    with caplog.at_level(logging.WARNING, "kd_jax"):
        assert trained_model.load(tmp_path) is None
    assert "it is made again" in caplog.text


@pytest.mark.parametrize("content", [b"", b'{"spec": {"na', b"\x00\xff", b"[]", b"{}"])
def test_a_damaged_description_is_announced_and_counts_as_not_finished(
    model, tmp_path, content, caplog
):
    trained_model.save(tmp_path, model)
    (tmp_path / "finished.json").write_bytes(content)
    with caplog.at_level(logging.WARNING, "kd_jax"):
        assert trained_model.load(tmp_path) is None
    assert "it is made again" in caplog.text


def _rename_classes(folder):
    path = folder / "finished.json"
    description = json.loads(path.read_text())
    description["class_names"].reverse()
    path.write_text(json.dumps(description))


CHANGES = {
    "class names": _rename_classes,
    "tokenizer": lambda folder: (folder / "tokenizer.json").write_text('{"b": 1, "a": 0}'),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whole_files_that_say_something_else_count_as_not_finished(model, tmp_path, change, caplog):
    model.description["class_names"] = ["bad", "good"]
    trained_model.save(tmp_path, model, '{"a": 0, "b": 1}')
    assert trained_model.load(tmp_path) is not None
    CHANGES[change](tmp_path)
    with caplog.at_level(logging.WARNING, "kd_jax"):
        assert trained_model.load(tmp_path) is None
    assert "was changed after it was written" in caplog.text


def test_a_model_of_a_version_without_seals_is_read(model, tmp_path):
    trained_model.save(tmp_path, model)
    path = tmp_path / "finished.json"
    path.write_text(json.dumps(model.description))
    assert trained_model.load(tmp_path).description == model.description


def test_a_model_of_another_run_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"restore: .*/nowhere holds no finished model"):
        trained_model.load_required(tmp_path / "nowhere")


def test_the_description_is_readable_by_people(model, tmp_path):
    trained_model.save(tmp_path, model)
    assert json.loads((tmp_path / "finished.json").read_text())["spec"] == {"name": "cnn"}
