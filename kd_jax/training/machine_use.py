"""What a training takes of the machine: examples a second, and memory."""

import resource
import sys
import time
from pathlib import Path

import jax

MACHINE = "machine/"
"""Before the names of what is measured, which no two runs have alike."""

STATM = Path("/proc/self/statm")


class MachineUse:
    """Measures a training between its log lines.

    Args:
      batch_size: examples a step, over all devices.
      step: that the training goes on from.
    """

    def __init__(self, batch_size: int, step: int):
        self._batch_size, self._step, self._since = batch_size, step, time.perf_counter()

    def leave_out(self, seconds: float) -> None:
        """Takes seconds that were no training, such as an evaluation's, out of the measurement."""
        self._since += seconds

    def measure(self, step: int) -> dict[str, float]:
        """Returns examples a second since the last measurement, and memory in bytes.

        The first measurement after a start includes the compilation.
        """
        now = time.perf_counter()
        rate = (step - self._step) * self._batch_size / max(now - self._since, 1e-9)
        self._step, self._since = step, now
        return {f"{MACHINE}examples_per_second": rate} | memory()


def memory() -> dict[str, float]:
    """Returns the most that a device of this process held so far; where the devices don't say, what
    the process holds in the machine's own memory now."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each]
    if peaks:
        return {f"{MACHINE}device_memory_peak_bytes": float(max(peaks))}
    return {f"{MACHINE}resident_bytes": float(_resident())}


def _resident() -> int:
    if STATM.is_file():
        return int(STATM.read_text().split()[1]) * resource.getpagesize()
    # Elsewhere only the most so far is known, on macOS in bytes.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
