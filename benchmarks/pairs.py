"""Times two contenders in turns, and compares them with an interval.

Samples taken while other processes keep the machine busy are dropped.
"""

import time
from collections.abc import Callable

import numpy as np
import psutil

QUIET = 0.15
"""Cores that other processes may use during a sample that counts."""


def _busy_elsewhere(before, after, own_before, own_after, seconds: float) -> float:
    total = sum(
        getattr(after, k) - getattr(before, k) for k in ("user", "nice", "system", "irq", "softirq")
    )
    # Children that have ended count as own work: some contenders run in a process of their own.
    own = sum(
        getattr(own_after, k) - getattr(own_before, k)
        for k in ("user", "system", "children_user", "children_system")
    )
    return max(0.0, total - own) / seconds


def timed(run: Callable[[], None]) -> tuple[float, bool]:
    """Returns the seconds of one call, and whether the machine was quiet meanwhile."""
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
    """Times pairs of calls.

    Args:
      first: one contender.
      second: the other.
      pairs: how many pairs to keep.
      limit: how many pairs to try at most.

    Returns:
      [n, 2] seconds of the pairs in which both samples were quiet.
    """
    kept: list[tuple[float, float]] = []
    for number in range(limit):
        # The order alternates, so that neither always runs with the caches and clock that the other
        # left.
        order = (first, second) if number % 2 == 0 else (second, first)
        samples = [timed(run) for run in order]
        if all(quiet for _, quiet in samples):
            times = [seconds for seconds, _ in samples]
            kept.append((times[0], times[1]) if number % 2 == 0 else (times[1], times[0]))
        if len(kept) == pairs:
            break
    return np.array(kept).reshape(-1, 2)


def ratio(samples: np.ndarray) -> tuple[float, float, float]:
    """Returns the ratio of medians, first over second, and its bootstrap 95 % interval."""
    rng = np.random.default_rng(0)
    # Pairs are drawn as wholes: what slowed the machine down slowed both of a pair.
    draws = rng.integers(0, len(samples), size=(10_000, len(samples)))
    medians = np.median(samples[draws], axis=1)
    low, high = np.percentile(medians[:, 0] / medians[:, 1], [2.5, 97.5])
    center = np.median(samples, axis=0)
    return float(center[0] / center[1]), float(low), float(high)


def show(name: str, samples: np.ndarray, bound: float) -> bool:
    """Prints one ratio and whether it holds its bound; returns that.

    It holds if the interval's lower end doesn't exceed the bound.
    """
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
