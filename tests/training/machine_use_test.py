import time
from types import SimpleNamespace

import jax
import pytest

from kd_jax.training import machine_use
from kd_jax.training.machine_use import MachineUse, memory


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def rate(machine, step):
    return machine.measure(step)["machine/examples_per_second"]


def test_examples_a_second_are_of_the_steps_since_the_last_measurement(clock):
    machine = MachineUse(batch_size=32, step=10)
    clock[0] += 2
    assert rate(machine, 15) == 80
    clock[0] += 4
    assert rate(machine, 20) == 40


def test_time_that_was_no_training_is_left_out(clock):
    machine = MachineUse(batch_size=32, step=0)
    clock[0] += 5
    machine.leave_out(4)
    assert rate(machine, 1) == 32


def devices(monkeypatch, *stats):
    found = [SimpleNamespace(memory_stats=lambda each=each: each) for each in stats]
    monkeypatch.setattr(jax, "local_devices", lambda: found)


def test_the_fullest_devices_peak_is_told_where_devices_say_it(monkeypatch):
    devices(monkeypatch, {"peak_bytes_in_use": 5}, {"peak_bytes_in_use": 7}, {"bytes_in_use": 9})
    assert memory() == {"machine/device_memory_peak_bytes": 7}


@pytest.mark.parametrize("known", [True, False], ids=["statm", "getrusage"])
def test_elsewhere_the_processs_own_memory_is_told(monkeypatch, tmp_path, known):
    devices(monkeypatch, None)
    if not known:
        monkeypatch.setattr(machine_use, "STATM", tmp_path / "statm")
    held = memory()["machine/resident_bytes"]
    # No process with JAX is smaller, and none of these tests as large.
    assert 50e6 < held < 100e9
