import io
import sys
from contextlib import closing

import pytest

from kd_jax.training.progress import StepProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when the test says so."""
    now = [100.0]
    monkeypatch.setattr("kd_jax.training.progress.time.perf_counter", lambda: now[0])
    return now


def test_elsewhere_than_on_a_terminal_a_report_is_one_plain_line(capsys, clock):
    with closing(StepProgress("student", total_steps=100, start=0, batch_size=64)) as progress:
        clock[0] += 2
        progress.advance(10)
        progress.report(10, {"loss": 1.23456, "accuracy": 0.5})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "student 10/100  loss 1.235  accuracy 0.5  320 examples/s  18 s left\n"


def test_the_rate_of_a_resumed_run_counts_only_its_own_steps(capsys, clock):
    with closing(StepProgress("student", total_steps=100, start=50, batch_size=64)) as progress:
        clock[0] += 2
        progress.report(60, {})
    assert "60/100" in (line := capsys.readouterr().err)
    assert "320 examples/s  8 s left" in line


def test_steps_alone_print_nothing(capsys):
    with closing(StepProgress("student", total_steps=3, start=0, batch_size=64)) as progress:
        for step in range(1, 4):
            progress.advance(step)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_shows_the_step_and_the_newest_values(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with closing(StepProgress("student", total_steps=100, start=5, batch_size=64)) as progress:
        progress.advance(10)
        progress.report(10, {"loss": 1.23456})
    shown = terminal.getvalue()
    assert "student" in shown
    assert "10/100" in shown
    assert "loss 1.235" in shown


def test_only_the_first_process_shows_anything(monkeypatch, capsys):
    monkeypatch.setattr("kd_jax.training.progress.jax.process_index", lambda: 1)
    with closing(StepProgress("student", total_steps=100, start=0, batch_size=64)) as progress:
        progress.advance(10)
        progress.report(10, {"loss": 1.0})
    assert capsys.readouterr().err == ""
