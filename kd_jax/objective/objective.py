"""A model's objective: a weighted sum of named terms, masked and averaged over the global batch."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax.core.option_types import check_types, hints_of
from kd_jax.core.options import call_with_options, check_keys, choose, options_of
from kd_jax.core.rng import fold_name
from kd_jax.core.types import Batch, Mean, PyTree
from kd_jax.objective.schedules import Schedule, extremes, make_value
from kd_jax.objective.terms import TERMS, BoundTerm, StepContext, Term, TermSpec
from kd_jax.objective.terms.hyperparameters import Hyperparameter
from kd_jax.tasks import Task


@dataclass(frozen=True)
class Objective:
    """Named terms and their weights.

    Attributes:
      terms: name -> term.
      weights: name -> weight by step.
    """

    terms: Mapping[str, BoundTerm]
    weights: Mapping[str, Schedule]

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        """Returns trained parameters and state of the terms that have any, by term."""
        # A key by the term's name: adding a term changes no other's first parameters.
        both = {name: term.init(fold_name(key, name)) for name, term in self.terms.items()}

        # Most terms have neither; left out, they leave no empty entries in the training state.
        def present(part: int) -> dict[str, PyTree]:
            return {name: pair[part] for name, pair in both.items() if jax.tree.leaves(pair[part])}

        return present(0), present(1)

    def normalizers(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns how many values of each term count in a batch, before any model has run."""
        return {name: term.count(batch) for name, term in self.terms.items()}

    def sums(
        self, params: PyTree, term_state: PyTree, context: StepContext
    ) -> tuple[dict[str, Mean], PyTree]:
        """Computes every term on a microbatch.

        Args:
          params: trained parameters, by term.
          term_state: other state, by term.
          context: what the terms read; under pmap a "batch" term sees the examples of all devices,
            in the global batch's order.

        Returns:
          Each term's sum and count, and the terms' new state.
        """
        # Gathered once for all terms over the batch, and not at all where there are none.
        whole = context
        if any(term.kind == "batch" for term in self.terms.values()):
            whole = context.gathered()
        sums, new_state = {}, {}
        for name, term in self.terms.items():
            # Each term draws from a stream of its own, so that adding one changes no other.
            own = whole if term.kind == "batch" else context
            own = replace(own, key=fold_name(context.key, name))
            values, new = term.compute(params.get(name, {}), term_state.get(name, {}), own)
            sums[name] = term.mean(values, own.batch)
            if name in term_state:
                new_state[name] = new
        return sums, new_state

    def weighted_sum(
        self, sums: Mapping[str, Mean], normalizers: Mapping[str, jax.Array], step: Any
    ) -> jax.Array:
        """Returns [], the weighted sum of totals over normalizers; a term that counts nothing is 0.

        With the normalizers of the global batch this is a microbatch's share of the loss, so shares
        and their gradients simply add up over microbatches and devices.
        """
        # Weights are asked for at every step, so a schedule works inside the compiled step.
        shares = (
            self.weights[name](step) * each.total / _or_one(normalizers[name])
            for name, each in sums.items()
        )
        return sum(shares, start=jnp.zeros(()))


def _or_one(count: jax.Array) -> jax.Array:
    """Returns what to divide by: 1 where nothing counts. Weights may add up to less."""
    return jnp.where(count > 0, count, 1)


def make_objective(section: Mapping[str, Any], spec: TermSpec) -> Objective:
    """Builds an objective.

    Args:
      section: name -> a `Term`, or `dict(term=..., weight=..., **hyperparameters)` as in configs;
        weight a number >= 0 or a schedule.
      spec: what the terms may read.

    Raises:
      ValueError: for no terms, an unknown term, layer, teacher or hyperparameter, a value out of
        range; names the term and what exists.
    """
    if not section:
        raise ValueError("an objective needs at least one term")
    # Everything is checked here, before a step is compiled.
    terms, weights = {}, {}
    for name, given in section.items():
        weight = _weight(name, given)
        weights[name] = make_value(weight, f"weight of objective {name!r}")
        # Schedules stay between their two ends, so checking the ends checks every step.
        if any(bound < 0 for bound in extremes(weight)):
            raise ValueError(f"weight of objective {name!r} must not be negative, got {weight}")
        try:
            _check_kind(given, spec.task)
            terms[name] = given.bind(spec) if isinstance(given, Term) else bind_term(given, spec)
        except ValueError as error:
            raise ValueError(f"objective {name!r}: {error}") from None
    return Objective(terms, weights)


