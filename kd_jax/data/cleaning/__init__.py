"""Bad and hostile rows of training data: found, told, repaired or set aside."""

from kd_jax.data.cleaning.labels import find_label_errors
from kd_jax.data.cleaning.poison import highest_in_class, spectral_signatures
from kd_jax.data.cleaning.quarantine import MODES, REASONS, Cleaned, Limits, clean
from kd_jax.data.cleaning.training import choose_mode, clean_training, make_limits

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
