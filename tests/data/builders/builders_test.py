import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from kd_jax.data import builders
from kd_jax.data.open import open_source

pytestmark = pytest.mark.slow

# Dies at the n-th call of one of the functions that make files appear: in the middle of TFDS's
# writing, before and after its own rename, before and after ours.
KILLED = """
import os, signal, sys
from pathlib import Path
from kd_jax.data import builders
root, when = Path(sys.argv[1]), sys.argv[2]
def dying(function, before):
    def call(*args, **kwargs):
        result = None if before else function(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call
if when == "generating":
    from kd_jax.data.builders import digits
    digits._load = dying(digits._load, True)
elif when == "writing":
    from tensorflow_datasets.core import dataset_info
    dataset_info.DatasetInfo.write_to_directory = dying(dataset_info.DatasetInfo.write_to_directory, True)
else:
    rename, die = os.rename, dying(os.rename, when == "before")
    os.rename = lambda source, target: (rename if ".preparing-" in str(target) else die)(source, target)
builders.prepare("digits", root)
"""

PREPARE = """
import sys
from kd_jax.data.open import open_source
options = dict(dir=sys.argv[1], inputs="image", label="label", max_rejected=0)
print(open_source("digits", "test", **options).fingerprint)
"""


def read(root):
    return open_source(
        "digits", "test", dir=str(root), inputs="image", label="label", max_rejected=0
    )


@pytest.fixture(scope="module")
def want(tmp_path_factory):
    return read(tmp_path_factory.mktemp("whole")).fingerprint


@pytest.mark.parametrize("when", ["generating", "writing", "before", "after"])
def test_a_kill_leaves_nothing_half_prepared(tmp_path, want, when):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), when], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert bool(list(tmp_path.glob("digits/*/*"))) == (when == "after")
    assert read(tmp_path).fingerprint == want


def test_two_processes_prepare_at_once(tmp_path, want):
    command = [sys.executable, "-c", PREPARE, str(tmp_path)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in running:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert output == want + "\n", "something else was printed to stdout"
    assert not list(tmp_path.glob(".preparing-*"))


def test_the_loser_of_a_race_uses_the_winners(tmp_path, want, monkeypatch):
    rename = os.rename

    def lose(source, target):
        if ".preparing-" not in str(target):
            shutil.copytree(source, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", lose)
    assert read(tmp_path).fingerprint == want


def test_another_version_is_prepared_anew(tmp_path, monkeypatch):
    first, made_from = builders.prepare("digits", tmp_path)
    assert set(made_from["packages"]) == {"scikit-learn"}
    assert builders.prepare("digits", tmp_path)[0] == first
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.0.0")
    assert builders.prepare("digits", tmp_path)[0] != first


def test_abandoned_preparations_are_removed(tmp_path):
    old, new = tmp_path / ".preparing-old", tmp_path / ".preparing-new"
    old.mkdir()
    new.mkdir()
    os.utime(old, (0, time.time() - 2 * 24 * 3600))
    builders.prepare("digits", tmp_path)
    assert not old.exists()
    assert new.exists()
