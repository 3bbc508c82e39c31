"""What the first process of a cluster writes is seen by the others, at last, or that is told."""

import jax
import numpy as np
import pytest

from kd_jax.core import shared_files


@pytest.fixture
def cluster(monkeypatch):
    """Plays one process of three; what the others see is given."""

    def play(index, others=(True, True)):
        monkeypatch.setattr(jax, "process_count", lambda: 3)
        monkeypatch.setattr(jax, "process_index", lambda: index)
        tools = shared_files.multihost_utils
        monkeypatch.setattr(tools, "broadcast_one_to_all", lambda value: value)
        monkeypatch.setattr(tools, "sync_global_devices", lambda name: None)
        monkeypatch.setattr(
            tools, "process_allgather", lambda seen: np.array([seen.tolist(), *others])
        )
        monkeypatch.setattr(shared_files, "SECONDS", 0.5)

    return play


def test_a_folder_that_all_processes_see_is_fine_and_stays_as_it_is(cluster, tmp_path):
    cluster(0)
    shared_files.check_shared(tmp_path, "--workdir")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("index", "others", "told"), [(0, (True, False), "by 2"), (1, (True, True), "by 0")]
)
def test_a_folder_that_is_another_one_elsewhere_is_refused(index, others, told, cluster, tmp_path):
    cluster(index, others)
    with pytest.raises(ValueError, match=rf"^--workdir: .* isn't one folder for all 3.*{told} \("):
        shared_files.check_shared(tmp_path, "--workdir")
    assert not [*tmp_path.iterdir()]


def test_a_file_that_comes_late_is_waited_for(cluster, tmp_path, monkeypatch):
    cluster(1, (-1, -1))
    file, slept = tmp_path / "late", []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 2:
            file.touch()

    monkeypatch.setattr(shared_files.time, "sleep", sleep)
    shared_files.written(file)
    assert len(slept) == 2


def test_a_file_that_never_comes_is_told(cluster, tmp_path):
    (tmp_path / "there").touch()
    files = tmp_path / "there", tmp_path / "never"
    told = r"never, written by the first process, isn't seen by process"
    cluster(2, (-1, -1))
    with pytest.raises(FileNotFoundError, match=f"{told} 0"):
        shared_files.written(*files)
    # In every process, as the others would wait for it.
    files[1].touch()
    cluster(0, (-1, 1))
    with pytest.raises(FileNotFoundError, match=f"{told} 2"):
        shared_files.written(*files)


def test_one_process_alone_waits_for_nothing(tmp_path):
    shared_files.written(tmp_path / "never")
    shared_files.check_shared(tmp_path / "nowhere", "--workdir")
