r"""Measures how fast texts are cleaned, and in how much memory, in one process.

  uv run benchmarks/cleaning.py [--dir=TFDS_DATA_DIR] [--rows=16000,64000]

All checks run, the search for near duplicates included.

The texts are sentences of TFDS's `glue/sst2` if it is prepared, else docstrings cut to their first
words. Each size runs in a process of its own that computes on one core; its memory is the most that
it held beyond the texts themselves.
"""

import argparse
import multiprocessing
import os
import resource
import time

import psutil

from kd_jax.data.cleaning import Limits, clean
from kd_jax.data.open import open_source

LIMITS = Limits(max_characters=20_000, near_duplicate=0.8)
WORDS = 10
"""Words kept of a docstring, as many as an SST-2 sentence has."""


def read(dir: str | None) -> tuple[str, list[str], list[int]]:
    """Returns the dataset's name, the sentences and their labels."""
    options = {"dir": dir, "label": "label", "max_rejected": 0}
    try:
        source = open_source("glue/sst2", "train", inputs="sentence", **options)
    except ValueError:
        source = open_source("docstrings", "train", inputs="text", **options)
    return (
        source.name,
        [
            " ".join(text.split()[:WORDS]) if "docstrings" in source.name else text
            for text in source.inputs
        ],
        source.labels.tolist(),
    )


def measure(texts: list[str], labels: list[int], mode: str) -> tuple[float, float, float, int]:
    """Cleans texts on one core.

    Returns:
      Seconds on the clock, seconds of the processor, peak MB beyond the start, and the number of
      rows that something was found in.
    """
    # One core, so that rows a second don't depend on how many cores NumPy would use.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    before, began, worked = (
        psutil.Process().memory_info().rss,
        time.perf_counter(),
        time.process_time(),
    )
    found = clean(texts, labels, modality="text", mode=mode, limits=LIMITS)
    seconds, work = time.perf_counter() - began, time.process_time() - worked
    # The peak is the process's own since it began: that is why each measurement has a new process.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return seconds, work, (peak - before) / 1e6, len(found.quarantined)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", default=None)
    parser.add_argument("--rows", default="16000,64000")
    arguments = parser.parse_args()
    name, texts, labels = read(arguments.dir)
    for count in map(int, arguments.rows.split(",")):
        rows, targets = texts[:count], labels[:count]
        letters = sum(map(len, rows)) / len(rows)
        for mode in ("report", "repair"):
            # Spawned and not forked: a fork would start with this process's memory as its peak.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, work, peak, found = pool.apply(measure, (rows, targets, mode))
            print(
                f"{name}, {len(rows)} rows of {letters:.0f} characters, {mode}:"
                f" {len(rows) / work:,.0f} rows a second"
                f" of one core ({len(rows) / seconds:,.0f} on the clock), {peak:.0f} MB, something"
                f" found in {found}"
            )


if __name__ == "__main__":
    main()
