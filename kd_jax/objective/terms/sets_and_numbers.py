"""Terms of classes that are there or not, each by itself, and of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax import losses
from kd_jax.core.types import PyTree
from kd_jax.objective.terms.hyperparameters import Hyperparameter, Settings
from kd_jax.objective.terms.logits import PredictionTerm, TeacherLogits
from kd_jax.objective.terms.term import BoundTerm, LossTerm, StepContext, Term, TermSpec, TermValues


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy(Term):
    """Binary cross-entropy with the labels, a mean over the classes; see `CrossEntropy`.

    Attributes:
      positive_weights: how much a class that is there counts, one number a class; None: 1 each.
    """

    needs = "sets"
    positive_weights: Sequence[float] | None = None

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks the weights; see `Term.bind`."""
        weights, classes = self.positive_weights, spec.student.logits.shape[-1]
        if weights is not None and (len(weights) != classes or not all(w > 0 for w in weights)):
            raise ValueError(
                f"positive_weights must be {classes} positive numbers, one a class, got"
                f" {tuple(weights)}"
            )
        given: Any = 1.0 if weights is None else jnp.asarray(weights, jnp.float32)

        def compute(_params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            labels = jnp.asarray(context.batch.labels)
            logits = context.student.logits
            return losses.binary_cross_entropy(logits, labels, positive_weights=given), state

        return BoundTerm("example", compute, spec.view, labelled=True)


@dataclass(frozen=True, kw_only=True)
class BinarySoftTargetKL(PredictionTerm):
    """KL divergence from the teacher's soft targets, class by class, a mean over the classes."""

    needs = "sets"
    loss = staticmethod(losses.binary_soft_target_kl)
    temperature: Hyperparameter = 1.0


@dataclass(frozen=True, kw_only=True)
class LogitMSE(PredictionTerm):
    """Mean squared difference of the outputs, whatever they stand for (Ba and Caruana, 2014)."""

    needs = None
    loss = staticmethod(losses.logit_mse)


@dataclass(frozen=True, kw_only=True)
class _OfLabels(LossTerm):
    """A loss between the student's numbers and the labels."""

    needs = "numbers"

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks the hyperparameters; see `Term.bind`."""
        if self.source is not None:
            raise ValueError("it learns from labels and has no source; logit_mse has")
        shape = spec.student.logits
        settings = Settings(self.loss, self.hyperparameters(), shape, shape)

        def compute(_params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            labels = jnp.asarray(context.batch.labels)
            values = self.loss(context.student.logits, labels, **settings.at(context.step))
            return values, state

        return BoundTerm("example", compute, spec.view, labelled=True)


@dataclass(frozen=True, kw_only=True)
class SquaredError(_OfLabels):
    """Mean squared error with the labels; examples without one are left out."""

    loss = staticmethod(losses.squared_error)


@dataclass(frozen=True, kw_only=True)
class Huber(_OfLabels):
    """Huber's loss with the labels; examples without one are left out (Huber, 1964)."""

    loss = staticmethod(losses.huber)
    delta: Hyperparameter = 1.0


@dataclass(frozen=True, kw_only=True)
class BoundedRegression(LossTerm):
    """Squared error with the labels until it is below the teacher's (Chen et al., 2017)."""

    needs = "numbers"
    loss = staticmethod(losses.bounded_regression)
    margin: Hyperparameter = 0.0

    def bind(self, spec: TermSpec) -> BoundTerm:
        """Checks shapes and the margin; see `Term.bind`."""
        logits = TeacherLogits(spec, self.source)
        logits.require_equal_classes()
        shape = jax.ShapeDtypeStruct(logits.shapes[0].shape, jnp.float32)
        settings = Settings(self.loss, self.hyperparameters(), *logits.shapes, shape)

        def compute(_params: PyTree, state: PyTree, context: StepContext) -> TermValues:
            labels = jnp.asarray(context.batch.labels)
            values = self.loss(*logits.read(context), labels, **settings.at(context.step))
            return values, state

        return BoundTerm("example", compute, spec.view, labelled=True)
