"""Holds an experiment's data: its splits opened once, each model's view of them prepared once."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from kd_jax.config.names import LABELLED, TRAIN, WHOLE_TEXTS
from kd_jax.core.options import call_with_options
from kd_jax.core.types import Batch
from kd_jax.data.batches import (
    EvaluationBatches,
    PreparedView,
    TrainingBatches,
    evaluation_batches,
    repeated_batches,
    training_batches,
)
from kd_jax.data.class_names import read_class_names
from kd_jax.data.cleaning import choose_mode, clean_training, make_limits
from kd_jax.data.concat import concatenate
from kd_jax.data.evaluation_sets import Evaluation, open_evaluations
from kd_jax.data.open import is_own, open_source
from kd_jax.data.source import Source
from kd_jax.data.subsets import choose_labelled, hide_labels, only_labelled, relabel
from kd_jax.data.views.augmentation import make_augmentation
from kd_jax.data.views.cut_vocabulary import cut_vocabulary, old_ids
from kd_jax.data.views.image import ImageView
from kd_jax.data.views.masked_text import FreshMasks, MaskedText
from kd_jax.data.views.text import PreparedText, TextView, bucket_lengths, load_tokenizer
from kd_jax.data.views.tokenizer_identity import identity
from kd_jax.data.views.windows import PreparedWindows
from kd_jax.data.whole_texts import take_whole_texts
from kd_jax.tasks import CLASSIFICATION, Task

SPLITS = ("train", "selection", "evaluation")

CUT = "training"
"""`view.vocabulary` of a view that has the tokens of the training texts alone."""

log = logging.getLogger("kd_jax")


def view_name(spec: Mapping[str, Any]) -> str:
    """Returns one name for equal views, so that what several models share is computed once."""
    return json.dumps(spec, sort_keys=True)


class Datasets:
    """The splits of an experiment and its further evaluations, as models read them.

    Args:
      data: the config's section.
      evaluations: further datasets, see `kd_jax.data.evaluation_sets`.
      task: what models predict; None: one class an example.
      taught: whether a model learns from teachers, which need no labels: then rows of tables with
        nothing where their label belongs stay, without one.

    Attributes:
      task: likewise.
      augmentation: how training images are augmented, the config's section.
      truncated: of each text source that was prepared, how many of its texts were cut.

    Raises:
      ValueError: for a dataset, split or column that doesn't exist, an empty split, or too many
        unreadable or bad rows.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        evaluations: Mapping[str, Mapping[str, Any]],
        task: Task | None = None,
        *,
        taught: bool = False,
    ):
        self.task = task or CLASSIFICATION
        shared = {key: data[key] for key in ("name", "dir", "inputs", "label", "max_rejected")}
        shared["task"] = self.task
        unlabelled = data.get("unlabelled")
        shared["unlabelled"] = None if unlabelled is None else tuple(unlabelled)
        header = data.get("header")
        shared["header"] = None if header is None else tuple(header)
        shared["id"] = data.get("id")
        shared["keep_blank"] = taught
        named = read_class_names(data.get("class_names"))
        self.columns = data["inputs"]
        # Whoever learned from each text of a pair by itself reads one text.
        if self.task.apart and not isinstance(self.columns, str):
            self.columns = self.columns[0]
        mode = choose_mode(data["cleaning"], is_own(data["name"]))
        self.splits: dict[str, Source] = {
            "train": open_source(split=data["train"], **shared, class_names=named)
        }
        taken = None
        if isinstance(data["selection"], Mapping):
            if self.task.apart:
                raise ValueError(
                    f"data.selection.{WHOLE_TEXTS} takes single texts, and task {self.task.name!r}"
                    f" selects by pairs"
                )
            self.splits["train"], taken = take_whole_texts(
                self.splits["train"],
                data["selection"][WHOLE_TEXTS],
                labelled=self.task.needs_labels,
            )
        names = self.splits["train"].class_names
        self.task.check_labels(self.splits["train"].labels, names, shared["unlabelled"])
        shown = self._choose_labelled(data.get("labelled", 1.0))
        known = (
            self.splits["train"].labels
            if shown is None
            else hide_labels(self.splits["train"].labels, shown)
        )
        self.task = self.task.fitted(known, names)
        # Held-out labels must have the numbers that the training data gives their classes.
        for role in SPLITS[1:]:
            if role == "selection" and taken is not None:
                self.splits[role] = taken
                continue
            self.splits[role] = open_source(split=data[role], **shared, class_names=names)
            if self.task.needs_labels and not self.splits[role].labelled.any():
                raise ValueError(
                    f"data.{role}: {self.splits[role].name!r} has no labels, and models are chosen"
                    f" by {self.task.primary}"
                )
        for role, source in self.splits.items():
            self.splits[role] = replace(source, labels=self.task.as_targets(source.labels))
        train, held_out = self.splits["train"], [self.splits[role] for role in SPLITS[1:]]
        # Only the run's own held-out splits are compared with the training data. Further
        # evaluations may be added or removed between two starts of a run and must not change what
        # it learns from.
        self.splits["train"], self._cleaned = clean_training(
            train, held_out, mode, data["cleaning"], self.task
        )
        # Cleaned first: a hidden label isn't missing, and rows must not come and go with the share.
        if shown is not None:
            kept = self.splits["train"]
            labels = hide_labels(kept.labels, shown[self._cleaned.kept])
            self.splits["train"] = relabel(kept, np.arange(len(kept)), labels, names)
            self._warn_of_lost_classes()
        self.cleaning = {
            "mode": mode,
            "rows": len(train),
            "kept": len(self.splits["train"]),
            "quarantined": self._cleaned.counts,
            "repaired": self._cleaned.repaired,
        }
        self.evaluations = open_evaluations(data, evaluations, self.splits["train"], self.task)
        inputs = self.splits["train"].inputs
        size = (inputs.shape[1], inputs.shape[2]) if isinstance(inputs, np.ndarray) else None
        self.limits = make_limits(data["cleaning"])
        self._sets: dict[str, Source] = {}
        self._suspect: list[dict[str, Any]] = []
        self._unions: dict[tuple[str, ...], Source] = {}
        augmentation: Any = make_augmentation(data["augmentation"], size)
        self._augmentation = augmentation if self.task.masks is None else FreshMasks()
        self.augmentation = data["augmentation"]
        self._tokenizers: dict[str, Tokenizer] = {}
        self._prepared: dict[tuple[str, str], Any] = {}
        self.truncated: dict[str, dict[str, int]] = {}

    def _choose_labelled(self, share: float) -> np.ndarray | None:
        """Returns [N] bool, which training labels are used; None: all of them."""
        if share == 1:
            return None
        self._check_labels_teach("data.labelled hides labels")
        return choose_labelled(self.splits["train"], share)

    def _check_labels_teach(self, asked: str) -> None:
        if not self.task.reads_labels or self.task.hard_term is None:
            raise ValueError(f"{asked}, and task {self.task.name!r} learns from none")

    def _warn_of_lost_classes(self) -> None:
        train = self.splits["train"]
        if not self.task.one_class:
            return
        counts = np.bincount(train.labels[train.labelled], minlength=self.num_classes)
        lost = [name for name, count in zip(self.class_names, counts, strict=True) if not count]
        if lost:
            log.warning("no label is left of %s", ", ".join(map(repr, lost)))

    @property
    def num_classes(self) -> int:
        """Returns how many classes the training data has."""
        return len(self.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the names of the training data's classes, by number."""
        return self.splits["train"].class_names

    def tell_labels(self) -> tuple[str, dict[str, Any]]:
        """Describes the labels of the training rows, in a line and for results.json."""
        return self.task.tell_labels(self.splits["train"].labels, self.class_names)

    @property
    def unlabelled(self) -> int:
        """Returns how many training rows have no label."""
        return int(np.sum(~self.splits["train"].labelled)) if self.task.reads_labels else 0

    @property
    def modality(self) -> str:
        """Returns "text" or "image"."""
        return self.splits["train"].modality

    @property
    def augmented(self) -> bool:
        """Tells whether a training example looks different each time."""
        return self._augmentation is not None

    def add_set(
        self, name: str, source: Source, quarantined: Iterable[dict[str, Any]] = ()
    ) -> None:
        """Registers a transfer set or filtered set under its name.

        Args:
          name: as models name it.
          source: its examples.
          quarantined: entries of the rows that were set aside for it.
        """
        self._sets[name] = source
        self._suspect += quarantined

    def remove_set(self, name: str) -> None:
        """Frees a set that no model learns from any more."""
        self.forget(self._sets.pop(name))
        self._unions = {names: union for names, union in self._unions.items() if name not in names}

    def training_source(self, names: tuple[str, ...]) -> Source:
        """Returns what a model learns from, "train", "labelled" and named sets, as one source."""
        train = self.splits["train"]
        known = {TRAIN: train} | self._sets
        if LABELLED in names:
            self._check_labels_teach(f"data names {LABELLED!r} rows")
            known[LABELLED] = only_labelled(train)
        # Models that learn from the same sets share one joined source, and with it what is
        # prepared.
        if names not in self._unions:
            self._unions[names] = concatenate([known[name] for name in names])
        return self._unions[names]

    def fingerprint(self) -> str:
        """Returns the SHA-256 over the contents of the three splits, training data as cleaned."""
        parts = "".join(self.splits[role].fingerprint for role in SPLITS)
        return f"sha256:{hashlib.sha256(parts.encode()).hexdigest()}"

    def rejected(self) -> list[dict[str, Any]]:
        """Returns every row that could not be read, once, with the reason."""
        # Splits are often slices of one file, which then rejects the same row for each of them.
        rows = {
            (source.name.partition(" ")[0], row.row): {
                "dataset": source.name,
                "row": row.row,
                "reason": row.reason,
                "value": row.value,
            }
            for source in (
                *self.splits.values(),
                *(each.source for each in self.evaluations.values()),
            )
            for row in source.rejected
        }
        return list(rows.values())

    def quarantined(self) -> list[dict[str, Any]]:
        """Returns every training row that something is wrong with, and what.

        They are the rows that cleaning set aside or reported, and those that the scoring models of
        filtered sets found suspect.
        """
        name = self.splits["train"].name
        return [
            {"dataset": name, **entry} for entry in (*self._cleaned.quarantined, *self._suspect)
        ]

    def tokenizer(self, spec: Mapping[str, Any]) -> Tokenizer:
        """Returns the tokenizer that a text view names; "trained" makes one of training texts."""
        # Views of different lengths share a tokenizer.
        options = {key: spec[key] for key in spec if key not in ("max_length", "long")}
        key = view_name(options)
        if key not in self._tokenizers:
            self._tokenizers[key] = call_with_options(
                _load_tokenizer, options, "view", self.splits["train"].inputs, key="."
            )
        return self._tokenizers[key]

    def cut_from(self, spec: Mapping[str, Any]) -> tuple[Tokenizer, np.ndarray | None]:
        """Returns the whole tokenizer of a text view whose vocabulary may be cut, and [V] int, the
        id that each token has there; None: the vocabulary is whole."""
        whole = self.tokenizer({key: spec[key] for key in spec if key != "vocabulary"})
        if spec.get("vocabulary") != CUT:
            return whole, None
        return whole, old_ids(self.tokenizer(spec), whole)

    def tokenizer_identity(self, spec: Mapping[str, Any]) -> str | None:
        """Returns the checksum of a text view's tokenizer; None for images."""
        return identity(self.tokenizer(spec)) if "tokenizer" in spec else None

    def prepared(self, source: Source, spec: Mapping[str, Any]) -> Any:
        """Returns a source seen through a view: tokenized, or resized and normalized on access."""
        key = (source.name, view_name(spec))
        if key not in self._prepared:
            if "tokenizer" in spec:
                if "max_length" not in spec:
                    raise ValueError("view needs option 'max_length'")
                task = self.task
                view = TextView(
                    self.tokenizer(spec),
                    spec["max_length"],
                    task.words,
                    task.masks,
                    spec.get("long", "truncate"),
                )
            else:
                view = self._as_trained(call_with_options(_image_view, spec, "view", key="."))
            self._prepared[key] = prepared = view.prepare(source)
            if isinstance(prepared, PreparedText | PreparedWindows | MaskedText) and prepared.cut:
                read = prepared.buckets[-1]
                self.truncated[f"{source.name}, max_length {read}"] = {
                    "texts": len(source),
                    "cut": prepared.cut,
                }
                log.info(
                    "%s: %d of %d texts are longer than %s %d and are cut",
                    source.name,
                    prepared.cut,
                    len(source),
                    "max_length" if read == prepared.max_length else "all windows,",
                    read,
                )
        return self._prepared[key]

    def _as_trained(self, view: ImageView) -> ImageView:
        """Fills in the size and channels that a view leaves open."""
        # Those of the training images whatever source is prepared: other datasets' images must come
        # out in the shape that the model was built for.
        images = self.splits["train"].inputs
        if not isinstance(images, np.ndarray):
            return view
        size = (images.shape[1], images.shape[2])
        return replace(view, size=view.size or size, channels=view.channels or images.shape[3])

    def open_evaluations(self) -> Iterator[tuple[str, Evaluation, Source]]:
        """Yields each further dataset in turn, and frees what was prepared of it after its turn."""
        for name, evaluation in self.evaluations.items():
            source = evaluation.open()
            yield name, evaluation, source
            self.forget(source)

    def forget(self, source: Source) -> None:
        """Frees what was prepared of a source that isn't needed any more."""
        self._prepared = {
            key: value for key, value in self._prepared.items() if key[0] != source.name
        }

    def vocabulary_size(self, spec: Mapping[str, Any]) -> int | None:
        """Returns how many rows an embedding needs for a view's tokens; None for images."""
        # The ids of a vocabulary may have gaps, and the largest one needs a row too.
        return max(self.tokenizer(spec).get_vocab().values()) + 1 if "tokenizer" in spec else None

    def training_batches(
        self,
        source: Source,
        views: Iterable[Mapping[str, Any]],
        training: Mapping[str, Any],
        seed: int,
        outputs: Mapping[str, PreparedView] | None = None,
        by_place: Mapping[str, PreparedView] | None = None,
        unread: Iterable[Mapping[str, Any]] = (),
    ) -> TrainingBatches:
        """Builds the endless stream of a group's training batches.

        Args:
          source: what the group learns from.
          views: the distinct views of its models and their teachers.
          training: the config's section; `batch_size`, `accumulate` and `augmented_epochs` are
            read.
          seed: of the shuffle.
          outputs: further views by name: what is known of the source's examples already.
          by_place: likewise of the rows of batches that come again; see `batches.training_batches`.
          unread: views that decide which examples share a batch, and are read by nobody.
        """
        return self._batches(
            training_batches,
            source,
            views,
            training["batch_size"],
            outputs,
            unread,
            by_place=by_place,
            augmented_epochs=self._repeated_epochs(training),
            accumulate=training["accumulate"],
            seed=seed,
            augmentation=self._augmentation,
        )

    def repeated_batches(
        self,
        source: Source,
        views: Iterable[Mapping[str, Any]],
        training: Mapping[str, Any],
        outputs: Mapping[str, PreparedView] | None = None,
    ) -> int | None:
        """Returns after how many training batches the same ones come again; None: never.

        Args:
          source: what is learned from.
          views: all that decide which examples share a batch, read or not.
          training: the config's section.
          outputs: as in `training_batches`.
        """
        epochs = self._repeated_epochs(training)
        if epochs is None:
            return None
        size = training["batch_size"]
        return self._batches(
            repeated_batches, source, views, size, outputs, (), augmented_epochs=epochs
        )

    def _repeated_epochs(self, training: Mapping[str, Any]) -> int | None:
        # Examples that always look the same come again by themselves, in another order.
        changing = self.augmented or bool(training.get("mixing"))
        return training.get("augmented_epochs") if changing else None

    def evaluation_batches(
        self,
        source: Source,
        views: Iterable[Mapping[str, Any]],
        batch_size: int,
        outputs: Mapping[str, PreparedView] | None = None,
        rows: range | None = None,
    ) -> EvaluationBatches:
        """Builds batches with every example of a split once, padded to whole batches.

        Args:
          source: the split.
          views: the distinct views that are read.
          batch_size: examples of the global batch.
          outputs: as in `training_batches`.
          rows: neighbouring examples, where not all are wanted.
        """
        return self._batches(evaluation_batches, source, views, batch_size, outputs, (), rows=rows)

    def of_both_lengths(
        self, source: Source, views: Sequence[Mapping[str, Any]]
    ) -> tuple[Batch, Batch]:
        """Returns one example as short as can be and as if it were as long as can be; an image as
        it is."""
        prepared = [self.prepared(source, spec) for spec in views]
        texts = [each for each in prepared if each.lengths is not None]
        row = int(np.argmin(np.max([each.lengths for each in texts], axis=0))) if texts else 0
        longest = max((each.buckets[-1] for each in texts), default=0)
        # A view that is empty, but of long texts, fills the others up.
        long = {"unread": Unread(np.full(len(source), longest))} if texts else {}
        rows, size = range(row, row + 1), jax.process_count()
        short, full = (
            next(iter(self.evaluation_batches(source, views, size, outputs, rows)))
            for outputs in ({}, long)
        )
        return short, full

    def _batches(self, make, source, views, batch_size, outputs, unread, **options) -> Any:
        # One set of buckets for all views, up to the longest of them; each view cuts what is beyond
        # its own maximum.
        prepared = {view_name(spec): self.prepared(source, spec) for spec in views}
        silent = {f"unread {view_name(spec)}": self.prepared(source, spec) for spec in unread}
        known = {**(outputs or {})} | {
            name: Unread(each.lengths) for name, each in silent.items() if each.lengths is not None
        }
        lengths = [spec["max_length"] for spec in (*views, *unread) if "max_length" in spec]
        lengths += [most for each in known.values() if (most := getattr(each, "longest", None))]
        buckets = set(bucket_lengths(max(lengths))) if lengths else set()
        # A text in windows may be longer than any view's maximum.
        buckets |= {
            step
            for each in (*prepared.values(), *silent.values())
            if isinstance(each, PreparedWindows)
            for step in each.buckets
            if step > max(lengths)
        }
        return make(
            source,
            prepared | known,
            batch_size=batch_size,
            buckets=tuple(sorted(buckets)),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            **options,
        )


class Unread:
    """A view of nothing, of examples that have so many tokens."""

    def __init__(self, lengths: np.ndarray):
        self.lengths = lengths

    def gather(self, indices: Any, length: int | None, draws: Any = None) -> dict[str, np.ndarray]:
        """Returns nothing."""
        del indices, length, draws
        return {}


def _load_tokenizer(
    texts: Any, *, tokenizer: str, vocabulary_size: int | None = None, vocabulary: str = "whole"
) -> Tokenizer:
    found = load_tokenizer(tokenizer, texts=texts, vocabulary_size=vocabulary_size)
    return cut_vocabulary(found, texts) if vocabulary == CUT else found


def _image_view(*, size: Any, mean: Any, std: Any, channels: int | None) -> ImageView:
    return ImageView(
        size=_pair(size),
        mean=tuple(mean),
        std=tuple(std),
        channels=channels,
    )


def _pair(size: Any) -> tuple[int, int] | None:
    """Returns height and width; one number means both."""
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else tuple(size)
