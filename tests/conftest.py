"""Eight simulated devices and JAX's strict switches, for every test."""

import os
import tempfile
from pathlib import Path

# XLA's CPU collectives starve on a machine with fewer cores than devices unless its thread pool is
# larger than both.
os.environ.setdefault("NPROC", "32")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of a test's time is XLA's compilation of a tiny program, which takes half as long
# without its optimizations. Set to 0, the programs are compiled as users run them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import jaxtyping
import numpy as np
import pytest

from kd_jax.training import xla_flags

# The shapes in annotations are checked at every call, in tests only.
jaxtyping.install_import_hook(["kd_jax.losses", "kd_jax.models"], "typechecker.check")

xla_flags.prepare_simulated()
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Many tests train the same tiny models; each of them is compiled once.
jax.config.update(
    "jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / "kd_jax-tests-compiled")
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture
def own_refusals():
    """Switches the check of annotations off, for tests of what a function itself refuses."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def make_batch():
    """Builds a batch of what it is told: `make_batch(views, rows=6, classes=4, **other fields)`;
    all rows count."""
    from kd_jax.core.types import Batch

    def make(views, *, rows=6, classes=4, **fields):
        everyone = np.ones(rows, bool)
        labels = np.random.default_rng(0).integers(0, classes, rows).astype(np.int32)
        known = {
            "index": np.arange(rows, dtype=np.int32),
            "labels": labels,
            "label_valid": everyone,
            "valid": everyone,
        }
        return Batch(views=views, **(known | fields))

    return make
