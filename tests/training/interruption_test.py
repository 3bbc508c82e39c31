import signal

import pytest

from kd_jax.training.interruption import StopSignal


@pytest.fixture(autouse=True)
def handlers():
    """Puts the signals' handlers back."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def test_the_first_ctrl_c_asks_and_the_second_interrupts(capfd):
    stop = StopSignal()
    signal.raise_signal(signal.SIGINT)
    assert stop.asked(agree=True)
    assert "Ctrl-C again ends at once" in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_ctrl_c_after_the_run_is_the_programs_own():
    stop = StopSignal()
    del stop
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_every_one_that_is_alive_is_told():
    outer, inner = StopSignal(), StopSignal()
    signal.raise_signal(signal.SIGINT)
    assert outer.asked(agree=True)
    assert inner.asked(agree=True)


def test_whoever_ignores_ctrl_c_goes_on_ignoring_it():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = StopSignal()
    signal.raise_signal(signal.SIGINT)
    assert not stop.asked(agree=True)
