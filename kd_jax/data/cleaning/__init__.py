"""Finds bad and hostile rows of the training data; reports them, repairs them or sets them aside.

`text.py`, `images.py` and `duplicates.py` find what is wrong with rows, `clean.py` decides what
becomes of them, `training_split.py` applies that to a config. The names of reasons are written to
results and read by users, so they must not change.
"""

from kd_jax.data.cleaning.clean import MODES, REASONS, Cleaned, Limits, clean
from kd_jax.data.cleaning.confident_learning import find_label_errors
from kd_jax.data.cleaning.spectral_signatures import highest_in_class, spectral_signatures
from kd_jax.data.cleaning.training_split import choose_mode, clean_training, make_limits

__all__ = [
    "MODES",
    "REASONS",
    "Cleaned",
    "Limits",
    "choose_mode",
    "clean",
    "clean_training",
    "find_label_errors",
    "highest_in_class",
    "make_limits",
    "spectral_signatures",
]
