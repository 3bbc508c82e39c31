"""A copy of a run's folder elsewhere: what is sent, from what a folder is filled, and whose it is."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from safetensors.numpy import load_file

from kd_jax.experiments import mirror
from kd_jax.experiments.mirror import Mirror, mirrored

STORED = fsspec.filesystem("memory")
KIND = type(STORED)
PUT, GET, PIPE = KIND.put_file, KIND.get_file, KIND.pipe_file


@pytest.fixture
def address():
    STORED.store.clear()
    return "memory://bucket/run"


@pytest.fixture
def folder(tmp_path):
    """A run's folder, as it may be found at any time."""
    path = tmp_path / "here"
    write(path, "config.json", "{}")
    write(path, "student/model.safetensors", "weights")
    write(path, "student/checkpoints/5/default/array", "state")
    return path


def write(folder, name, text):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != mirror.OWN
    }


def copied():
    return {name.removeprefix("/bucket/run/") for name in STORED.store}


@pytest.fixture
def sent(monkeypatch):
    """The files that are sent, in order."""
    found: list[str] = []

    def counted(self, local, remote, *given, **options):
        found.append(remote.removeprefix("/bucket/run/"))
        return PUT(self, local, remote, *given, **options)

    monkeypatch.setattr(KIND, "put_file", counted)
    return found


def test_a_new_folder_is_filled_from_the_copy(folder, address, tmp_path, sent):
    Mirror(address, folder).begin()
    other = tmp_path / "there"
    sent.clear()
    Mirror(address, other).begin()
    assert content(other) == content(folder)
    # What was fetched is there already.
    assert sent == []


def test_only_what_changed_is_sent_and_what_went_goes(folder, address, sent):
    copy = Mirror(address, folder)
    copy.begin()
    sent.clear()
    copy.push()
    assert sent == []
    shutil.rmtree(folder / "student/checkpoints/5")
    write(folder, "student/checkpoints/9/default/array", "later")
    write(folder, "student/model.safetensors", "other weights")
    copy.push()
    assert sorted(sent) == ["student/checkpoints/9/default/array", "student/model.safetensors"]
    assert copied() == {*content(folder), "mirror.json"}
    # A later process of the same folder goes on.
    sent.clear()
    Mirror(address, folder).begin()
    assert sent == []


@pytest.mark.parametrize(
    "name", [".lock", "a/.probe-1", "x.json.tmp", "s/checkpoints/5.orbax-checkpoint-tmp/array"]
)
def test_what_is_half_written_is_not_sent(name, folder, address):
    write(folder, name, "half")
    Mirror(address, folder).begin()
    assert name not in copied()


def test_a_copy_that_was_not_sent_whole_is_the_one_before(folder, address, tmp_path, monkeypatch):
    copy = Mirror(address, folder)
    copy.begin()
    before = content(folder)
    for name in ("student/checkpoints/9/a", "student/checkpoints/9/b"):
        write(folder, name, "later")

    def fail(self, local, remote, *given, **options):
        if remote.endswith("/b"):
            raise OSError("the network is gone")
        return PUT(self, local, remote, *given, **options)

    with monkeypatch.context() as patched:
        patched.setattr(KIND, "put_file", fail)
        with pytest.raises(ValueError, match=r"can't be written: OSError: the network is gone$"):
            copy.push()
    Mirror(address, tmp_path / "there").begin()
    assert content(tmp_path / "there") == before


def test_a_folder_that_was_killed_while_it_was_filled_is_filled_anew(
    folder, address, tmp_path, monkeypatch
):
    Mirror(address, folder).begin()
    other = tmp_path / "there"

    def killed(self, remote, local, *given, **options):
        GET(self, remote, local, *given, **options)
        if remote.endswith("config.json"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(KIND, "get_file", killed)
        with pytest.raises(KeyboardInterrupt):
            Mirror(address, other).begin()
    assert content(other) != content(folder)
    Mirror(address, other).begin()
    assert content(other) == content(folder)


def test_of_two_folders_the_first_that_changes_has_the_copy(folder, address, tmp_path):
    first, other = Mirror(address, folder), tmp_path / "there"
    first.begin()
    second = Mirror(address, other)
    second.begin()
    # Nothing has changed there, such as where the run was refused for its config.
    second.push()
    Mirror(address, folder).begin()
    write(other, "results.json", "{}")
    second.push()
    write(folder, "late.json", "{}")
    with pytest.raises(ValueError, match="is written from another folder as well"):
        first.push()
    with pytest.raises(ValueError, match=r"was written from another folder than .*here; name a"):
        Mirror(address, folder).begin()
    assert "results.json" in copied()
    assert "late.json" not in copied()


def test_a_folder_and_what_was_copied_from_it_do_not_write_one_copy(folder, address, tmp_path):
    Mirror(address, folder).begin()
    shutil.copytree(folder, tmp_path / "there")
    write(tmp_path / "there", "results.json", "{}")
    Mirror(address, tmp_path / "there").begin()
    with pytest.raises(ValueError, match="was written from another folder than"):
        Mirror(address, folder).begin()


@pytest.mark.parametrize("arrive", [(False, False), (True, True), (True, False), (False, True)])
def test_one_that_was_killed_while_it_told_what_it_sent_goes_on(
    arrive, folder, address, monkeypatch, tmp_path
):
    copy = Mirror(address, folder)
    copy.begin()

    for number, arrives in enumerate(arrive):
        write(folder, f"results-{number}.json", "{}")

        def fail(self, *given, arrives=arrives, **options):
            if arrives:
                PIPE(self, *given, **options)
            raise OSError("gone")

        with monkeypatch.context() as patched:
            patched.setattr(KIND, "pipe_file", fail)
            with pytest.raises(ValueError, match=r"can't be written: OSError: gone$"):
                copy.push()
    Mirror(address, folder).begin()
    Mirror(address, tmp_path / "there").begin()
    assert content(tmp_path / "there") == content(folder)


def test_a_copy_that_was_deleted_is_sent_again(folder, address):
    copy = Mirror(address, folder)
    copy.begin()
    STORED.store.clear()
    copy.push()
    assert copied() == {*content(folder), "mirror.json"}


def test_a_copy_inside_of_the_folder_is_refused(folder):
    with pytest.raises(ValueError, match=r"^--mirror=file://.*/copy lies in the run's folder /"):
        Mirror(f"file://{folder}/student/../copy", folder)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"stamp": "a", "files": {"../x": 1}}, r"mirror.json names '\.\./x', which is outside the"),
        ({"stamp": "a", "files": {"/x": 1}}, r"mirror.json names '/x', which is outside the"),
        ({"files": {}}, "mirror.json is damaged"),
        ({"stamp": "a", "files": {"lost": 1}}, "can't be read: .*lost"),
    ],
)
def test_a_copy_that_is_none_fills_nothing(told, message, address, tmp_path):
    STORED.pipe_file("/bucket/run/mirror.json", json.dumps(told).encode())
    with pytest.raises(ValueError, match=rf"^--mirror=memory://bucket/run.*{message}"):
        Mirror(address, tmp_path / "there").begin()


