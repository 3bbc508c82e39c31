"""The terms of an objective: thin adapters from a loss function to what it reads of student,
  teacher and batch.

A new loss is one function in `kd_jax.losses`, its line in `TERMS`, and an adapter of its own only
where it reads what no other loss does."""

from collections.abc import Callable

from kd_jax import losses
from kd_jax.objective.terms.attention import of_scores
from kd_jax.objective.terms.attribution import attribution_matching
from kd_jax.objective.terms.features import flow_of_solution, of_maps, of_vectors
from kd_jax.objective.terms.logits import (
    cross_entropy,
    decoupled_kd,
    of_batch_of_predictions,
    of_predictions,
    topk_kl,
)
from kd_jax.objective.terms.relations import contrastive_representation, of_relations
from kd_jax.objective.terms.responses import factor_transfer, overhaul, review, variational
from kd_jax.objective.terms.term import StepContext, Term, TermSpec

__all__ = ["TERMS", "StepContext", "Term", "TermSpec"]

TERMS: dict[str, Callable[..., Term]] = {
    "activation_boundary": of_maps(losses.activation_boundary, equal=True),
    "attention_scores_mse": of_scores(losses.attention_scores_mse),
    "attention_transfer": of_maps(losses.attention_transfer),
    "attribution_matching": attribution_matching,
    "batch_correlation": of_batch_of_predictions(losses.batch_correlation),
    "class_correlation": of_batch_of_predictions(losses.class_correlation),
    "contrastive_representation": contrastive_representation,
    "correlation_congruence_adjacent": of_relations(
        losses.correlation_congruence_adjacent, equal=True
    ),
    "correlation_congruence_rbf": of_relations(losses.correlation_congruence_rbf),
    "cosine_distance": of_vectors(losses.cosine_distance),
    "cross_entropy": cross_entropy,
    "decoupled_kd": decoupled_kd,
    "deit_hard": of_predictions(losses.deit_hard),
    "dist": of_batch_of_predictions(losses.dist),
    "factor_transfer": factor_transfer,
    "flow_of_solution": flow_of_solution,
    "hidden_mse": of_vectors(losses.hidden_mse),
    "hierarchical_context": of_maps(losses.hierarchical_context, equal=True),
    "info_nce": of_relations(losses.info_nce, equal=True),
    "jensen_shannon": of_predictions(losses.jensen_shannon),
    "neuron_selectivity": of_maps(losses.neuron_selectivity),
    "normalized_mse": of_vectors(losses.normalized_mse),
    "overhaul": overhaul,
    "probabilistic_transfer": of_relations(losses.probabilistic_transfer),
    "relation_kl": of_scores(losses.relation_kl),
    "reverse_kl": of_predictions(losses.reverse_kl),
    "review": review,
    "rkd_angle": of_relations(losses.rkd_angle),
    "rkd_distance": of_relations(losses.rkd_distance),
    "similarity_preserving": of_relations(losses.similarity_preserving),
    "skew_kl": of_predictions(losses.skew_kl),
    "skew_reverse_kl": of_predictions(losses.skew_reverse_kl),
    "soft_target_kl": of_predictions(losses.soft_target_kl),
    "standardized_kl": of_predictions(losses.standardized_kl),
    "topk_kl": topk_kl,
    "total_variation": of_predictions(losses.total_variation),
    "universal_logit_distance": of_predictions(losses.universal_logit_distance, any_classes=True),
    "variational": variational,
}
"""Name -> constructor of a term: `(site, **options)`, the options being what it reads and the
loss's hyperparameters. """
