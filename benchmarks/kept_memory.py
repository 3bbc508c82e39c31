"""How much faster a step on a CPU is where glibc keeps the memory that the step before has freed.

  uv run benchmarks/kept_memory.py [--rounds=5]

A training step of 2 blocks of MiniLM's width, batch 128, 32 tokens (as in `stored_outputs.py`), in
processes that take turns: one that calls `kd_jax.training.host_memory.keep`, one that doesn't. Of
each: the median of 30 steps after 10, the pages that the system hands out a step, and the most
memory that the process held. Bound: 1, so that it is never slower."""

import argparse
import json
import resource
import subprocess
import sys

import numpy as np
from pairs import show, timed

WARM, STEPS = 10, 30
BOUND = 1.0


def measure(*, keep: bool) -> dict[str, float]:
    """Times steps in this process."""
    from kd_jax.training import host_memory, xla_flags

    if keep and not host_memory.keep():
        raise SystemExit("memory isn't kept on this machine; see kd_jax/training/host_memory.py")
    xla_flags.prepare(text=True)
    from stored_outputs import step

    call = step()
    for _ in range(WARM):
        call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    samples = [timed(call) for _ in range(STEPS)]
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": float(np.median([seconds for seconds, _ in samples])),
        "quiet": float(np.mean([quiet for _, quiet in samples])),
        "pages": (used.ru_minflt - before) / STEPS,
        "megabytes": used.ru_maxrss / 1024,
    }


def child(name: str) -> dict[str, float]:
    """Measures in a process of its own."""
    command = [sys.executable, __file__, "--child", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Prints each sample, and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=("keep", "leave"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(keep=options.child == "keep")))
        return
    pairs = []
    for number in range(options.rounds):
        order = ("keep", "leave") if number % 2 == 0 else ("leave", "keep")
        found = {name: child(name) for name in order}
        for name, each in found.items():
            print(
                f"{name}: {1000 * each['seconds']:.0f} ms a step, {each['pages']:,.0f} pages,"
                f" {each['megabytes']:,.0f} MB, {each['quiet']:.0%} of the steps quiet",
                flush=True,
            )
        pairs.append([found[name]["seconds"] for name in ("keep", "leave")])
    sys.exit(0 if show("kept / given back", np.array(pairs), BOUND) else 1)


if __name__ == "__main__":
    main()
