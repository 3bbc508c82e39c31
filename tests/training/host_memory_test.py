"""Memory that was freed comes back without the system."""

import os
import resource
import subprocess
import sys

import pytest

from kd_jax.training import host_memory

STEPS = """
import sys
from kd_jax.training import host_memory

kept = host_memory.keep() if sys.argv[1] == "keep" else False
import resource
import jax, jax.numpy as jnp

@jax.jit
def step(x):
    y = jnp.sin(x)[:, None] * jnp.ones(256)
    return (y @ jnp.ones((256, 4)))[:, 0] / 256

x = jnp.ones(60_000)
counts = [0]
for _ in range(31):
    x = step(x).block_until_ready()
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(kept, sorted(after - before for before, after in zip(counts, counts[1:]))[15])
"""


def faults(how, **environment):
    """Whether memory was kept, and the pages that most steps fault in."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS, how],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
    )
    kept, count = done.stdout.split()
    return kept == "True", int(count)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's own")
def test_a_step_takes_the_memory_of_the_step_before():
    pages = 60_000 * 256 * 4 // resource.getpagesize()
    kept, count = faults("keep")
    assert kept
    assert count < pages / 100
    assert faults("leave")[1] > pages / 2


def test_a_small_machine_takes_no_more_than_it_must(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 4096 if "SIZE" in name else 2**21)
    assert not host_memory.keep()


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_the_user_has_set_stays(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert not host_memory.keep()
