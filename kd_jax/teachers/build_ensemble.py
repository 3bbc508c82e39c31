"""Finished models made the members of an ensemble: their options, their classes, their weights
given or learned."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import jax
import numpy as np
from scipy.special import softmax

from kd_jax.config.schema import ModelPlan
from kd_jax.core.json_files import write_json
from kd_jax.core.option_types import is_number
from kd_jax.core.options import call_with_options, options_of
from kd_jax.core.types import LOGITS
from kd_jax.data.run_datasets import view_name
from kd_jax.data.source import Source
from kd_jax.tasks import CLASSIFICATION, Task
from kd_jax.teachers import compute, kept_outputs
from kd_jax.teachers.ensemble import AVERAGES, ROUTES, Ensemble, without_labels
from kd_jax.training.context import RunContext
from kd_jax.training.trained_model import TrainedModel

LEARNED = "learned"


def assemble(
    plan: ModelPlan, members: Mapping[str, TrainedModel], context: RunContext
) -> TrainedModel:
    """Assembles the ensemble of a model's section, `dict(name="ensemble", members=...,
    combine=...)`.

    Args:
      plan: its section; "members" are looked up in the next argument, `weights` is None (equal),
        one number a member, or "learned", on the selection split; `temperatures` None (1) or one a
        member.
      members: the finished models, by name, in order.
      context: data and devices.

    Raises:
      ValueError: for an option that doesn't fit, or members that disagree on the classes.
    """
    # The members are already looked up; what remains are the ensemble's own options.
    options = {key: value for key, value in plan.model.items() if key != "members"}
    try:
        network = call_with_options(_make, options, "model", members, context)
    except ValueError as error:
        raise ValueError(f"models.{plan.name}: {error}") from None
    # An ensemble has no weights of its own; these facts decide its outputs and stand for them.
    facts = {
        "members": {name: member.description["fingerprint"] for name, member in members.items()},
        "combine": network.combine,
        "weights": list(network.weights),
        "temperatures": list(network.temperatures),
    }
    # Sorted keys make the digest depend on the facts alone, not on their order.
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    description = facts | {
        "fingerprint": f"sha256:{digest}",
        "step": 0,
        "train_seconds": 0.0,
        "parameters": sum(member.parameters or 0 for member in members.values()),
    }
    home = context.workdir / plan.name
    if jax.process_index() == 0:
        home.mkdir(parents=True, exist_ok=True)
        write_json(home / "ensemble.json", description)
    # Members often read the same view; by its name it is loaded once.
    views = {view_name(view): view for member in members.values() for view in member.views}
    return TrainedModel(
        plan, network, None, description, home, tuple(views.values()), members=members
    )


def equal_ensemble(
    plan: ModelPlan, members: Mapping[str, TrainedModel], context: RunContext
) -> Ensemble:
    """Returns the ensemble of a section with its weights checked but not yet learned: for shapes.

    Raises:
      ValueError: as `assemble`, but without the model's name.
    """
    options = {key: value for key, value in plan.model.items() if key != "members"}
    # Learning would need the members' outputs, and no shape depends on the weights.
    if options.get("weights") == LEARNED and options.get("combine") == "mean_probabilities":
        options["weights"] = None
    return call_with_options(_make, options, "model", members, context)


def check_options(section: Mapping[str, Any], task: Task = CLASSIFICATION) -> None:
    """Checks an ensemble's options before its members are there.

    Args:
      section: the model's `model`.
      task: what the members predict.

    Raises:
      ValueError: naming the option and what is right.
    """
    options = {key: value for key, value in section.items() if key != "members"}
    found = options_of(_make, options, "model")
    combine = found.get("combine")
    _check_combine(combine)
    if task.one_class:
        return
    # A vote, and weights by the likelihood of labels, are of one class an example.
    fitting = AVERAGES if task.kind in ("classes", "sets") else ("mean_logits",)
    if combine not in fitting:
        raise ValueError(
            f"combine {combine!r} isn't for task {task.name!r}; {', '.join(fitting)} "
            + ("are" if len(fitting) > 1 else "is")
        )
    if found.get("weights") == LEARNED:
        raise ValueError(f"weights aren't learned for task {task.name!r}; give numbers, or None")


def _check_combine(combine: Any) -> None:
    if combine not in (*AVERAGES, *ROUTES):
        raise ValueError(
            f"unknown combine {combine!r}; there are {', '.join((*AVERAGES, *ROUTES))}"
        )


def _make(
    members: Mapping[str, TrainedModel],
    context: RunContext,
    *,
    combine: str,
    weights: Literal["learned"] | Sequence[float] | None,
    temperatures: Sequence[float] | None,
) -> Ensemble:
    _check_combine(combine)
    names = {member.network.view for member in members.values()}
    networks = {name: member.network for name, member in members.items()}
    # Before any weights are learned: members with classes in another order can't be averaged.
    _check_classes(members, context)
    count = len(members)
    ones = (1.0,) * count
    equal = Ensemble(
        networks,
        combine,
        ones,
        _numbers(temperatures, count, "temperatures", ones),
        names.pop() if len(names) == 1 else "",
        context.datasets.task.kind,
    )
    # Refused rather than ignored, since the user would believe that the weights count.
    if weights is not None and combine in ROUTES:
        raise ValueError(
            f"weights belong to a mean, and {combine!r} takes one member's logits: they must be"
            f" None"
        )
    if weights == LEARNED:
        if combine != "mean_probabilities":
            raise ValueError("weights are learned for mean_probabilities only")
        found = _learned(members, equal.temperatures, context)
    else:
        found = _numbers(weights, count, "weights", ones)
    # Scaled to sum to 1, so that the mean of probabilities is a distribution again.
    return replace(equal, weights=tuple(float(w) for w in np.asarray(found) / np.sum(found)))


def _numbers(given: Any, count: int, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    if given is None:
        return default
    numbers = given if isinstance(given, list | tuple) else ()
    if len(numbers) != count or not all(is_number(number) and number > 0 for number in numbers):
        raise ValueError(
            f"{name} must be None or {count} positive numbers, one a member, got {given}"
        )
    return tuple(float(number) for number in numbers)


def _check_classes(members: Mapping[str, TrainedModel], context: RunContext) -> None:
    # An ensemble among the members has no class names; its own members were checked before.
    known = {
        name: list(m.description["class_names"])
        for name, m in members.items()
        if "class_names" in m.description
    }
    wanted = list(context.datasets.class_names)
    for name, classes in known.items():
        if classes != wanted:
            raise ValueError(f"member {name!r} knows the classes {classes}, the data has {wanted}")


def _learned(
    members: Mapping[str, TrainedModel], temperatures: Sequence[float], context: RunContext
) -> np.ndarray:
    """Learns [M] the mixture's weights by greatest likelihood of the selection split's labels."""
    source = context.datasets.splits["selection"]
    # The likelihood needs labels, so examples without one are left out.
    labelled = source.labels >= 0
    logits = unlabelled_logits(members, source, context)[:, labelled].astype(np.float64)
    # The temperatures come first here as in the ensemble, else other weights would be learned.
    probabilities = softmax(logits / np.reshape(temperatures, (-1, 1, 1)), axis=-1)
    return mixture_weights(probabilities, source.labels[labelled])


def unlabelled_logits(
    members: Mapping[str, TrainedModel], source: Source, context: RunContext
) -> np.ndarray:
    """Computes `[M, N, K]`, what each member says of a whole split without knowing its labels."""
    return np.stack([_logits(member, source, context) for member in members.values()])


def _logits(member: TrainedModel, source: Source, context: RunContext) -> np.ndarray:
    size = compute.shared_batch_size(context)
    if (kept := kept_outputs.evaluated(member, source, context, size)) is not None:
        return kept.gather(np.arange(len(source)))[LOGITS]
    # A member that chooses by the label would look better than it is where labels are unknown.
    network = without_labels(member.network)
    return compute.outputs(member, source, context, network=network)[LOGITS]


def mixture_weights(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights of a mean of probabilities under which the labels are most likely, by expectation
    maximisation.

    The likelihood is concave in the weights, so what is found is the best there is.

    Args:
      probabilities: `[M, N, K]`.
      labels: `[N]` int.

    Returns:
      `[M]`, at least 0, summing to 1.
    """
    # A floor, since an example that every member excludes would give 0 / 0.
    likelihood = np.maximum(probabilities[:, np.arange(len(labels)), labels], 1e-300)
    weights = np.full(len(likelihood), 1 / len(likelihood))
    # Each round never lowers the likelihood; the limit only guards against slow last digits.
    for _ in range(10_000):
        shares = weights[:, None] * likelihood
        new = np.mean(shares / shares.sum(axis=0), axis=1)
        if np.abs(new - weights).max() < 1e-10:
            break
        weights = new
    # The mixture takes logarithms of the weights, so none may be exactly 0.
    return np.maximum(weights, 1e-12)
