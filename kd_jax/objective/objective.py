"""A model's objective: a weighted sum of named terms, masked and averaged once over the global
batch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax

from kd_jax.core.options import call_with_options, choose
from kd_jax.core.rng import fold_name
from kd_jax.core.types import Batch, Mean, ModelOutput
from kd_jax.objective.schedules import Schedule, extremes, make_value
from kd_jax.objective.terms import TERMS, StepContext, Term, TermSpec
from kd_jax.objective.terms.term import LogitsOf

PyTree = Any


@dataclass(frozen=True)
class Objective:
    """Named terms and their weights; called, it gives every term's mean over a microbatch.

    Attributes:
      terms: name -> `Term`.
      weights: name -> weight by step.
    """

    terms: Mapping[str, Term]
    weights: Mapping[str, Schedule]

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        """Trained parameters and memory of the terms that have any, by term."""
        both = {name: term.init(fold_name(key, name)) for name, term in self.terms.items()}

        def held(part):
            return {name: pair[part] for name, pair in both.items() if jax.tree.leaves(pair[part])}

        return held(0), held(1)

    def normalizers(self, batch: Batch) -> dict[str, jax.Array]:
        """How many values of each term count in a batch, before any model has run."""
        return {name: term.count(batch) for name, term in self.terms.items()}

    def total(
        self, means: Mapping[str, Mean], counts: Mapping[str, jax.Array], step: Any
    ) -> jax.Array:
        """[] the weighted sum of totals over `counts`; a term that counts nothing is 0.

        With the counts of the global batch this is a microbatch's share of the loss, so shares and
        their gradients simply add up over microbatches and devices."""
        shares = (
            self.weights[name](step) * mean.total / jax.numpy.maximum(counts[name], 1)
            for name, mean in means.items()
        )
        return sum(shares, start=jax.numpy.zeros(()))

    def __call__(
        self,
        params: PyTree,
        memory: PyTree,
        student: ModelOutput,
        teachers: Mapping[str, ModelOutput],
        batch: Batch,
        *,
        step: Any,
        key: jax.Array,
        axis_name: str | None = None,
        student_logits: LogitsOf | None = None,
        teacher_logits: Mapping[str, LogitsOf] | None = None,
    ) -> tuple[dict[str, Mean], PyTree]:
        """Every term's mean and the terms' new memory.

        Args:
          params: trained parameters, by term.
          memory: other state, by term.
          student: the student's output on the microbatch.
          teachers: each teacher's, by name.
          batch: the microbatch.
          step: [] training step, for schedules.
          key: for terms that draw.
          axis_name: pmap's axis; a "batch" term then sees all devices' examples, in the global
            batch's order.
          student_logits: the student, for terms that ask about other examples.
          teacher_logits: each teacher, likewise.
        """
        local = StepContext(
            student, teachers, batch, step, key, axis_name, student_logits, teacher_logits or {}
        )
        together = (
            local.gathered() if any(term.kind == "batch" for term in self.terms.values()) else local
        )
        means, kept = {}, {}
        for name, term in self.terms.items():
            seen = replace(together if term.kind == "batch" else local, key=fold_name(key, name))
            means[name], new = term.apply(params.get(name, {}), memory.get(name, {}), seen)
            kept |= {name: new} if name in memory else {}
        return means, kept


def make_objective(spec: Mapping[str, Mapping[str, Any]], site: TermSpec) -> Objective:
    """Builds an objective from its config section.

    Args:
      spec: name -> `dict(term=..., weight=..., **hyperparameters)`; weight a number >= 0 or a
        schedule.
      site: what the terms may read.

    Raises:
      ValueError: for no terms, an unknown term, layer, teacher or hyperparameter, a value out of
        range; names the term and what exists.
    """
    if not spec:
        raise ValueError("an objective needs at least one term")
    terms, weights = {}, {}
    for name, section in spec.items():
        build = choose(TERMS, section, f"term of objective {name!r}:", key="term")
        if "weight" not in section:
            raise ValueError(f"objective {name!r} needs a weight")
        weight = section["weight"]
        weights[name] = make_value(weight, f"weight of objective {name!r}")
        if any(bound < 0 for bound in extremes(weight)):
            raise ValueError(f"weight of objective {name!r} must not be negative, got {weight}")
        options = {key: value for key, value in section.items() if key != "weight"}
        try:
            terms[name] = call_with_options(build, options, "term", site, key="term")
        except ValueError as error:
            raise ValueError(f"objective {name!r}: {error}") from None
    return Objective(terms, weights)