def test_storage_that_can_not_be_written_is_told_before_anything_runs(folder, tmp_path):
    (tmp_path / "file").touch()
    began = []
    with (
        pytest.raises(ValueError, match=r"^--mirror=file://.*/file/run can't be "),
        mirrored(f"file://{tmp_path}/file/run", folder),
    ):
        began.append(True)
    assert not began


@pytest.mark.parametrize("refused", ["pipe_file", "rm_file"])
def test_a_copy_that_can_only_be_read_is_told_before_anything_runs(
    refused, folder, address, tmp_path, monkeypatch
):
    Mirror(address, folder).begin()

    def refuse(*_, **__):
        raise PermissionError("read only")

    monkeypatch.setattr(KIND, refused, refuse)
    with pytest.raises(ValueError, match=r"can't be written: PermissionError: read only$"):
        Mirror(address, tmp_path / "there").begin()


def test_at_the_end_the_copy_is_whole(folder, address):
    with mirrored(address, folder):
        write(folder, "results.json", "{}")
    assert "results.json" in copied()


def test_what_a_run_that_failed_has_left_is_sent(folder, address):
    def fail():
        write(folder, "results.json", "{}")
        raise ValueError("it failed")

    with pytest.raises(ValueError, match="it failed"), mirrored(address, folder):
        fail()
    assert "results.json" in copied()


def test_storage_that_is_gone_for_a_while_does_not_stop_a_run(
    folder, address, monkeypatch, caplog, sent
):
    monkeypatch.setattr(mirror, "SECONDS", 0.01)
    failing: list[bool] = []

    def maybe(self, *given, **options):
        if failing:
            raise OSError("gone")
        return PIPE(self, *given, **options)

    monkeypatch.setattr(KIND, "pipe_file", maybe)
    monkeypatch.setattr(mirror.log, "propagate", True)
    with mirrored(address, folder):
        failing.append(True)
        write(folder, "results.json", "{}")
        deadline = time.monotonic() + 20
        while "gone" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        failing.clear()
    assert "results.json" in json.loads(STORED.cat_file("/bucket/run/mirror.json"))["files"]


# A run that is killed and goes on elsewhere

OFTEN = "from kd_jax.experiments import mirror; mirror.SECONDS = 0.5; from kd_jax import cli"


def start(workdir, copy):
    arguments = ["--config=digits", "--smoke", "--config.training.epochs=60"]
    arguments += ["--config.checkpoint.every_steps=10", f"--workdir={workdir}", *copy]
    return subprocess.Popen(
        [sys.executable, "-c", f"{OFTEN}; cli.main()", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"},
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_whose_machine_is_gone_ends_on_another_one_with_the_same_weights(end, tmp_path):
    copy = tmp_path / "bucket"
    address = f"--mirror=file://{copy}"
    first = start(tmp_path / "one", [address])
    deadline = time.monotonic() + 200
    while "/checkpoints/" not in (manifest(copy) or ""):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(end)
    _, errors = first.communicate(timeout=100)
    assert first.returncode == (-9 if end == signal.SIGKILL else 75), errors
    shutil.rmtree(tmp_path / "one")
    for workdir, given in (("two", [address]), ("alone", [])):
        process = start(tmp_path / workdir, given)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    for model in ("teacher", "student", "baseline"):
        resumed, alone = (
            load_file(folder / model / "model.safetensors") for folder in (copy, tmp_path / "alone")
        )
        for path, value in alone.items():
            np.testing.assert_array_equal(resumed[path], value, err_msg=path)


def manifest(copy):
    path = copy / "mirror.json"
    return path.read_text() if path.exists() else None
