"""What a task answers to the rest of the package."""

import abc
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.core.types import Batch, Mean, Sample


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
    "entity_f1": Metric(True, True, "entity F1"),
    "token_accuracy": Metric(True, True, "token accuracy"),
    "teacher_cosine": Metric(True, False, "cosine with teacher"),
    "recall_at_1": Metric(True, True, "recall at 1"),
    "perplexity": Metric(False, False, "perplexity"),
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
    """A model's outputs on the labelled examples of a whole split, in its order.

    Attributes:
      outputs: [N, K] float64, what the model returns as logits, or what `Task.rows` makes of it.
      labels: [N] or [N, K], as in a batch.
      index: [N] position of each in the split; empty where it isn't asked for.
      teachers: name -> what it returns on the same rows, for tasks that compare spaces.
    """

    outputs: np.ndarray
    labels: np.ndarray
    index: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    teachers: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Task(abc.ABC):
    """What a model predicts.

    Attributes:
      name: in configs.
      metrics: names in `METRICS`, the usual first one first.
      hard_term: the loss of `kd_jax.losses` and the term by which a model learns from labels where
        a config says nothing; "loss" in results.json. None: it doesn't learn from them.
      soft_term: likewise from a teacher.
      soft_options: of that term.
      divergence: how results.json calls the soft term's loss at temperature 1; None: it doesn't.
      tabled: metrics that a table of results shows.
      problem_type: as config.json of a Hugging Face folder says it; None where it says nothing.
      softmax: whether the outputs are logits of classes that exclude one another.
      one_class: whether an example has one class of K, so that examples can be grouped, mixed and
        weighed by it.
      words: whether an example is a list of words, each of which has a label.
      apart: whether each text of a pair is an example of its own.
      meets_teachers: whether its metrics compare a model's outputs with its teachers'.
      predicts: for what a model gives outputs, an option of its module: "example" or "token", or
        "embedding", where what it pools is its output; or "vocabulary", a token at each position.
      reads_labels: whether data may have labels for it.
      named: whether the data name the outputs, and so say how many there are.
      feature: what a prepared dataset calls its labels, "class" or "number"; None: it can't hold
        them.
      teachable: which labels a teacher's outputs can become for a transfer set, "soft" or "hard";
        models then learn from them as from the data's own.
      mixes: whether the labels of two examples can be mixed.
      valued: whether there are `blind` outputs, above which a model can be valued.
      starts_blind: whether a new head's outputs begin as these.
      kind: what outputs stand for: "classes" that exclude one another, so that they are compared as
        distributions; "sets", classes that are there or not; "numbers"; or "vectors".
      chosen: the metric by which models are chosen and compared; None: the first.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    hard_term: ClassVar[str | None]
    soft_term: ClassVar[str]
    soft_options: ClassVar[Mapping[str, Any]] = {}
    divergence: ClassVar[str | None]
    tabled: ClassVar[tuple[str, ...]]
    kind: ClassVar[str]
    problem_type: ClassVar[str | None]
    one_class: ClassVar[bool] = False
    softmax: ClassVar[bool] = False
    words: ClassVar[bool] = False
    apart: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = True
    named: ClassVar[bool] = True
    meets_teachers: ClassVar[bool] = False
    predicts: ClassVar[str] = "example"
    feature: ClassVar[str | None] = None
    teachable: ClassVar[tuple[str, ...]] = ()
    mixes: ClassVar[bool] = False
    valued: ClassVar[bool] = False
    starts_blind: ClassVar[bool] = False

    chosen: str | None = None

    @property
    def primary(self) -> str:
        """Returns the metric by which models are chosen and compared."""
        return self.chosen or self.metrics[0]

    def ranked_by(self, metric: str | None) -> Self:
        """Returns the task with another primary metric; None: its first."""
        return dataclasses.replace(self, chosen=metric)

    @property
    def needs_labels(self) -> bool:
        """Returns whether models are chosen by labels."""
        return True

    @property
    def masks(self) -> float | None:
        """Returns which share of a text's tokens is hidden and predicted; None: none is."""
        return None

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

    def contradicts(self, other: Mapping[str, Any]) -> str | None:
        """Says why a model of another task, as `describe` returned it, can't be used for this one;
        None if it can."""
        if other["name"] != self.name:
            return f"is a model for task {other['name']!r}, not {self.name!r}"
        return None

    # Labels.

    @abc.abstractmethod
    def read_label(self, record: Mapping[str, Any], columns: Sequence[str]) -> Any:
        """Reads a row of a table.

        Args:
          record: column -> value, a text in CSV and TSV, any JSON value in JSONL.
          columns: those with the label.

        Raises:
          ValueError: if there is none, or it can't be read; the row is rejected with the message.
        """

    @abc.abstractmethod
    def number(
        self,
        given: Sequence[Any],
        everyone: Iterable[Any],
        names: Sequence[str] | None,
        columns: Sequence[str],
        rows: Sequence[int],
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Turns what `read_label` read into arrays.

        Args:
          given: [N] of the rows that are asked for, None where a row has no label.
          everyone: of all rows of all splits, which know more classes than a few rows.
          names: [K] of the outputs, where they are known.
          columns: those with the label.
          rows: [N] what the user calls each row, for messages.

        Returns:
          Labels, [N] int32 with -1 or [N, K] float32 with NaN where there is none; and the names of
          the outputs.

        Raises:
          ValueError: for a label outside the names.
        """

    def check_labels(self, labels: np.ndarray, names: Sequence[str], unlabelled: object) -> None:
        """Refuses training labels from which nothing can be learned.

        Args:
          labels: [N] or [N, K], of the training split.
          names: [K].
          unlabelled: the config's `data.unlabelled`; None where it says nothing.

        Raises:
          ValueError: with what is wrong and what would be right.
        """
        del labels, names, unlabelled

    @abc.abstractmethod
    def tell_labels(self, labels: np.ndarray, names: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """Describes training labels in a line, and for results.json."""

    def check_row(self, text: Any, label: Any) -> None:
        """Compares a row's input with its label.

        Args:
          text: as in `Source.inputs`.
          label: of `read_label`; None where there is none.

        Raises:
          ValueError: if they don't fit; the row is rejected with the message.
        """
        del text, label

    def fitted(self, labels: np.ndarray, names: Sequence[str]) -> Self:
        """Returns the task as it is for a training split's labels, and names of the outputs."""
        del labels, names
        return self

    def as_targets(self, labels: np.ndarray) -> np.ndarray:
        """Returns labels as models learn them."""
        return labels

    @abc.abstractmethod
    def groups(self, labels: np.ndarray) -> np.ndarray:
        """Returns [N] int, equal where two texts with these labels don't contradict each other, -1
        where there is no label."""

    def no_labels(self, count: int, names: Sequence[str]) -> np.ndarray:
        """Returns the labels of so many rows that have none."""
        return self.number([None] * count, (), names, names, range(count))[0]

    # What a teacher says, in the place of labels.

    def sureness(self, outputs: np.ndarray) -> np.ndarray | None:
        """Returns [N] in 0..1, how probable what a teacher predicts of each example is to it.

        Args:
          outputs: [N, K], or [N, P, K] with NaN where there is no prediction.

        Returns:
          That, of several predictions the least; None where it doesn't say.
        """
        del outputs
        return None

    def teach(self, outputs: np.ndarray, labels: str, temperature: float) -> np.ndarray:
        """Turns a teacher's outputs into labels.

        Args:
          outputs: as in `sureness`.
          labels: one of `teachable`.
          temperature: that divides logits before they become soft labels.

        Returns:
          Labels as models learn them; where an example has one class, distributions [N, K].
        """
        del outputs, temperature
        raise ValueError(f"a teacher of task {self.name!r} gives no {labels} labels")

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """Returns [...] nats, how uncertain a teacher is of each example; outputs [..., K]."""
        del outputs
        raise ValueError(f"a teacher of task {self.name!r} doesn't say how sure it is")

    # Predictions.

    def into_units(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns a scale and a shift, [K] each, that turn outputs into what people read; None
        where outputs are that."""
        return None

    @abc.abstractmethod
    def predict_row(self, outputs: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        """Returns what a prediction says of one input, as JSON.

        Args:
          outputs: [K] float64.
          names: [K].
        """

    def read_out(self, name: str) -> str:
        """Returns a line of Python for readers of an export, that prints what `logits` say.

        Args:
          name: Python for the name of class `i`.
        """
        return f"print([{name} for i in logits.argmax(-1)])"

    # What a step computes on a device.

    def counted(self, batch: Batch) -> jax.Array:
        """Returns which predictions have a label to compare with: [B], or [B, P] of several."""
        return jnp.asarray(batch.valid) & batch.label_valid

    def compared(self, batch: Batch) -> jax.Array:
        """Returns which predictions can be compared with a teacher's: [B], or [B, P] of several."""
        return jnp.asarray(batch.valid)

    def kept(self, batch: Batch) -> jax.Array:
        """Returns [B], which rows `summarize` is given."""
        return jnp.asarray(batch.valid) & batch.label_valid

    def rows(self, outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns what `summarize` needs of each row of a batch: leading axis B, -1 is padding."""
        wide = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        return wide, jnp.asarray(batch.labels)

    @abc.abstractmethod
    def training_metrics(self, outputs: jax.Array, batch: Batch) -> dict[str, Mean]:
        """Sums what is logged of a training batch beside the terms; outputs [B, K]."""

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

    @abc.abstractmethod
    def summarize(self, sums: Mapping[str, Any], rows: Rows) -> dict[str, float | None]:
        """Computes all metrics of a split; None for one that is undefined there.

        Args:
          sums: of `sums`, added up in float64.
          rows: all labelled examples.
        """

    @property
    def tunes(self) -> bool:
        """Returns whether something of it is still to be found on a model's selection split."""
        return False

    def tuned(self, rows: Rows) -> Self:
        """Returns the task with what `tunes` is about as it is best for a model's predictions.

        Args:
          rows: all labelled examples of the selection split.
        """
        del rows
        return self

    def sample(self, rows: Rows) -> Sample | None:
        """Returns the primary metric as a function of drawn rows; None where it isn't one.

        Args:
          rows: all labelled examples.
        """
        del rows

    def right(self, rows: Rows) -> np.ndarray | None:
        """Returns [N] bool, which rows are right, where the primary metric is their share."""
        del rows

    def errors(self, rows: Rows) -> np.ndarray | None:
        """Returns [N] how far each output is from its label, 0 for none; None where there is no
        such thing."""
        del rows

    def tell_row(self, place: int, rows: Rows, names: Sequence[str]) -> tuple[str, str]:
        """Says the label and the output of a row in words; for tasks with `errors`.

        Args:
          place: among the rows.
          rows: all labelled examples.
          names: [K] of the outputs.
        """
        del rows, names
        raise NotImplementedError(f"{self.name} has no errors of single rows, asked for {place}")

    def details(self, rows: Rows, names: Sequence[str]) -> dict[str, Any]:
        """Computes what results.json holds beside the metrics.

        Args:
          rows: all labelled examples.
          names: [K] of the outputs.
        """
        del rows, names
        return {}

    def worth(self, outputs: jax.Array, batch: Batch) -> float:
        """Returns the primary metric of a whole split at once, so that more is better.

        Args:
          outputs: [N, K].
          batch: the split; all of it is labelled.

        Returns:
          That; 0 where it is undefined.
        """
        rows = Rows(np.asarray(outputs, np.float64), np.asarray(batch.labels))
        sums = jax.tree.map(lambda each: np.asarray(each, np.float64), self.sums(outputs, batch))
        return self.rank(self.summarize(sums, rows)) or 0.0

    def blind(self, labels: np.ndarray, width: int) -> np.ndarray | None:
        """Returns [K] outputs of who knows the labels' frequencies and looks at no example; None
        where there is no such thing."""
        del labels, width

    def worth_of_a_guess(self, labels: np.ndarray, width: int) -> float:
        """Returns what `blind` outputs are worth; labels [N, ...], all there, of K = `width`."""
        outputs = jnp.tile(jnp.asarray(self.blind(labels, width), jnp.float32), (len(labels), 1))
        there = np.ones(len(labels), bool)
        return self.worth(outputs, Batch(np.arange(len(labels)), {}, labels, there, there))

    def guess(self, labels: np.ndarray) -> tuple[str, float, float] | None:
        """Returns a metric, its value without looking at the input, and two standard errors of it.

        None where there is no such thing.
        """
        del labels
        return None
