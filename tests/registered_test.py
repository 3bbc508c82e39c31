"""A model and a term of one's own, registered in a config file: trained, exported, predicted with
and explained."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from paths import ROOT
from PIL import Image

pytestmark = pytest.mark.slow

CONFIG = '''
import flax.linen as nn
import jax.numpy as jnp
import kd_jax as kd


class Plain(nn.Module):
    """Knows nothing of kd_jax: images to logits."""

    num_classes: int
    hidden: int

    @nn.compact
    def __call__(self, images):
        x = images.reshape(images.shape[0], -1)
        return nn.Dense(self.num_classes)(nn.relu(nn.Dense(self.hidden)(x)))


def squared_logits(student_logits, teacher_logits, *, scale=1.0):
    return scale * jnp.mean((student_logits - teacher_logits) ** 2, axis=-1)


kd.register_model("plain", Plain)
kd.register_term("squared_logits", squared_logits)


def get_config():
    return kd.experiment(
        "own",
        data=dict(name="digits", train="train[:20%]", selection="train[80%:]"),
        training=dict(epochs=1.0, batch_size=32),
        teacher=dict(model=dict(name="plain", hidden=32)),
        student=dict(
            model=dict(name="plain", hidden=8),
            objective=dict(logits=dict(term="squared_logits", weight=1.0, scale=0.5)),
        ),
    )
'''


def launch(*arguments):
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_what_a_config_file_registers_is_known_to_every_stage(tmp_path):
    file, run = tmp_path / "own.py", tmp_path / "run"
    file.write_text(CONFIG)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(pictures / f"{i}.png")

    trained = launch(f"--config={file}", f"--workdir={run}")
    assert trained.returncode == 0, trained.stderr

    exported = launch("--stage=export", f"--workdir={run}", "--formats=kd_jax")
    assert exported.returncode == 0, exported.stderr
    predicted = launch("--stage=predict", f"--workdir={run}", f"--input={pictures}")
    assert predicted.returncode == 0, predicted.stderr
    rows = [json.loads(line) for line in predicted.stdout.splitlines()]
    assert len(rows) == 3
    for row in rows:
        np.testing.assert_allclose(sum(row["probabilities"].values()), 1, rtol=1e-4)
    explained = launch("--stage=explain", f"--workdir={run}", "--examples=2", "--permutations=4")
    assert explained.returncode == 0, explained.stderr

    file.unlink()
    gone = launch("--stage=predict", f"--workdir={run}", f"--input={pictures}")
    assert gone.returncode != 0
    assert "own.py is gone" in gone.stderr
    assert "plain" in gone.stderr
