"""Which writers there are, and how they are opened, fail and are closed."""

import logging
import sys
from typing import ClassVar

import jax
import pytest
from training.writers.fake_services import install_wandb

from kd_jax.training import writers
from kd_jax.training.writers import FollowedRun, Writer, check_installed, check_names, open_writers

LISTED = "there are mlflow, tensorboard, wandb"


class Noting(Writer):
    """Notes what it is told; fails when it is told to."""

    told: ClassVar[list] = []
    fails = False

    def __init__(self, run):
        if self.fails:
            raise RuntimeError("no access\nat all")
        super().__init__(run)

    def write(self, model, step, values):
        if step == 2:
            raise OSError("the server is gone")
        self.told.append((model, step, values))

    def close(self, *, ended):
        self.told.append(ended)


@pytest.fixture
def noting(monkeypatch):
    monkeypatch.setitem(writers.WRITERS, "noting", Noting)
    monkeypatch.setattr(Noting, "told", [])
    return Noting


@pytest.fixture
def run(tmp_path):
    return FollowedRun(tmp_path, {"name": "digits"})


def test_an_unknown_writer_is_refused_with_the_key_and_those_that_exist():
    with pytest.raises(ValueError, match=rf"^logging.writers names 'wand', .*; {LISTED}$"):
        check_names(("tensorboard", "wand"))


def test_a_writer_named_twice_is_refused():
    with pytest.raises(ValueError, match=r"^logging.writers names 'wandb' twice; "):
        check_names(("wandb", "wandb"))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_writer_whose_package_is_missing_is_refused_with_the_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    message = (
        rf"^logging.writers names '{name}', whose package isn't installed: pip install"
        rf" 'kd_jax\[{name}\]', or leave it out; {LISTED}$"
    )
    with pytest.raises(ValueError, match=message):
        check_installed(("tensorboard", name))


def test_a_folder_of_the_packages_name_is_no_package(monkeypatch, tmp_path):
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ValueError, match="isn't installed"):
        check_installed(("wandb",))


def test_what_is_installed_is_accepted(monkeypatch):
    install_wandb(monkeypatch)
    check_installed(("wandb", "tensorboard"))


def test_a_writer_that_cannot_begin_is_refused_in_one_line(noting, run, monkeypatch):
    monkeypatch.setattr(noting, "fails", True)
    with (
        pytest.raises(
            ValueError, match=r"^logging.writers: 'noting' can't begin: no access at all$"
        ),
        open_writers(("noting",), run),
    ):
        pytest.fail("it was opened")


def test_a_writer_that_fails_is_named_once_and_gets_nothing_more(noting, run, caplog):
    with caplog.at_level(logging.WARNING), open_writers(("noting",), run) as opened:
        for step in (1, 2, 3):
            opened.write("student", step, {"loss": 0.5})
    assert noting.told == [("student", 1, {"loss": 0.5})]
    assert [record.message for record in caplog.records] == [
        "logging.writers: noting failed, and gets nothing more: the server is gone"
    ]


def test_writers_are_told_whether_the_run_went_to_its_end(noting, run):
    with open_writers(("noting",), run):
        pass
    with pytest.raises(KeyboardInterrupt), open_writers(("noting",), run):
        raise KeyboardInterrupt
    assert noting.told == [True, False]


def test_only_the_first_process_opens_any(noting, run, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with open_writers(("noting",), run) as opened:
        opened.write("student", 1, {"loss": 0.5})
    assert noting.told == []
