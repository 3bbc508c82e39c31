"""Several finished models that teach, and are evaluated, as one."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from kd_jax import losses
from kd_jax.datasets import view_name
from kd_jax.losses.numerics import at_least_float32
from kd_jax.options import call_with_options
from kd_jax.plan import ModelPlan
from kd_jax.records import write_json
from kd_jax.surroundings import Model, Surroundings
from kd_jax.teachers import cache
from kd_jax.types import Batch, ModelOutput, Variables

AVERAGES = ("mean_probabilities", "mean_logits")
ROUTES = ("most_confident", "least_loss")
LEARNED = "learned"


@dataclass(frozen=True, eq=False)  # Hashed by identity, since jax hashes what it traces.
class Ensemble:
    """Stands where a `Network` stands; its variables are those of its members, by name.

    Attributes:
      members: name -> network, of any architecture, view and dtype.
      combine: "mean_probabilities" (logits are their logarithms), "mean_logits"; or example by example one member's
        logits: that of the "most_confident", by its largest probability, or of the one with the "least_loss" on the
        label (the most confident one where there is no label).
      weights: [M] of the means, summing to 1.
      temperatures: [M], by which the members' logits are divided first.
      view: the one that all members read; "" where they differ.
    """

    members: Mapping[str, Any]
    combine: str
    weights: tuple[float, ...]
    temperatures: tuple[float, ...]
    view: str

    def frozen(self, variables: Mapping[str, Variables]) -> dict[str, Any]:
        """Each member's variables in its own dtype."""
        return {name: member.frozen(variables[name]) for name, member in self.members.items()}

    def without_labels(self) -> "Ensemble":
        """The same for who must not know the label: by confidence instead."""
        return replace(self, combine="most_confident") if self.combine == "least_loss" else self

    def __call__(self, variables: Mapping[str, Variables], batch: Batch) -> ModelOutput:
        """Logits `[B, K]`; features `NAME/FEATURE` of each member, and `pooled`, all members' side by side."""
        outputs = {name: member(variables[name], batch) for name, member in self.members.items()}
        features = {f"{name}/{key}": value for name, out in outputs.items() for key, value in out.features.items()}
        pooled = [out.features["pooled"] for out in outputs.values()]
        features["pooled"] = jnp.concatenate([x.astype(jnp.result_type(*pooled)) for x in pooled], axis=-1)
        logits = at_least_float32(*(output.logits for output in outputs.values()))
        scaled = jnp.stack([z / temperature for z, temperature in zip(logits, self.temperatures, strict=True)])
        return ModelOutput(self.combined(scaled, batch), features)

    def combined(self, scaled: jax.Array, batch: Batch) -> jax.Array:
        """`[M, B, K]` -> `[B, K]`."""
        weights = jnp.asarray(self.weights, scaled.dtype)[:, None, None]
        if self.combine == "mean_logits":
            return jnp.sum(weights * scaled, axis=0)
        log_p = jax.nn.log_softmax(scaled)
        if self.combine == "mean_probabilities":
            return jax.nn.logsumexp(log_p + jnp.log(weights), axis=0)
        merit = jnp.max(log_p, axis=-1)
        if self.combine == "least_loss":
            loss = jnp.stack([losses.cross_entropy(z, jnp.asarray(batch.labels)) for z in scaled])
            merit = jnp.where(jnp.asarray(batch.label_valid)[None], -loss, merit)
        return scaled[jnp.argmax(merit, axis=0), jnp.arange(scaled.shape[1])]


def without_labels(network: Any) -> Any:
    """A network as it may be evaluated."""
    return network.without_labels() if isinstance(network, Ensemble) else network


