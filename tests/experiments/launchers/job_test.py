"""The command that a launcher starts, and the options of its own flag."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from kd_jax.experiments.launchers.job import fill_options, make_job, read_options


@pytest.mark.parametrize(
    "given",
    [
        ["--launcher=slurm", "--slurm=partition=gpu", "--workers=3"],
        ["--launcher", "slurm", "--slurm", "partition=gpu", "-workers", "3"],
    ],
)
def test_the_flags_of_the_launch_stay_behind_and_workers_join(given):
    job = make_job(["--config=digits", *given, "--sweep=F"], "digits", Path("runs/x"), 3)
    assert job.arguments == ("--config=digits", "--sweep=F", "--workdir=runs/x", "--join")
    assert job.copies == 3


def test_a_run_is_started_as_it_is():
    job = make_job(
        ["--launcher=tpu", "--workdir", "/x", "--smoke"], "My Digits_2", Path("/x"), None
    )
    assert job.arguments == ("--workdir", "/x", "--smoke")
    assert (job.name, job.copies) == ("kd-jax-my-digits-2", 1)


def test_a_worker_joins_once():
    assert make_job(["--join", "--workdir=x"], "a", Path("x"), 2).arguments == (
        "--join",
        "--workdir=x",
    )


def test_a_long_name_fits_into_a_host_name():
    assert len(make_job([], "a" * 100, Path("x"), None).name) == 40


def test_values_are_numbers_words_or_texts():
    items = ["a=1", "b=0.5", "c=true", "d=gpu", "e=1-2", "f=2:00:00", "g=a=b", "h=007"]
    assert read_options("slurm", items) == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": "gpu",
        "e": "1-2",
        "f": "2:00:00",
        "g": "a=b",
        "h": "007",
    }


@pytest.mark.parametrize("items", [["gpu"], ["=1"], ["a="], ["a=1", "a=2"]])
def test_an_option_without_key_or_value_or_twice_is_refused(items):
    with pytest.raises(ValueError, match=r"^--slurm=.*: write KEY=VALUE,..., each KEY once$"):
        read_options("slurm", items)


@dataclass(frozen=True)
class Options:
    image: str = "a"
    hosts: int = 1
    spot: bool = False


def test_options_have_defaults():
    assert fill_options(Options, "tpu", {"hosts": 2}) == Options("a", 2, False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"host": 1}, "--tpu has no 'host', did you mean 'hosts'? It has image, hosts, spot"),
        ({"hosts": "two"}, "--tpu=hosts=two: it must be a number from 0 on"),
        ({"hosts": True}, "--tpu=hosts=True: it must be a number from 0 on"),
        ({"spot": 1}, "--tpu=spot=1: it must be true or false"),
        ({"image": 1}, "--tpu=image=1: it must be a text"),
    ],
)
def test_an_option_that_is_none_is_refused(given, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        fill_options(Options, "tpu", given)
    assert str(caught.value) == message
