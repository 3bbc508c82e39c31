"""The token behind each mask."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from kd_jax.core.types import Batch, Mean
from kd_jax.tasks import metrics
from kd_jax.tasks.task import Rows, Task

SHOWN = 5
"""Tokens that a prediction names for a mask."""


@dataclass(frozen=True)
class MaskedLanguageModel(Task):
    """Which token stands behind each of P masks; outputs are logits [B, P, V] of the vocabulary.

    Labels are made of the texts: some tokens are masked, others in every step of a training, and
    always the same ones in an evaluation.

    Attributes:
      rate: share of a text's tokens that are predicted.
    """

    name = "masked_language_model"
    metrics = ("perplexity", "token_accuracy")
    tabled = ("perplexity", "token_accuracy", "loss")
    hard_term = "cross_entropy"
    soft_term = "soft_target_kl"
    softmax = True
    divergence = "teacher_kl"
    kind = "classes"
    problem_type = None
    predicts = "vocabulary"
    reads_labels = False
    named = False

    rate: float = field(default=0.15, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"task.rate must be above 0 and below 1, got {self.rate}")

    @property
    def needs_labels(self) -> bool:
        """Returns that no labels are read."""
        return False

    @property
    def masks(self) -> float:
        """Returns the share of tokens that are masked; see `Task.masks`."""
        return self.rate

    def describe(self) -> dict[str, Any]:
        """Returns what a finished model writes down of its task."""
        return {"name": self.name, "rate": self.rate}

    def read_label(self, record: Mapping[str, Any], columns: Sequence[str]) -> Any:
        """Reads nothing; see `Task.read_label`."""
        del record, columns

    def number(
        self,
        given: Sequence[Any],
        everyone: Iterable[Any],
        names: Sequence[str] | None,
        columns: Sequence[str],
        rows: Sequence[int],
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Returns that no row has a label of its own; see `Task.number`."""
        del everyone, names, columns, rows
        return np.full(len(given), -1, np.int32), ("token",)

    def tell_labels(self, labels: np.ndarray, names: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """Counts the texts; see `Task.tell_labels`."""
        del names
        return f"{len(labels)} texts to learn from", {"training_rows": len(labels)}

    def groups(self, labels: np.ndarray) -> np.ndarray:
        """Returns 0 for all: nothing contradicts a text's equal; see `Task.groups`."""
        return np.zeros(len(labels), np.int32)

    def counted(self, batch: Batch) -> jax.Array:
        """Returns [B, P], which masks there are; see `Task.counted`."""
        return jnp.asarray(batch.valid)[..., None] & jnp.asarray(batch.positions)

    def compared(self, batch: Batch) -> jax.Array:
        """Returns likewise; see `Task.compared`."""
        return self.counted(batch)

    def predict_row(self, outputs: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        """Tells the likeliest tokens of each mask in a text; see `Task.predict_row`.

        Args:
          outputs: [P, V] float64.
          names: [V].
        """
        found = []
        for row in special.softmax(outputs, axis=-1):
            best = np.argsort(-row, kind="stable")[:SHOWN]
            found.append({names[k]: round(float(row[k]), 6) for k in best.tolist()})
        return {"masks": found}

    def read_out(self, name: str) -> str:
        """Prints a token's number a position; see `Task.read_out`."""
        del name
        return "print(logits.argmax(-1).tolist())"

    def training_metrics(self, outputs: jax.Array, batch: Batch) -> dict[str, Mean]:
        """Sums how many tokens are right; see `Task.training_metrics`."""
        counted = self.counted(batch)
        right = (jnp.argmax(outputs, axis=-1) == jnp.asarray(batch.labels)) & counted
        return {"token_accuracy": Mean(jnp.sum(right), jnp.sum(counted))}

    def sums(self, outputs: jax.Array, batch: Batch) -> dict[str, Any]:
        """Sums that and the negative log-likelihood, in nats; see `Task.sums`."""
        counted, labels = self.counted(batch), jnp.maximum(jnp.asarray(batch.labels), 0)
        log_p = jax.nn.log_softmax(outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32)))
        found = -jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
        total = Mean(jnp.sum(jnp.where(counted, found, 0)), jnp.sum(counted))
        return self.training_metrics(outputs, batch) | {"nats": total}

    def agreement(self, outputs: jax.Array, teacher: jax.Array) -> jax.Array:
        """Tells of which masks the likeliest tokens are equal; see `Task.agreement`."""
        return jnp.argmax(outputs, axis=-1) == jnp.argmax(teacher, axis=-1)

    def rows(self, outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns nothing: distributions over a vocabulary stay on the devices; see `Task.rows`."""
        del batch
        nothing = jnp.zeros((outputs.shape[0], 0), jnp.int32)
        return nothing, nothing

    def summarize(self, sums: Mapping[str, Any], rows: Rows) -> dict[str, float | None]:
        """Computes both metrics; see `Task.summarize`."""
        del rows
        nats = metrics.mean(sums["nats"])
        known = float(sums["nats"].count) > 0
        return {
            # Beyond this the exponential has no number.
            "perplexity": exp(nats) if known and nats < 700 else None,
            "token_accuracy": metrics.mean(sums["token_accuracy"]) if known else None,
        }