def assemble(plan: ModelPlan, members: Mapping[str, Model], around: Surroundings) -> Model:
    """The ensemble that a model's section describes: `dict(name="ensemble", members=..., combine=..., ...)`.

    Args:
      plan: its section; "members" are looked up in the next argument, `weights` is None (equal), one number a member,
        or "learned", on the selection split; `temperatures` None (1) or one a member.
      members: the finished models, by name, in order.
      around: data and devices.

    Raises:
      ValueError: for an option that doesn't fit, or members that disagree on the classes.
    """
    options = {key: value for key, value in plan.model.items() if key != "members"}
    try:
        network = call_with_options(_make, options, "model", members, around)
    except ValueError as error:
        raise ValueError(f"models.{plan.name}: {error}") from None
    facts = {
        "members": {name: member.description["fingerprint"] for name, member in members.items()},
        "combine": network.combine,
        "weights": list(network.weights),
        "temperatures": list(network.temperatures),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    description = facts | {
        "fingerprint": f"sha256:{digest}", "step": 0, "train_seconds": 0.0,
        "parameters": sum(member.parameters for member in members.values()),
    }  # fmt: skip
    home = around.workdir / plan.name
    if jax.process_index() == 0:
        home.mkdir(parents=True, exist_ok=True)
        write_json(home / "ensemble.json", description)
    views = {view_name(view): view for member in members.values() for view in member.views}
    variables = {name: member.variables for name, member in members.items()}
    return Model(plan, network, variables, description, home, tuple(views.values()))


def _make(
    members: Mapping[str, Model], around: Surroundings, *, combine: str, weights: Any, temperatures: Any
) -> Ensemble:
    if combine not in (*AVERAGES, *ROUTES):
        raise ValueError(f"unknown combine {combine!r}; there are {', '.join((*AVERAGES, *ROUTES))}")
    names = {member.network.view for member in members.values()}
    networks = {name: member.network for name, member in members.items()}
    _check_classes(members, around)
    count = len(members)
    ones = (1.0,) * count
    equal = Ensemble(networks, combine, ones, _numbers(temperatures, count, "temperatures", ones),
                     names.pop() if len(names) == 1 else "")  # fmt: skip
    if weights is not None and combine in ROUTES:
        raise ValueError(f"weights belong to a mean, and {combine!r} takes one member's logits: they must be None")
    if weights == LEARNED:
        if combine != "mean_probabilities":
            raise ValueError("weights are learned for mean_probabilities only")
        found = _learned(members, equal.temperatures, around)
    else:
        found = _numbers(weights, count, "weights", ones)
    return replace(equal, weights=tuple(float(w) for w in np.asarray(found) / np.sum(found)))


def _numbers(given: Any, count: int, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    if given is None:
        return default
    if isinstance(given, str) or len(given) != count or not all(number > 0 for number in given):
        raise ValueError(f"{name} must be None or {count} positive numbers, one a member, got {given}")
    return tuple(float(number) for number in given)


def _check_classes(members: Mapping[str, Model], around: Surroundings) -> None:
    known = {name: list(m.description["class_names"]) for name, m in members.items() if "class_names" in m.description}
    wanted = list(around.datasets.splits["train"].class_names)
    for name, classes in known.items():
        if classes != wanted:
            raise ValueError(f"member {name!r} knows the classes {classes}, the data has {wanted}")


def _learned(members: Mapping[str, Model], temperatures: Sequence[float], around: Surroundings) -> np.ndarray:
    """[M] the mixture's weights by greatest likelihood of the selection split's labels."""
    source = around.datasets.splits["selection"]
    size = int(np.lcm(64, around.parallel.devices))
    columns = []
    for (name, member), temperature in zip(members.items(), temperatures, strict=True):
        compiled = around.parallel.evaluate(partial(cache.output_rows, network=member.network))
        batches = around.datasets.evaluation_batches(source, list(member.views), size)
        logits = cache.compute(compiled, member.variables, batches, len(source), name, around.stop)["logits"]
        columns.append(softmax(np.float64(logits) / temperature, axis=-1))
    labelled = source.labels >= 0
    return mixture_weights(np.stack(columns)[:, labelled], source.labels[labelled])


def mixture_weights(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights of a mean of probabilities under which the labels are most likely, by expectation maximisation.

    The likelihood is concave in the weights, so what is found is the best there is.

    Args:
      probabilities: `[M, N, K]`.
      labels: `[N]` int.

    Returns:
      `[M]`, at least 0, summing to 1.
    """
    likelihood = np.maximum(probabilities[:, np.arange(len(labels)), labels], 1e-300)
    weights = np.full(len(likelihood), 1 / len(likelihood))
    for _ in range(10_000):
        shares = weights[:, None] * likelihood
        new = np.mean(shares / shares.sum(axis=0), axis=1)
        if np.abs(new - weights).max() < 1e-10:
            break
        weights = new
    return np.maximum(weights, 1e-12)
