"""Starts whole runs for tests: in this process, or by launch.py in one of its own."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from paths import ROOT

from kd_jax.config.load import load_config, plain


def smoke(name, **overrides):
    file, _, variant = name.partition(":")
    config = load_config(f"{ROOT / 'configs' / file}:{variant and variant + ','}smoke")
    config.update_from_flattened_dict({"parallel.data": 1} | overrides)
    return plain(config)


def fingerprints(results):
    return {name: model["fingerprint"] for name, model in results["models"].items()}


def scores_with_teacher(results):
    return {name: model.get("with_teacher") for name, model in results["models"].items()}


def launch(*arguments, environment=None, after="true"):
    """Starts launch.py in a process of its own, after a shell command."""
    cache = f"--compilation_cache={Path(tempfile.gettempdir()) / 'kd_jax-tests-compiled'}"
    command = [
        "bash",
        "-c",
        f'{after}; exec "$@"',
        "_",
        sys.executable,
        str(ROOT / "launch.py"),
        cache,
        *arguments,
    ]
    variables = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"} | (
        environment or {}
    )
    return subprocess.Popen(
        command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def launched(*arguments):
    """The results of a run that nobody disturbs, started like those that are: the launcher chooses
    XLA's libraries."""
    process = launch(*arguments, environment={"JAX_NUM_CPU_DEVICES": "8"})
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    workdir = next(
        argument for argument in arguments if argument.startswith("--workdir=")
    ).partition("=")[2]
    return json.loads((Path(workdir) / "results.json").read_text())


def make_pictures(folder):
    """Dark and bright pictures of 12 x 10, in train/ and test/."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 10)):
        for shade, label in ((40, "dark"), (200, "bright")):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(rng.normal(shade, 20, size=(12, 10, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{number}.png")
