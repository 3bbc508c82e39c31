"""Terms: what a student's objective is made of, one class each, its hyperparameters as fields.

A term weighs a loss of `kd_jax.losses` and says what it reads: `SoftTargetKL(weight=0.9,
temperature=4.0)`, in a config `dict(term="soft_target_kl", weight=0.9, temperature=4.0)`. A new
term is one class here and one line in `TERMS`."""

from collections.abc import Callable
from dataclasses import field, make_dataclass
from typing import Any

import jax

from kd_jax.objective.terms.attention import AttentionScoresMSE, RelationKL
from kd_jax.objective.terms.attribution import AttributionMatching
from kd_jax.objective.terms.features import (
    ActivationBoundary,
    AttentionTransfer,
    CosineDistance,
    FlowOfSolution,
    HiddenMSE,
    HierarchicalContext,
    NeuronSelectivity,
    NormalizedMSE,
)
from kd_jax.objective.terms.hyperparameters import of_loss
from kd_jax.objective.terms.logits import (
    DIST,
    BatchCorrelation,
    ClassCorrelation,
    CrossEntropy,
    DecoupledKD,
    DeiTHard,
    JensenShannon,
    PredictionTerm,
    ReverseKL,
    SkewKL,
    SkewReverseKL,
    SoftTargetKL,
    StandardizedKL,
    TopKKL,
    TotalVariation,
    UniversalLogitDistance,
)
from kd_jax.objective.terms.relations import (
    ContrastiveRepresentation,
    CorrelationCongruenceAdjacent,
    CorrelationCongruenceRBF,
    InfoNCE,
    ProbabilisticTransfer,
    RKDAngle,
    RKDDistance,
    SimilarityPreserving,
)
from kd_jax.objective.terms.responses import FactorTransfer, Overhaul, Review, Variational
from kd_jax.objective.terms.sets_and_numbers import (
    BinaryCrossEntropy,
    BinarySoftTargetKL,
    BoundedRegression,
    Huber,
    LogitMSE,
    SquaredError,
)
from kd_jax.objective.terms.term import BoundTerm, StepContext, Term, TermSpec

__all__ = [
    "DIST",
    "TERMS",
    "ActivationBoundary",
    "AttentionScoresMSE",
    "AttentionTransfer",
    "AttributionMatching",
    "BatchCorrelation",
    "BinaryCrossEntropy",
    "BinarySoftTargetKL",
    "BoundTerm",
    "BoundedRegression",
    "ClassCorrelation",
    "ContrastiveRepresentation",
    "CorrelationCongruenceAdjacent",
    "CorrelationCongruenceRBF",
    "CosineDistance",
    "CrossEntropy",
    "DecoupledKD",
    "DeiTHard",
    "FactorTransfer",
    "FlowOfSolution",
    "HiddenMSE",
    "HierarchicalContext",
    "Huber",
    "InfoNCE",
    "JensenShannon",
    "LogitMSE",
    "NeuronSelectivity",
    "NormalizedMSE",
    "Overhaul",
    "ProbabilisticTransfer",
    "RKDAngle",
    "RKDDistance",
    "RelationKL",
    "ReverseKL",
    "Review",
    "SimilarityPreserving",
    "SkewKL",
    "SkewReverseKL",
    "SoftTargetKL",
    "SquaredError",
    "StandardizedKL",
    "StepContext",
    "Term",
    "TermSpec",
    "TopKKL",
    "TotalVariation",
    "UniversalLogitDistance",
    "Variational",
    "register_term",
]

Build = type[Term] | Callable[..., BoundTerm]
"""A class of terms, or a function `(spec, **options) -> BoundTerm`."""

TERMS: dict[str, Build] = {
    "activation_boundary": ActivationBoundary,
    "attention_scores_mse": AttentionScoresMSE,
    "attention_transfer": AttentionTransfer,
    "attribution_matching": AttributionMatching,
    "batch_correlation": BatchCorrelation,
    "binary_cross_entropy": BinaryCrossEntropy,
    "binary_soft_target_kl": BinarySoftTargetKL,
    "bounded_regression": BoundedRegression,
    "class_correlation": ClassCorrelation,
    "contrastive_representation": ContrastiveRepresentation,
    "correlation_congruence_adjacent": CorrelationCongruenceAdjacent,
    "correlation_congruence_rbf": CorrelationCongruenceRBF,
    "cosine_distance": CosineDistance,
    "cross_entropy": CrossEntropy,
    "decoupled_kd": DecoupledKD,
    "deit_hard": DeiTHard,
    "dist": DIST,
    "factor_transfer": FactorTransfer,
    "flow_of_solution": FlowOfSolution,
    "hidden_mse": HiddenMSE,
    "hierarchical_context": HierarchicalContext,
    "huber": Huber,
    "info_nce": InfoNCE,
    "jensen_shannon": JensenShannon,
    "logit_mse": LogitMSE,
    "neuron_selectivity": NeuronSelectivity,
    "normalized_mse": NormalizedMSE,
    "overhaul": Overhaul,
    "probabilistic_transfer": ProbabilisticTransfer,
    "relation_kl": RelationKL,
    "reverse_kl": ReverseKL,
    "review": Review,
    "rkd_angle": RKDAngle,
    "rkd_distance": RKDDistance,
    "similarity_preserving": SimilarityPreserving,
    "skew_kl": SkewKL,
    "skew_reverse_kl": SkewReverseKL,
    "soft_target_kl": SoftTargetKL,
    "squared_error": SquaredError,
    "standardized_kl": StandardizedKL,
    "topk_kl": TopKKL,
    "total_variation": TotalVariation,
    "universal_logit_distance": UniversalLogitDistance,
    "variational": Variational,
}
"""Name in configs -> term."""

_OWN = frozenset(TERMS)


def register_term(name: str, build: Build | Callable[..., jax.Array]) -> Build:
    """Makes a term of one's own usable by its name in configs and in `Distiller`.

    Args:
      name: in configs, `dict(term=NAME, weight=..., **options)`. Registering it again replaces it,
        as when a config file is loaded twice.
      build: a subclass of `Term`; a function `(spec: TermSpec, **options) -> BoundTerm`; or a plain
        loss `(student_logits, teacher_logits, *, hyperparameters) -> [B]`.

    Returns:
      What stands in the registry now.

    Raises:
      ValueError: if the name is that of a term of kd_jax, or isn't a word.
    """
    if name in _OWN or not name.isidentifier():
        raise ValueError(f"a term of your own can't be named {name!r}; kd_jax has {sorted(_OWN)}")
    if not callable(build):
        raise ValueError(f"term {name!r} must be a class or a function, got {build!r}")
    # A plain loss of logits is the commonest case, and needs no class.
    made: Any = build
    if not isinstance(build, type) and _is_loss(build):
        made = _of_loss(name, build)
    TERMS[name] = made
    return made


def _is_loss(function: Callable[..., Any]) -> bool:
    """Tells whether a function takes two arrays by position, where a builder takes a spec."""
    import inspect

    # Hyperparameters are keyword-only, so two positional parameters are the two models' logits.
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return sum(parameter.kind in kinds for parameter in parameters) == 2


def _of_loss(name: str, loss: Callable[..., Any]) -> type[Term]:
    """Makes a term of predictions of a plain loss; its hyperparameters become fields."""
    fields = [
        (key, Any, field(default=parameter.default)) for key, parameter in of_loss(loss).items()
    ]
    namespace = {"loss": staticmethod(loss), "__doc__": loss.__doc__}
    return make_dataclass(
        name, fields, bases=(PredictionTerm,), frozen=True, kw_only=True, namespace=namespace
    )
