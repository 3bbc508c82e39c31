"""Configs: an experiment's keys and defaults, inheritance, names, order and identity.

Reads no data and builds no model. A new key is one line in `defaults.py` and one in `schema.py`.
"""

from kd_jax.config.defaults import HARD, soft_targets
from kd_jax.config.experiment import experiment

__all__ = ["HARD", "experiment", "soft_targets"]
