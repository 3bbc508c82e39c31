"""Eight simulated devices and JAX's strict switches, for every test."""

import os

# XLA's CPU collectives starve on a machine with fewer cores than devices unless its thread pool is larger than both.
os.environ.setdefault("NPROC", "32")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
