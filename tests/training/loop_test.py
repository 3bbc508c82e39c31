import os
import signal
import time

import numpy as np
import pytest

from kd_jax.core.types import Mean
from kd_jax.training.interruption import Diverged, Interrupted, StopSignal
from kd_jax.training.loop import Intervals, Window, at_interval, train
from kd_jax.training.state import TrainState
from kd_jax.training.step import FINITE


class Batches:
    """A stream whose n-th batch is n."""

    def __init__(self):
        self.position = 0

    def __next__(self):
        self.position += 1
        return self.position

    def get_state(self):
        return {"next": self.position}


class Notes:
    """Stands for checkpoints, records and progress: remembers what it was told, in order."""

    def __init__(self):
        self.saved, self.written, self.shown, self.waits = [], [], [], 0

    def save(self, step, state, meta, metrics):
        assert int(state.step) == step
        self.saved.append((step, meta["position"]["next"], metrics))
        self.meta = meta

    def wait(self):
        self.waits += 1

    def since_best(self):
        """The first of these evaluations stays the best."""
        return self.saved[-1][0] - self.saved[0][0] if self.saved else 0

    def last_good(self):
        return f"checkpoint {self.saved[-1][0]}" if self.saved else None

    def write(self, step, values):
        self.written.append((step, values))

    def advance(self, step):
        self.shown.append(step)

    def report(self, step, values):
        self.shown.append((step, values))


class Never:
    def asked(self, *, agree):
        return False


class AtStep(Never):
    """Asks to stop when so many steps are taken."""

    def __init__(self, step):
        self.left = step

    def asked(self, *, agree):
        self.left -= 1
        return self.left == 0


def metrics_of(batch):
    """Batch n counts n examples of loss n."""
    return {
        "student": {
            "hard": Mean(np.float32(batch * batch), np.int32(batch)),
            "loss": np.float32(batch),
        }
    }


def metrics_of_two(batch):
    return metrics_of(batch) | {"peer": metrics_of(batch)["student"]}


def run(notes, *, total=10, save=4, log=5, stop=None, start=0, metrics=metrics_of, **other):
    def advance(state, batch):
        return TrainState(state.step + 1, {}), metrics(batch)

    def evaluate(state):
        notes.written.append(("evaluated", int(state.step)))
        return {"student": {"accuracy": 0.5, "loss": 2.0, "ece": 0.1}}

    batches = Batches()
    batches.position = start
    patience = other.get("patience")
    return train(
        TrainState(np.int32(start), {}),
        advance=advance,
        batches=batches,
        intervals=Intervals(total, save, log, patience),
        evaluate=other.get("evaluate", evaluate),
        checkpoints=notes,
        writers=dict.fromkeys(other.get("members", ("student",)), notes),
        progress=notes,
        learning_rates=other.get("learning_rates", {}),
        stop=stop or Never(),
        seconds=other.get("seconds", 0.0),
        blame=other.get("blame"),
        machine=other.get("machine"),
    )


@pytest.fixture
def notes():
    return Notes()


# Rhythm


class Machine:
    """Notes the seconds that it is told to leave out."""

    def __init__(self):
        self.left_out = 0.0

    def leave_out(self, seconds):
        self.left_out += seconds

    def measure(self, step):
        return {"machine/examples_per_second": float(step)}


def test_what_the_machine_gives_stands_in_lines_of_its_own(notes):
    run(notes, machine=Machine())
    measured = [line for line in notes.written if "machine/examples_per_second" in str(line)]
    assert measured == [(step, {"machine/examples_per_second": step}) for step in (5, 10)]
    plain = Notes()
    run(plain)
    assert [line for line in notes.written if line not in measured] == plain.written
    assert not any("machine/examples_per_second" in str(shown) for shown in notes.shown)


def test_the_time_of_evaluations_is_no_time_of_training(notes):
    def evaluate(_state):
        time.sleep(0.05)
        return {"student": {"accuracy": 0.5, "loss": 2.0}}

    machine = Machine()
    run(notes, machine=machine, evaluate=evaluate)
    # At steps 4, 8 and 10.
    assert machine.left_out >= 0.15


