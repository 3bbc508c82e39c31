"""Distillation losses: pure functions of arrays, student first, teacher second, results unreduced.

Each computes in at least float32, stops the gradient at the teacher itself, and leaves masking and averaging to
`kd_jax.objective`.
"""

from kd_jax.losses.features import hidden_mse
from kd_jax.losses.logits import cross_entropy, soft_target_kl

__all__ = ["cross_entropy", "hidden_mse", "soft_target_kl"]
