"""Workers that share a sweep's runs: order, ends of every kind, and a summary that loses nothing."""

import json
import os
import signal
import threading

import pytest
from paths import TESTS

from kd_jax.config.load import load_config
from kd_jax.core import seal
from kd_jax.experiments.sweep import queue
from kd_jax.experiments.sweep.claims import Claims
from kd_jax.experiments.sweep.grid import lay_out
from kd_jax.experiments.sweep.queue import claim_one_by_one, write_summary
from kd_jax.experiments.workdir import AtWork
from kd_jax.training.interruption import Diverged, Interrupted

CONFIG = str(TESTS / "configs" / "shared.py") + ":smoke"


@pytest.fixture(autouse=True)
def _signals_as_before():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def runs(tmp_path):
    return lay_out(load_config(CONFIG), {"seeds": [0, 1, 2]}, tmp_path)


@pytest.fixture
def claims(tmp_path):
    made = Claims(tmp_path)
    yield made
    made.close()


def finish(config, folder, accuracy=0.5):
    """Leaves what a finished run leaves."""
    (folder / "teacher").mkdir(parents=True, exist_ok=True)
    (folder / "teacher" / "finished.json").write_text("{}")
    model = {"accuracy": accuracy, "loss": 1.0, "ece": 0.1, "fingerprint": folder.name}
    elsewhere = {name: {"student": {"accuracy": 0.1}} for name in config["evaluations"]}
    results = seal.seal({"order": ["student"], "models": {"student": model}, "gain": 0.0})
    results = seal.seal({**results, "evaluations": elsewhere})
    (folder / "results.json").write_text(json.dumps(results))
    return results


@pytest.fixture
def does(monkeypatch):
    """Stands in for the experiment; returns the names of the runs that were done."""
    done = []

    def replace(instead=finish):
        def run(config, folder, *, show):
            assert not show
            done.append(folder.name)
            return instead(config, folder)

        monkeypatch.setattr(queue, "run_experiment", run)
        monkeypatch.setattr(queue, "POLL", 0.02)
        return done

    return replace


def work(runs, folder, claims):
    """What a worker does; returns the runs that it ended."""
    ended = []
    for run, _ in claim_one_by_one(runs, folder, claims):
        write_summary(runs, folder, claims)
        ended.append(run.name)
    return ended


def summary(folder):
    return json.loads((folder / "sweep.json").read_text())


def names_in(found):
    return [entry["workdir"].rpartition("/")[2] for entry in found["runs"]]


def test_one_worker_does_all_runs_in_order_and_the_next_one_none(runs, tmp_path, claims, does):
    done = does()
    assert work(runs, tmp_path, claims) == done == ["seed0", "seed1", "seed2"]
    assert summary(tmp_path)["finished"]
    assert work(runs, tmp_path, Claims(tmp_path)) == []
    assert len(done) == 3


def test_a_run_waits_until_the_one_that_trains_its_teacher_has_ended(runs, tmp_path, claims, does):
    begun, go_on = threading.Event(), threading.Event()

    def instead(config, folder):
        begun.set()
        assert go_on.wait(30) or folder.name != "seed0"
        return finish(config, folder)

    done = does(instead)
    first = threading.Thread(target=work, args=(runs, tmp_path, claims))
    second = threading.Thread(target=work, args=(runs, tmp_path, Claims(tmp_path)))
    first.start()
    assert begun.wait(30)
    second.start()
    second.join(0.5)
    assert done == ["seed0"]
    go_on.set()
    first.join(30)
    second.join(30)
    assert sorted(done) == ["seed0", "seed1", "seed2"]
    assert names_in(summary(tmp_path)) == ["seed0", "seed1", "seed2"]


@pytest.mark.parametrize("error", [ValueError("no such data"), Interrupted("stopped at step 3")])
def test_whatever_ends_a_worker_gives_its_run_back(runs, tmp_path, claims, does, error):
    def instead(config, folder):
        raise error

    does(instead)
    with pytest.raises(type(error), match=str(error)):
        work(runs, tmp_path, claims)
    assert claims.look("seed0").free
    does()
    assert work(runs, tmp_path, Claims(tmp_path)) == ["seed0", "seed1", "seed2"]