def test_a_checkpoint_of_a_group_is_ranked_by_the_mean_of_its_members(notes):
    def evaluate(_state):
        return {"student": {"accuracy": 0.5, "loss": 2.0}, "peer": {"accuracy": 0.7, "loss": 1.0}}

    run(notes, members=("student", "peer"), evaluate=evaluate, metrics=metrics_of_two)
    assert [metrics for *_, metrics in notes.saved] == [
        {"score": pytest.approx(0.6), "loss": 1.5}
    ] * 3
    assert notes.meta["selection"]["peer"] == {"accuracy": 0.7, "loss": 1.0}
    shown = next(
        values for entry in notes.shown if isinstance(entry, tuple) for values in [entry[1]]
    )
    assert {"student/hard", "peer/hard"} <= shown.keys()


def test_checkpoints_come_at_their_interval_and_at_the_end_with_the_data_position(notes):
    run(notes)
    ranked = {"score": 0.5, "loss": 2.0}
    assert notes.saved == [(4, 4, ranked), (8, 8, ranked), (10, 10, ranked)]
    assert notes.waits == 1


def test_every_checkpoint_is_evaluated_on_the_state_it_holds(notes):
    run(notes)
    assert [entry[1] for entry in notes.written if entry[0] == "evaluated"] == [4, 8, 10]
    selection = [
        values for step, values in notes.written if step == 10 and "selection/accuracy" in values
    ]
    assert selection == [{"selection/accuracy": 0.5, "selection/loss": 2.0, "selection/ece": 0.1}]


def test_log_lines_hold_means_over_the_steps_since_the_last_one(notes):
    run(notes)
    first, second = (
        next(v for s, v in notes.written if s == step and "hard" in v) for step in (5, 10)
    )
    assert first["hard"] == pytest.approx(sum(n * n for n in range(1, 6)) / sum(range(1, 6)))
    assert first["loss"] == pytest.approx(3.0)
    assert second["hard"] == pytest.approx(sum(n * n for n in range(6, 11)) / sum(range(6, 11)))
    assert [entry[0] for entry in notes.shown if isinstance(entry, tuple)] == [5, 10]
    assert [entry for entry in notes.shown if isinstance(entry, int)] == list(range(1, 11))


def test_a_resumed_run_takes_only_the_steps_that_are_left(notes):
    run(notes, start=7)
    assert [step for step, _, _ in notes.saved] == [8, 10]
    assert [position for _, position, _ in notes.saved] == [8, 10]


@pytest.mark.parametrize(("patience", "last"), [(1, 4), (2, 6), (None, 10)])
def test_a_training_ends_after_so_many_evaluations_without_a_better_one(notes, patience, last):
    run(notes, save=2, patience=patience)
    assert notes.saved[-1][0] == last
    # Started again, it takes no further step.
    run(notes, save=2, patience=patience, start=last)
    assert notes.saved[-1][0] == last


def test_seconds_add_up_over_the_starts_of_a_run(notes):
    assert 100.0 <= run(notes, seconds=100.0) < 110.0


@pytest.mark.parametrize("every", [dict(save=0), dict(log=0)])
def test_an_interval_of_no_steps_is_refused(every):
    with pytest.raises(ValueError, match=r"interval must be at least 1 step, got 0"):
        Intervals(**(dict(total=1, save=1, log=1) | every))


def test_the_last_step_is_at_every_interval():
    assert [at_interval(step, 4, 10) for step in range(1, 11)] == [
        step in (4, 8, 10) for step in range(1, 11)
    ]