def _weight(name: str, given: Any) -> Any:
    if isinstance(given, Term):
        return given.weight
    # A term object carries its own weight; what remains has to be a section of a config.
    if not isinstance(given, Mapping):
        raise ValueError(
            f"objective {name!r} must be a term or dict(term=..., weight=...), got {given!r}"
        )
    choose(TERMS, given, f"term of objective {name!r}:", key="term")
    if "weight" not in given:
        raise ValueError(f"objective {name!r} needs a weight")
    return given["weight"]


def _check_kind(given: Any, task: Task) -> None:
    """Refuses a term that is for outputs of another kind than the task's."""
    build: Any = type(given) if isinstance(given, Term) else TERMS[given["term"]]
    needs = getattr(build, "needs", None)
    if needs not in (None, task.kind):
        fitting = [n for n, each in TERMS.items() if getattr(each, "needs", None) == task.kind]
        raise ValueError(
            f"it is for {needs}, and the task {task.name!r} predicts {task.kind}; terms for these"
            f" are {', '.join(sorted(fitting))}"
        )


def for_task(section: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Returns an objective whose terms `hard` and `soft`, left at their defaults, are the task's.

    Args:
      section: as in configs.
      task: what the model predicts.
    """
    known_terms: Any = TERMS
    usual = {"hard": ("cross_entropy", task.hard_term), "soft": ("soft_target_kl", task.soft_term)}
    found = {}
    for name, given in section.items():
        default, own = usual.get(name, (None, None))
        if default is not None and own != default and given.get("term") == default:
            # A task without labels learns from none.
            if own is None:
                continue
            # What the task's own term knows too is kept: of soft targets, the temperature.
            known = {"term", "weight", *(f.name for f in dataclasses.fields(known_terms[own]))}
            kept = {k: v for k, v in given.items() if k in known and k != "term"}
            given = {"term": own} | (dict(task.soft_options) if name == "soft" else {}) | kept
        found[name] = given
    return found


def check_terms(section: Mapping[str, Any], task: Task) -> None:
    """Checks what needs neither shapes nor data: terms' names, their options and these' types.

    Args:
      section: as in configs, name -> `dict(term=..., weight=..., **hyperparameters)`.
      task: what the model predicts.

    Raises:
      ValueError: naming the term, the option and what is right.
    """
    for name, given in section.items():
        make_value(_weight(name, given), f"weight of objective {name!r}")
        try:
            _check_kind(given, task)
            _options(given)
        except ValueError as error:
            raise ValueError(f"objective {name!r}: {error}") from None


def bind_term(given: Mapping[str, Any], spec: TermSpec) -> BoundTerm:
    """Builds one term from its section, without regard to its weight.

    Raises:
      ValueError: for an unknown term or option, or anything that doesn't fit.
    """
    build, options = _options(given)
    if not isinstance(build, type):
        named = {"term": given["term"], **options}
        return call_with_options(build, named, "term", spec, key="term")
    return build(**options).bind(spec)


def _options(given: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Returns what a section's term is built by, and its options, checked."""
    build = choose(TERMS, given, "term", key="term")
    # The weight belongs to the objective: a term never scales itself.
    options = {key: value for key, value in given.items() if key not in ("term", "weight")}
    owner = f"term {given['term']!r}"
    if not isinstance(build, type):
        options_of(build, {"term": given["term"], **options}, "term", key="term")
        return build, options
    # Dataclasses of terms are checked by their fields, so a wrong option is named as in a config.
    fields = [field for field in dataclasses.fields(build) if field.name != "weight"]
    # A field without a default is an option that must be given.
    known = {
        field.name: field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        for field in fields
    }
    check_keys(options, known, owner)
    hints = hints_of(build)
    check_types(hints, options, owner)
    for key, value in options.items():
        if hints.get(key) == Hyperparameter and isinstance(value, Mapping):
            make_value(value, key)
    return build, options
