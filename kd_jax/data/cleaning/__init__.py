"""Bad and hostile rows of training data: found, told, repaired or set aside."""

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