# Numbers that aren't finite


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [1, 6, 8, 10])
def test_a_term_that_is_not_finite_ends_the_run_naming_model_step_and_term(notes, bad, at):
    def metrics(batch):
        found = metrics_of(batch)
        if batch == at:
            found["student"] |= {
                "hard": Mean(np.float32(bad), np.int32(1)),
                "loss": np.float32(bad),
            }
        return found

    with pytest.raises(Diverged) as error:
        run(notes, metrics=metrics)
    last = (at - 1) // 4 * 4
    good = f"checkpoint {last}" if last else "none yet"
    assert str(error.value) == (
        f"student: hard is {bad} at step {at}; a lower learning rate or weight may help; last good"
        f" checkpoint: {good}"
    )
    assert all(step < at for step, _, _ in notes.saved)


def test_the_term_is_named_before_the_loss_and_the_gradient_that_follow_from_it():
    window = Window()
    bad = np.float32(np.nan)
    values = {"accuracy": bad, "gradient_norm": bad, "loss": bad, "soft": Mean(bad, np.int32(1))}
    with pytest.raises(Diverged, match=r"student: soft is nan at step 3"):
        window.add(3, {"student": values}, None)
    del values["soft"]
    values["accuracy"] = values["loss"] = np.float32(0)
    with pytest.raises(Diverged, match=r"student: gradient_norm is nan"):
        window.add(3, {"student": values}, None)


def test_a_parameter_that_is_not_finite_ends_the_run_though_all_terms_are(notes):
    def metrics(batch):
        found = metrics_of(batch)
        found["student"][FINITE] = np.bool_(batch != 8)
        return found

    with pytest.raises(Diverged, match="student: a parameter is no longer a finite number at step"):
        run(notes, metrics=metrics)
    assert [step for step, _, _ in notes.saved] == [4]
    assert FINITE not in str(notes.written)


def test_a_score_that_is_not_finite_ranks_no_checkpoint(notes):
    def evaluate(state):
        return {"student": {"accuracy": 0.5, "loss": np.nan if state.step == 8 else 1.0}}

    with pytest.raises(Diverged, match="student: loss on the selection split is nan at step 8"):
        run(notes, evaluate=evaluate)
    assert [step for step, _, _ in notes.saved] == [4]


def test_the_teacher_is_named_where_its_outputs_are_at_fault(notes):
    def metrics(batch):
        return {"student": {"soft": Mean(np.float32(np.nan if batch == 3 else 1), np.int32(1))}}

    with pytest.raises(Diverged, match=r"^big, a teacher, gives .* at step 3: student: soft is"):
        run(notes, metrics=metrics, blame=lambda batch: "big" if batch == 3 else None)
    with pytest.raises(Diverged, match=r"^student: soft is nan at step 3"):
        run(notes, metrics=metrics, blame=lambda batch: None)


# Stopping


def test_a_run_that_is_asked_to_stop_saves_unranked_and_says_where(notes):
    with pytest.raises(Interrupted, match=r"stopped at step 3 of 10; the same command resumes it"):
        run(notes, stop=AtStep(3))
    assert notes.saved == [(3, 3, None)]
    assert notes.waits == 1


def test_a_stop_at_a_checkpoint_saves_it_once_and_ranked(notes):
    with pytest.raises(Interrupted):
        run(notes, stop=AtStep(4))
    assert notes.saved == [(4, 4, {"score": 0.5, "loss": 2.0})]


def test_a_stop_at_the_last_step_comes_too_late(notes):
    run(notes, stop=AtStep(10))
    assert [step for step, _, _ in notes.saved] == [4, 8, 10]


def test_a_state_that_is_not_finite_is_not_saved_on_the_way_out(notes):
    def metrics(batch):
        return {"student": {"hard": Mean(np.float32(np.nan if batch == 3 else 1), np.int32(1))}}

    with pytest.raises(Diverged):
        run(notes, stop=AtStep(3), metrics=metrics)
    assert notes.saved == []


def test_sigterm_is_remembered_and_does_not_kill():
    before = signal.getsignal(signal.SIGTERM)
    try:
        stop = StopSignal()
        assert not stop.asked(agree=True)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked(agree=True)
        assert stop.asked(agree=False)
    finally:
        signal.signal(signal.SIGTERM, before)
