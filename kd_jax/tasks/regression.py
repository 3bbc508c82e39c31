"""Numbers an example."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.core.types import Batch, Mean, Sample
from kd_jax.tasks import metrics
from kd_jax.tasks.numbers import read_number, stack_numbers
from kd_jax.tasks.task import Rows, Task


@dataclass(frozen=True)
class Regression(Task):
    """R numbers an example, one of each label column; outputs are [B, R], standardized.

    Models learn numbers with mean 0 and deviation 1 over the training rows, so that one learning
    rate suits all; metrics and predictions are in the user's units.

    Attributes:
      mean: [R] of the training rows, in the user's units; empty before they are known.
      scale: [R] their standard deviation.
    """

    name = "regression"
    metrics = ("spearman", "pearson", "rmse")
    tabled = ("spearman", "pearson", "rmse", "loss")
    hard_term = "squared_error"
    soft_term = "logit_mse"
    divergence = "teacher_mse"
    kind = "numbers"
    problem_type = "regression"
    feature = "number"
    teachable = ("soft",)
    mixes = True
    valued = True

    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Returns what a finished model writes down of its task."""
        return {"name": self.name, "mean": list(self.mean), "scale": list(self.scale)}

    def contradicts(self, other: Mapping[str, Any]) -> str | None:
        """Compares units too; see `Task.contradicts`."""
        if problem := super().contradicts(other):
            return problem
        ours = self.describe()
        if [list(other["mean"]), list(other["scale"])] != [ours["mean"], ours["scale"]]:
            return (
                f"learned numbers of mean {other['mean']} and deviation {other['scale']}, and these"
                f" data have {ours['mean']} and {ours['scale']}; name its export as pretrained"
            )
        return None

    def into_units(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns the labels' deviation and mean; see `Task.into_units`."""
        return np.asarray(self.scale), np.asarray(self.mean)

    def read_label(self, record: Mapping[str, Any], columns: Sequence[str]) -> tuple[float, ...]:
        """Reads the numbers; see `Task.read_label`."""
        return tuple(read_number(record.get(column), column) for column in columns)

    def number(
        self,
        given: Sequence[Any],
        everyone: Iterable[Any],
        names: Sequence[str] | None,
        columns: Sequence[str],
        rows: Sequence[int],
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Stacks the numbers, in the user's units; see `Task.number`."""
        del everyone, rows
        return stack_numbers(given, len(columns)), tuple(names or columns)

    def check_labels(self, labels: np.ndarray, names: Sequence[str], unlabelled: object) -> None:
        """Refuses numbers that are all equal; see `Task.check_labels`."""
        del unlabelled
        known = labels[np.isfinite(labels).all(axis=-1)]
        for name, column in zip(names, known.T, strict=True):
            if len({*column.tolist()}) < 2:
                raise ValueError(
                    f"data.label: all training rows have the same number in {name!r}; there is"
                    f" nothing to learn"
                )

    def tell_labels(self, labels: np.ndarray, names: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """Tells mean, deviation and range; see `Task.tell_labels`."""
        known = self.in_units(labels[np.isfinite(labels).all(axis=-1)])
        facts = {
            name: {
                "rows": len(column),
                "mean": float(column.mean()),
                "standard_deviation": float(column.std()),
                "least": float(column.min()),
                "most": float(column.max()),
            }
            for name, column in zip(names, known.T, strict=True)
        }
        told = "; ".join(
            f"{name} {each['mean']:.4g} ± {each['standard_deviation']:.4g}, from"
            f" {each['least']:.4g} to {each['most']:.4g}"
            for name, each in facts.items()
        )
        return f"numbers of {len(known)} training rows: {told}", {"training_rows": facts}

    def fitted(self, labels: np.ndarray, names: Sequence[str]) -> Self:
        """Returns the task with the labels' mean and scale; see `Task.fitted`."""
        del names
        known = np.float64(labels[np.isfinite(labels).all(axis=-1)])
        mean, scale = known.mean(axis=0), known.std(axis=0)
        return dataclasses.replace(self, mean=tuple(mean.tolist()), scale=tuple(scale.tolist()))

    def as_targets(self, labels: np.ndarray) -> np.ndarray:
        """Standardizes labels; see `Task.as_targets`."""
        return ((labels - np.asarray(self.mean)) / np.asarray(self.scale)).astype(np.float32)

    def in_units(self, standardized: np.ndarray) -> np.ndarray:
        """Returns numbers [..., R] in the user's units, float64."""
        wide = np.asarray(standardized, np.float64)
        return wide * np.asarray(self.scale) + np.asarray(self.mean) if self.scale else wide

    def groups(self, labels: np.ndarray) -> np.ndarray:
        """Returns 0 for all: two numbers of one text contradict each other only by degree."""
        return np.where(np.isfinite(labels).all(axis=-1), 0, -1).astype(np.int32)

    def teach(self, outputs: np.ndarray, labels: str, temperature: float) -> np.ndarray:
        """Returns the teacher's numbers; see `Task.teach`."""
        del labels, temperature
        return np.asarray(outputs, np.float32)

    def predict_row(self, outputs: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        """Tells the numbers by name, in the user's units; see `Task.predict_row`."""
        found = self.in_units(outputs)
        return {"values": {n: float(f"{v:.7g}") for n, v in zip(names, found, strict=True)}}

    def read_out(self, name: str) -> str:
        """Prints the numbers; see `Task.read_out`."""
        del name
        return "print(logits.tolist())"

    def training_metrics(self, outputs: jax.Array, batch: Batch) -> dict[str, Mean]:
        """Sums the squared error, in variances; see `Task.training_metrics`."""
        counted = batch.valid & batch.label_valid
        error = jnp.mean((outputs - jnp.asarray(batch.labels)) ** 2, axis=-1)
        return {"mean_squared_error": Mean(jnp.sum(jnp.where(counted, error, 0)), jnp.sum(counted))}

    def blind(self, labels: np.ndarray, width: int) -> np.ndarray:
        """Returns the means; see `Task.blind`."""
        del width
        return labels.mean(axis=0)

    def errors(self, rows: Rows) -> np.ndarray:
        """Returns each row's mean absolute error, in standard deviations; see `Task.errors`."""
        return np.abs(rows.outputs - rows.labels).mean(axis=-1)

    def tell_row(self, place: int, rows: Rows, names: Sequence[str]) -> tuple[str, str]:
        """Says the numbers, in the data's units; see `Task.tell_row`."""
        del names
        label, found = (
            ", ".join(f"{value:.4g}" for value in self.in_units(each[place]))
            for each in (rows.labels, rows.outputs)
        )
        return label, found

    def sample(self, rows: Rows) -> Sample:
        """Knows all metrics; see `Task.sample`."""
        labels, outputs = (self.in_units(x) for x in (rows.labels, rows.outputs))
        function = {
            "spearman": metrics.spearman,
            "pearson": metrics.pearson,
            "rmse": metrics.rmse,
        }[self.primary]
        return Sample(len(labels), lambda i: function(labels[i], outputs[i]))

    def summarize(self, sums: Mapping[str, Any], rows: Rows) -> dict[str, float | None]:
        """Computes all metrics, means over the numbers; see `Task.summarize`."""
        del sums
        labels, outputs = (self.in_units(x) for x in (rows.labels, rows.outputs))
        return {
            "spearman": metrics.spearman(labels, outputs),
            "pearson": metrics.pearson(labels, outputs),
            "rmse": metrics.rmse(labels, outputs),
        }