def test_a_signal_between_the_claim_and_the_run_is_not_lost(
    runs, tmp_path, claims, does, monkeypatch
):
    done, usual = does(), claims.claim

    def claim(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        return usual(*given)

    monkeypatch.setattr(claims, "claim", claim)
    with pytest.raises(Interrupted, match="the same command resumes it"):
        work(runs, tmp_path, claims)
    assert not done
    assert claims.look("seed0").free


def test_a_run_in_whose_folder_somebody_is_at_work_is_waited_for(runs, tmp_path, claims, does):
    times = []

    def instead(config, folder):
        times.append(folder.name)
        if len(times) < 4:
            raise AtWork("another process is at work in seed0")
        return finish(config, folder)

    does(instead)
    assert work(runs, tmp_path, claims) == ["seed0", "seed1", "seed2"]
    assert times == ["seed0"] * 4 + ["seed1", "seed2"]
    assert len(list((tmp_path / "queue" / "seed0").iterdir())) == 1


def test_a_summary_that_can_not_be_written_gives_the_run_back_too(runs, tmp_path, claims, does):
    does()
    outcomes = claim_one_by_one(runs, tmp_path, claims)
    next(outcomes)
    assert not claims.look("seed0").free
    outcomes.close()
    assert claims.look("seed0").free


def test_a_run_that_diverged_has_ended_for_all_and_so_have_those_of_its_teacher(
    runs, tmp_path, claims, does
):
    def instead(config, folder):
        raise Diverged("teacher: loss is nan")

    done = does(instead)
    work(runs, tmp_path, claims)
    assert done == ["seed0"]
    told = [entry["diverged"] for entry in summary(tmp_path)["runs"]]
    assert told[0] == "teacher: loss is nan"
    assert told[1] == told[2] == "models.teacher, which seed0 was to train, diverged there"
    assert work(runs, tmp_path, Claims(tmp_path)) == []


def test_ends_of_another_config_or_other_evaluations_do_not_count(tmp_path, claims, does):
    done = does()
    config = load_config(CONFIG)
    work(lay_out(config, {"seeds": [0]}, tmp_path), tmp_path, claims)
    with config.unlocked():
        config.evaluations = {"scans": {}}
    runs = lay_out(config, {"seeds": [0]}, tmp_path)
    assert work(runs, tmp_path, Claims(tmp_path)) == ["seed0"]
    config.training.epochs = 9.0
    runs = lay_out(config, {"seeds": [0]}, tmp_path)
    assert work(runs, tmp_path, Claims(tmp_path)) == ["seed0"]
    assert len(done) == 3


def test_results_that_are_gone_or_were_changed_are_made_again(runs, tmp_path, claims, does):
    done = does()
    work(runs, tmp_path, claims)
    (tmp_path / "seed0" / "results.json").unlink()
    file = tmp_path / "seed2" / "results.json"
    file.write_text(file.read_text().replace("0.5", "0.9"))
    assert work(runs, tmp_path, Claims(tmp_path)) == ["seed0", "seed2"]
    assert len(done) == 5


def test_two_summaries_at_the_same_time_lose_nothing(runs, tmp_path, claims, does, monkeypatch):
    """A worker reads the ends, another one ends a run and writes, and the first one writes last."""
    does()
    outcomes, others = claim_one_by_one(runs, tmp_path, claims), Claims(tmp_path)
    next(outcomes)
    write_summary(runs, tmp_path, claims)
    # The first run is released, the second one is noted and held.
    next(outcomes)
    usual, late = queue.summarize, []

    def summarize(entries, count):
        found = usual(entries, count)
        if not late:
            late.append(True)
            third = claim_one_by_one(runs, tmp_path, others)
            next(third)
            assert names_in(write_summary(runs, tmp_path, others)) == ["seed0", "seed1", "seed2"]
            third.close()
        return found

    monkeypatch.setattr(queue, "summarize", summarize)
    # What the first worker has read is older than what the other one has written.
    found = write_summary(runs, tmp_path, claims)
    assert names_in(found) == names_in(summary(tmp_path)) == ["seed0", "seed1", "seed2"]
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == 4
    outcomes.close()
    others.close()
    assert not list((tmp_path / "queue" / ".workers").glob("*/sweep.*"))
