"""What a task answers to the rest of the package."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import jax
import numpy as np

from kd_jax.core.types import Batch, Mean


@dataclass(frozen=True)
class Metric:
    """A number by which a model is judged.

    Attributes:
      higher: whether more of it is better.
      share: whether it is a share of 1, which people read in percent.
      title: how a table calls it.
    """

    higher: bool
    share: bool
    title: str


METRICS: dict[str, Metric] = {
    "accuracy": Metric(True, True, "accuracy"),
    "macro_f1": Metric(True, True, "macro F1"),
    "micro_f1": Metric(True, True, "micro F1"),
    "positive_f1": Metric(True, True, "F1"),
    "mcc": Metric(True, True, "MCC"),
    "auroc": Metric(True, True, "AUROC"),
    "log_loss": Metric(False, False, "log loss"),
    "ece": Metric(False, False, "ECE"),
    "mean_average_precision": Metric(True, True, "mAP"),
    "exact_set_accuracy": Metric(True, True, "exact sets"),
    "spearman": Metric(True, True, "Spearman"),
    "pearson": Metric(True, True, "Pearson"),
    "rmse": Metric(False, False, "RMSE"),
    "loss": Metric(False, False, "loss"),
}
"""Name in results.json -> what it is."""


def cell(name: str, value: float | None) -> str:
    """Returns a metric's value for a table: a share in percent, without the sign."""
    if value is None:
        return "-"
    return f"{100 * value:.2f}" if METRICS[name].share else f"{value:.4f}"


def header(name: str) -> str:
    """Returns a metric's title for a table."""
    return f"{METRICS[name].title} %" if METRICS[name].share else METRICS[name].title


def shown(name: str, value: float | None) -> str:
    """Returns a metric and its value for a line."""
    if value is None:
        return f"{METRICS[name].title} undefined"
    return f"{METRICS[name].title} {cell(name, value)}{' %' if METRICS[name].share else ''}"


@dataclass(frozen=True)
class Rows:
    """A model's outputs on the labelled examples of a whole split.

    Attributes:
      outputs: [N, K] float64, what the model returns as logits.
      labels: [N] or [N, K], as in a batch.
    """

    outputs: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Task:
    """What a model predicts.

    Attributes:
      name: in configs.
      metrics: names in `METRICS`, the usual first one first.
      hard_term: the loss of `kd_jax.losses` and the term by which a model learns from labels where
        a config says nothing; "loss" in results.json.
      soft_term: likewise from a teacher.
      divergence: how results.json calls the soft term's loss at temperature 1.
      tabled: metrics that a table of results shows.
      softmax: whether an example has exactly one class, so that outputs are compared as
        distributions over the classes.
      chosen: the metric by which models are chosen and compared; None: the first.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    hard_term: ClassVar[str]
    soft_term: ClassVar[str]
    divergence: ClassVar[str]
    tabled: ClassVar[tuple[str, ...]]
    softmax: ClassVar[bool] = False

    chosen: str | None = None

    @property
    def primary(self) -> str:
        """Returns the metric by which models are chosen and compared."""
        return self.chosen or self.metrics[0]

    def ranked_by(self, metric: str | None) -> Self:
        """Returns the task with another primary metric; None: its first."""
        return dataclasses.replace(self, chosen=metric)

    @property
    def columns(self) -> tuple[str, ...]:
        """Returns the metrics that a table shows, the primary one first."""
        rest = [name for name in self.tabled if name != self.primary]
        return (self.primary, *rest)

    def rank(self, metrics: Mapping[str, Any]) -> float | None:
        """Returns the primary metric so that more is better; None where it is undefined."""
        value = metrics[self.primary]
        return value if value is None or METRICS[self.primary].higher else -value

    def describe(self) -> dict[str, Any]:
        """Returns what a finished model writes down of its task."""
        return {"name": self.name}

    # What a step computes on a device.

    def training_metrics(self, outputs: jax.Array, batch: Batch) -> dict[str, Mean]:
        """Sums what is logged of a training batch beside the terms; outputs [B, K]."""
        raise NotImplementedError

    def sums(self, outputs: jax.Array, batch: Batch) -> dict[str, Any]:
        """Sums what `summarize` needs of an evaluation batch, rows that don't count left out.

        Args:
          outputs: [B, K].
          batch: its labels.

        Returns:
          Arrays or `Mean`s that merge by addition.
        """
        del outputs, batch
        return {}

    def agreement(self, outputs: jax.Array, teacher: jax.Array) -> jax.Array | None:
        """Tells how far predictions are a teacher's.

        Args:
          outputs: [B, K].
          teacher: [B, K].

        Returns:
          [B], bool or in 0..1; None where there is no such thing.
        """
        del outputs, teacher
        return None

    # What is computed of a whole split, on the host.

    def summarize(self, sums: Mapping[str, Any], rows: Rows) -> dict[str, float | None]:
        """Computes all metrics of a split; None for one that is undefined there.

        Args:
          sums: of `sums`, added up in float64.
          rows: all labelled examples.
        """
        raise NotImplementedError

    def details(self, rows: Rows, names: Sequence[str]) -> dict[str, Any]:
        """Computes what results.json holds beside the metrics.

        Args:
          rows: all labelled examples.
          names: [K] of the outputs.
        """
        del rows, names
        return {}

    def guess(self, labels: np.ndarray) -> tuple[str, float, float] | None:
        """Returns a metric, its value without looking at the input, and two standard errors of it.

        None where there is no such thing.
        """
        del labels
        return None
