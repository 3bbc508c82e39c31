"""Claims of runs: one worker a run, and those of dead workers are taken over."""

import json
import subprocess
import sys
import threading
import time

import pytest

from kd_jax.core.process_identity import this_process
from kd_jax.experiments.sweep import claims as module
from kd_jax.experiments.sweep.claims import Claims


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Makes workers, and ends them and their beats after the test."""
    made, held, usual = [], [], module.Claim

    def remember(*given, **seconds):
        held.append(usual(*given, **seconds))
        return held[-1]

    monkeypatch.setattr(module, "Claim", remember)

    def make(**seconds):
        made.append(Claims(tmp_path, **seconds))
        return made[-1]

    yield make
    # A claim that was taken over would end this process at its next beat.
    for each in held:
        each._released.set()
    for each in made:
        each.close()


def claim(worker, run="seed0"):
    look = worker.look(run)
    return worker.claim(run, look) if look.free else None


def pretend(tmp_path, number=1, **changes):
    """Lets a claim be of another process."""
    file = tmp_path / "queue" / "seed0" / str(number) / "claim.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return file.parent


HOLD = """
import sys, time
from pathlib import Path
from kd_jax.experiments.sweep.claims import Claims
seconds = dict(beat=0.05, give_up=float(sys.argv[2]))
claims = Claims(Path(sys.argv[1]), **seconds)
held = claims.claim("seed0", claims.look("seed0"))
print("held", flush=True)
time.sleep(60)
"""


def start(source, *arguments):
    command = [sys.executable, "-c", source, *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_of_two_workers_one_claims_a_run_and_says_who_it_is(worker, tmp_path):
    first, second = worker(), worker()
    held = claim(first)
    assert held is not None
    assert claim(second) is None
    facts = json.loads((tmp_path / "queue/seed0/1/claim.json").read_text())
    me = this_process()
    assert (facts["host"], facts["pid"], facts["started"]) == (me.host, me.pid, me.started)
    assert facts["time"].endswith("+00:00")
    held.release()
    assert claim(second) is not None


def test_workers_that_looked_at_the_same_time_do_not_both_claim(worker):
    workers = [worker() for _ in range(8)]
    for round_ in range(20):
        name = f"seed{round_}"
        looks = [each.look(name) for each in workers]
        got, begin = [], threading.Barrier(8)

        def grab(each, look, name=name, got=got, begin=begin):
            begin.wait()
            got.append(each.claim(name, look))

        threads = [
            threading.Thread(target=grab, args=pair) for pair in zip(workers, looks, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        held = [each for each in got if each is not None]
        assert len(held) == 1
        held[0].release()


def test_an_old_look_takes_nothing_away_from_who_claimed_since(worker, tmp_path):
    first, second, third = worker(), worker(), worker()
    claim(first).release()
    old = third.look("seed0")
    assert old.free
    held = claim(second)
    assert third.claim("seed0", old) is None
    held.release()
    assert third.claim("seed0", old) is None
    assert sorted(path.name for path in (tmp_path / "queue" / "seed0").iterdir()) == ["1", "2"]


def test_a_run_has_ended_once_that_is_noted_and_the_claim_released(worker):
    first, second = worker(), worker()
    held = claim(first)
    held.note({"diverged": "at step 3"})
    assert second.noted("seed0") == {"diverged": "at step 3"}
    assert second.look("seed0").ended is None
    held.release()
    look = second.look("seed0")
    assert (look.free, look.ended) == (True, {"diverged": "at step 3"})


def test_a_note_is_kept_while_the_run_of_a_dead_worker_is_done_again(worker, tmp_path):
    claim(worker()).note({"config": "1"})
    pretend(tmp_path, started="0")
    second = worker()
    assert claim(second) is not None
    assert second.noted("seed0") == {"config": "1"}


def test_only_the_folder_of_the_dead_worker_is_cleared_up(worker, tmp_path):
    claim(worker())
    pretend(tmp_path, started="0", worker="..")
    assert claim(worker()) is not None
    pretend(tmp_path, number=2, started="0")
    assert len(list((tmp_path / "queue" / ".workers").iterdir())) == 2
    assert claim(worker()) is not None
    assert len(list((tmp_path / "queue" / ".workers").iterdir())) == 2


def test_a_run_that_is_given_back_is_free_and_has_not_ended(worker):
    claim(worker()).release()
    look = worker().look("seed0")
    assert (look.number, look.free, look.ended) == (1, True, None)


def test_a_living_worker_of_this_machine_keeps_its_run_even_if_it_beats_no_more(worker):
    held = claim(worker(beat=60.0))
    other = worker(lost=0.0)
    for _ in range(3):
        assert not other.look("seed0").free
        time.sleep(0.02)
    held.release()


def test_a_worker_of_another_machine_is_lost_when_its_beat_stands_still(worker, tmp_path):
    held = claim(worker(beat=0.05))
    # A time that lies years back says nothing: clocks of two machines are not compared.
    folder = pretend(tmp_path, host="elsewhere", time="2001-01-01T00:00:00+00:00")
    other = worker(lost=0.6)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert not other.look("seed0").free
        time.sleep(0.05)
    held._released.set()
    held._thread.join()
    assert json.loads((folder / "beat.json").read_text())["beat"] > 3
    assert not other.look("seed0").free
    time.sleep(0.7)
    assert claim(other) is not None


def test_a_beat_outlives_a_moment_in_which_it_can_not_be_written(worker, tmp_path, monkeypatch):
    usual, failures = module.write_json, [OSError(116, "Stale file handle")] * 3

    def write(path, value):
        if path.name == "beat.json" and value["beat"] and failures:
            raise failures.pop()
        usual(path, value)

    monkeypatch.setattr(module, "write_json", write)
    held = claim(worker(beat=0.02))
    deadline = time.monotonic() + 20
    while json.loads((tmp_path / "queue/seed0/1/beat.json").read_text())["beat"] < 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not failures
    held.release()


def test_a_folder_that_can_not_be_written_is_an_error_and_no_lost_race(worker, monkeypatch):
    def rename(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "rename", rename)
    with pytest.raises(OSError, match="No space left"):
        claim(worker())


@pytest.mark.slow
def test_the_run_of_a_killed_process_is_free_at_once(worker, tmp_path):
    with start(HOLD, tmp_path, 60) as process:
        assert process.stdout.readline() == "held\n"
        other = worker()
        assert claim(other) is None
        process.kill()
        deadline = time.monotonic() + 10
        while (held := claim(other)) is None:
            assert time.monotonic() < deadline
        assert json.loads((tmp_path / "queue/seed0/2/claim.json").read_text())["worker"]
        held.release()


@pytest.mark.slow
def test_a_worker_whose_run_was_taken_over_ends_at_once(tmp_path):
    with start(HOLD, tmp_path, 60) as process:
        assert process.stdout.readline() == "held\n"
        (tmp_path / "queue" / "seed0" / "2").mkdir()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 75
    assert errors.splitlines()[-1].startswith("seed0 was taken over by another worker; this worker")


@pytest.mark.slow
def test_a_worker_that_can_not_show_that_it_lives_ends_itself(tmp_path):
    with start(HOLD, tmp_path, 0.5) as process:
        assert process.stdout.readline() == "held\n"
        claimed = tmp_path / "queue" / "seed0" / "1"
        claimed.rename(tmp_path / "away")
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 75
    assert "couldn't be written for" in errors.splitlines()[-1]


RACE = """
import sys
from pathlib import Path
from kd_jax.experiments.sweep.claims import Claims
claims, got, held = Claims(Path(sys.argv[1])), [], []
print("ready", flush=True)
input()
for number in range(40):
    look = claims.look(f"seed{number}")
    one = claims.claim(f"seed{number}", look) if look.free else None
    if one:
        got.append(number)
        held.append(one)
print(*got, flush=True)
input()
"""


@pytest.mark.slow
def test_processes_that_race_for_runs_never_get_the_same_one(tmp_path):
    processes = [start(RACE, tmp_path) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    claimed = [int(word) for each in processes for word in each.stdout.readline().split()]
    assert sorted(claimed) == list(range(40))
    for process in processes:
        process.communicate("\n", timeout=20)
