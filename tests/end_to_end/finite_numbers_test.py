"""Numbers that aren't finite: the model at fault is named, and nothing of them is kept as good."""

import json

import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy
from starting import smoke

import kd_jax as kd
from kd_jax.core.pytree import fingerprint
from kd_jax.export import export
from kd_jax.training import trained_model
from kd_jax.training.interruption import Diverged

pytestmark = pytest.mark.slow


def test_a_learning_rate_beyond_reason_keeps_no_checkpoint_as_good(tmp_path):
    found = smoke("digits.py", **{"training.optimizer.learning_rate": 1e18})
    with pytest.raises(Diverged, match=r"^\w+: .* at step \d+; .* last good checkpoint: none yet"):
        kd.run(found, tmp_path)
    assert not list(tmp_path.glob("*/checkpoints/[0-9]*"))
    assert not list(tmp_path.glob("*/finished.json"))


def test_a_restored_teacher_with_nan_is_named_before_anything_is_trained(tmp_path):
    found = smoke("digits.py")
    kd.run(found, tmp_path / "first")
    stored = trained_model.load(tmp_path / "first" / "teacher")
    leaves, structure = jax.tree.flatten(stored.variables)
    leaves[0] = np.full_like(leaves[0], np.nan)
    variables = jax.tree.unflatten(structure, leaves)
    description = stored.description | {"fingerprint": fingerprint(variables)}
    trained_model.save(tmp_path / "bad", trained_model.Contents(variables, description, {}))
    found["models"]["teacher"]["restore"] = str(tmp_path / "bad")
    with pytest.raises(ValueError, match=r"^models.teacher: the weights in .*/bad hold numbers"):
        kd.run(found, tmp_path / "second")
    assert not (tmp_path / "second" / "student").exists()


def test_a_published_teacher_with_nan_is_named_before_anything_is_trained(tmp_path):
    found = smoke("digits.py")
    kd.run(found, tmp_path / "first")
    folder = export(tmp_path / "first", "teacher", formats=["kd_jax"])
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors = {name: tensor.copy() for name, tensor in tensors.items()}
    first = sorted(tensors)[0]
    tensors[first].flat[0] = np.inf
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    description = json.loads((folder / "architecture.json").read_text())
    del description["seal"]
    description["fingerprint"] = fingerprint(flax.traverse_util.unflatten_dict(tensors, sep="/"))
    (folder / "architecture.json").write_text(json.dumps(description))
    found["models"]["teacher"]["model"] = {"pretrained": str(folder)}
    with pytest.raises(ValueError, match=r"models.teacher: the weights that it starts from hold"):
        kd.run(found, tmp_path / "second")
