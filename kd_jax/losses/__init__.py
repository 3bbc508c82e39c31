"""Distillation losses: pure functions of arrays, student first, teacher second, results unreduced.

Each computes in at least float32, stops the gradient at the teacher itself, and leaves masking and
averaging to `kd_jax.objective.objective`; one that must itself reduce over examples or positions
takes `where`."""

from kd_jax.losses.attention import attention_scores_mse, relation_kl
from kd_jax.losses.binary import binary_cross_entropy, binary_soft_target_kl
from kd_jax.losses.contrastive import (
    ContrastMemory,
    contrastive_representation,
    info_nce,
    init_contrast_memory,
    sample_negatives,
)
from kd_jax.losses.feature_distributions import (
    VARIATIONAL_START,
    activation_boundary,
    overhaul,
    variational,
)
from kd_jax.losses.feature_maps import (
    attention_transfer,
    factor_transfer,
    flow_of_solution,
    hierarchical_context,
    neuron_selectivity,
)
from kd_jax.losses.features import cosine_distance, hidden_mse, normalized_mse
from kd_jax.losses.fused import Head, fused_jensen_shannon, fused_reverse_kl, fused_soft_target_kl
from kd_jax.losses.logit_structure import (
    batch_correlation,
    class_correlation,
    decoupled_kd,
    dist,
    standardized_kl,
)
from kd_jax.losses.logits import (
    cross_entropy,
    deit_hard,
    jensen_shannon,
    reverse_kl,
    skew_kl,
    skew_reverse_kl,
    soft_target_kl,
    total_variation,
)
from kd_jax.losses.regression import bounded_regression, huber, logit_mse, squared_error
from kd_jax.losses.relations import (
    correlation_congruence_adjacent,
    correlation_congruence_rbf,
    probabilistic_transfer,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
)
from kd_jax.losses.vocabulary import topk_kl, universal_logit_distance

__all__ = [
    "VARIATIONAL_START",
    "ContrastMemory",
    "Head",
    "activation_boundary",
    "attention_scores_mse",
    "attention_transfer",
    "batch_correlation",
    "binary_cross_entropy",
    "binary_soft_target_kl",
    "bounded_regression",
    "class_correlation",
    "contrastive_representation",
    "correlation_congruence_adjacent",
    "correlation_congruence_rbf",
    "cosine_distance",
    "cross_entropy",
    "decoupled_kd",
    "deit_hard",
    "dist",
    "factor_transfer",
    "flow_of_solution",
    "fused_jensen_shannon",
    "fused_reverse_kl",
    "fused_soft_target_kl",
    "hidden_mse",
    "hierarchical_context",
    "huber",
    "info_nce",
    "init_contrast_memory",
    "jensen_shannon",
    "logit_mse",
    "neuron_selectivity",
    "normalized_mse",
    "overhaul",
    "probabilistic_transfer",
    "relation_kl",
    "reverse_kl",
    "rkd_angle",
    "rkd_distance",
    "sample_negatives",
    "similarity_preserving",
    "skew_kl",
    "skew_reverse_kl",
    "soft_target_kl",
    "squared_error",
    "standardized_kl",
    "topk_kl",
    "total_variation",
    "universal_logit_distance",
    "variational",
]
