"""Interleaved timing: contenders take turns, samples with a busy machine are dropped, ratios come
with an interval."""

import time
from collections.abc import Callable

import numpy as np
import psutil

QUIET = 0.15
"""Cores that other processes may use during a sample."""


def _busy_elsewhere(before, after, own_before, own_after, seconds: float) -> float:
    total = sum(
        getattr(after, k) - getattr(before, k) for k in ("user", "nice", "system", "irq", "softirq")
    )
    own = (own_after.user - own_before.user) + (own_after.system - own_before.system)
    return max(0.0, total - own) / seconds


def timed(run: Callable[[], None]) -> tuple[float, bool]:
    """Seconds of one call, and whether the machine was quiet meanwhile."""
    process = psutil.Process()
    before, own_before, began = psutil.cpu_times(), process.cpu_times(), time.perf_counter()
    run()
    seconds = time.perf_counter() - began
    elsewhere = _busy_elsewhere(
        before, psutil.cpu_times(), own_before, process.cpu_times(), seconds
    )
    return seconds, elsewhere < QUIET


def interleave(
    first: Callable[[], None], second: Callable[[], None], *, pairs: int, limit: int
) -> np.ndarray:
    """[n, 2] seconds of pairs in which both samples were quiet; stops at `pairs` of them or after
    `limit` tries."""
    kept: list[tuple[float, float]] = []
    for number in range(limit):
        order = (first, second) if number % 2 == 0 else (second, first)
        samples = [timed(run) for run in order]
        if all(quiet for _, quiet in samples):
            times = [seconds for seconds, _ in samples]
            kept.append((times[0], times[1]) if number % 2 == 0 else (times[1], times[0]))
        if len(kept) == pairs:
            break
    return np.array(kept).reshape(-1, 2)


def ratio(samples: np.ndarray) -> tuple[float, float, float]:
    """Ratio of medians, first over second, with a bootstrap 95 % interval over pairs."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(samples), size=(10_000, len(samples)))
    medians = np.median(samples[draws], axis=1)
    low, high = np.percentile(medians[:, 0] / medians[:, 1], [2.5, 97.5])
    center = np.median(samples, axis=0)
    return float(center[0] / center[1]), float(low), float(high)


def show(name: str, samples: np.ndarray, bound: float) -> bool:
    """Prints one ratio against its bound, which holds when the interval's lower end is under it."""
    if len(samples) < 5:
        print(f"{name}: only {len(samples)} quiet pairs; the machine is too busy")
        return False
    value, low, high = ratio(samples)
    times = " and ".join(f"{1000 * t:.1f} ms" for t in np.median(samples, axis=0))
    verdict = "holds" if low <= bound else "DOES NOT HOLD"
    print(
        f"{name}: {value:.3f} [{low:.3f}, {high:.3f}] of {len(samples)} pairs ({times}); bound"
        f" {bound}: {verdict}"
    )
    return low <= bound
