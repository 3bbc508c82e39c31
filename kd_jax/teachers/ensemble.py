"""Several finished models that teach, and are evaluated, as one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax import losses
from kd_jax.core.checks import at_least_float32
from kd_jax.core.types import Batch, ModelOutput, Variables

AVERAGES = ("mean_probabilities", "mean_logits")
ROUTES = ("most_confident", "least_loss")


@dataclass(frozen=True, eq=False)  # Hashed by identity, since jax hashes what it traces.
class Ensemble:
    """Stands where a `Network` stands; its variables are those of its members, by name.

    Attributes:
      members: name -> network, of any architecture, view and dtype.
      combine: "mean_probabilities" (logits are their logarithms), "mean_logits"; or example by
        example one member's logits: that of the "most_confident", by its largest probability, or of
        the one with the "least_loss" on the label (the most confident one where there is no label).
      weights: [M] of the means, summing to 1.
      temperatures: [M], by which the members' logits are divided first.
      view: the one that all members read; "" where they differ.
      kind: what outputs stand for, as `Task.kind`: of "sets" each class has a probability of its
        own.
    """

    members: Mapping[str, Any]
    combine: str
    weights: tuple[float, ...]
    temperatures: tuple[float, ...]
    view: str
    kind: str = "classes"

    def frozen(self, variables: Mapping[str, Variables]) -> dict[str, Any]:
        """Casts each member's variables to its own dtype."""
        return {name: member.frozen(variables[name]) for name, member in self.members.items()}

    def without_labels(self) -> "Ensemble":
        """Returns the same for who must not know the label: routed by confidence instead.

        No member that is an ensemble knows it either. One that needs no label is itself returned.
        """
        combine = "most_confident" if self.combine == "least_loss" else self.combine
        members = {name: without_labels(member) for name, member in self.members.items()}
        if combine == self.combine and all(members[n] is each for n, each in self.members.items()):
            return self
        return replace(self, members=members, combine=combine)

    def __call__(self, variables: Mapping[str, Variables], batch: Batch) -> ModelOutput:
        """Computes logits `[B, K]`, and the members' features.

        `NAME/FEATURE` of each member, and `pooled`, all members' side by side; of vectors their
        mean.
        """
        # Every member keeps its features under its name, so that terms can point at one.
        outputs = {name: member(variables[name], batch) for name, member in self.members.items()}
        # Members may name their features alike, so each gets its member's name.
        features = {
            f"{name}/{key}": value
            for name, out in outputs.items()
            for key, value in out.features.items()
        }
        # A member that users bring may name no such feature.
        if all("pooled" in out.features for out in outputs.values()):
            pooled = [out.features["pooled"] for out in outputs.values()]
            dtype = jnp.result_type(*pooled)
            features["pooled"] = jnp.concatenate([x.astype(dtype) for x in pooled], axis=-1)
        # Members may compute in different dtypes.
        logits = at_least_float32(*(output.logits for output in outputs.values()))
        if len({z.shape for z in logits}) > 1:
            widths = {name: z.shape[-1] for name, z in zip(outputs, logits, strict=True)}
            raise ValueError(f"an ensemble's members need outputs of one width, got {widths}")
        scaled = jnp.stack(
            [z / temperature for z, temperature in zip(logits, self.temperatures, strict=True)]
        )
        combined = self.combined(scaled, batch)
        # What a vector's model pools is its output.
        if self.kind == "vectors":
            features["pooled"] = combined
        return ModelOutput(combined, features)

    def combined(self, scaled: jax.Array, batch: Batch) -> jax.Array:
        """Combines `[M, B, K]` to `[B, K]`, of several predictions an example `[M, B, P, K]`."""
        weights = jnp.asarray(self.weights, scaled.dtype)
        weights = weights.reshape(-1, *(1,) * (scaled.ndim - 1))
        # Cheapest, and right only where the members' logits have one scale.
        if self.combine == "mean_logits":
            return jnp.sum(weights * scaled, axis=0)
        if self.kind == "sets":
            # The log-odds of each class's mean probability, likewise.
            there, absent = (
                jax.nn.logsumexp(jax.nn.log_sigmoid(sign * scaled) + jnp.log(weights), axis=0)
                for sign in (1, -1)
            )
            return there - absent
        log_p = jax.nn.log_softmax(scaled)
        if self.combine == "mean_probabilities":
            # The logarithm of the mean probability, without leaving logarithms.
            return jax.nn.logsumexp(log_p + jnp.log(weights), axis=0)
        # The member that is surest of its class answers.
        merit = jnp.max(log_p, axis=-1)
        if self.combine == "least_loss":
            loss = jnp.stack([losses.cross_entropy(z, jnp.asarray(batch.labels)) for z in scaled])
            merit = jnp.where(jnp.asarray(batch.label_valid)[None], -loss, merit)
        return scaled[jnp.argmax(merit, axis=0), jnp.arange(scaled.shape[1])]


def knows_labels(network: Any) -> bool:
    """Tells whether what a teacher says of an example may depend on the example's label."""
    if not isinstance(network, Ensemble):
        return False
    # One such member deep inside is enough to let the label through.
    return network.combine == "least_loss" or any(
        knows_labels(member) for member in network.members.values()
    )


def without_labels(network: Any) -> Any:
    """Returns a network as it may be evaluated: one that doesn't know the labels."""
    return network.without_labels() if isinstance(network, Ensemble) else network
