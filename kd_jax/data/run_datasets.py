"""An experiment's data: its splits opened once, and each model's view of them prepared once."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from kd_jax.config.names import TRAIN
from kd_jax.core.options import call_with_options
from kd_jax.core.types import Batch
from kd_jax.data.batches import (
    TrainingBatches,
    bucket_lengths,
    evaluation_batches,
    training_batches,
)
from kd_jax.data.cleaning import choose_mode, clean_training, make_limits
from kd_jax.data.concat import concatenate
from kd_jax.data.evaluation_sets import Evaluation, open_evaluations
from kd_jax.data.open import is_own, open_source
from kd_jax.data.source import Source
from kd_jax.data.views.augmentation import make_augmentation
from kd_jax.data.views.image import ImageView
from kd_jax.data.views.text import TextView, load_tokenizer

SPLITS = ("train", "selection", "evaluation")


def view_name(spec: Mapping[str, Any]) -> str:
    """One name for equal views, so that what several models share is computed once."""
    return json.dumps(spec, sort_keys=True)


class Datasets:
    """The splits of an experiment and of its further evaluations.

    Args:
      data: the config's section.
      evaluations: further datasets, see `kd_jax.data.evaluation_sets`.

    Raises:
      ValueError: for a dataset, split or column that doesn't exist, an empty split, or too many
        unreadable or bad rows.
    """

    def __init__(self, data: Mapping[str, Any], evaluations: Mapping[str, Mapping[str, Any]]):
        shared = {key: data[key] for key in ("name", "dir", "inputs", "label", "max_rejected")}
        self.columns = data["inputs"]
        mode = choose_mode(data["cleaning"], is_own(data["name"]))
        self.splits: dict[str, Source] = {"train": open_source(split=data["train"], **shared)}
        names = self.splits["train"].class_names
        for role in SPLITS[1:]:
            self.splits[role] = open_source(split=data[role], **shared, class_names=names)
            if not (self.splits[role].labels >= 0).any():
                raise ValueError(f"data.{role}: {self.splits[role].name!r} has no labels")
        train, held_out = self.splits["train"], [self.splits[role] for role in SPLITS[1:]]
        # Further evaluations may come and go between two starts of a run, so they have no say in
        # what it learns from.
        self.splits["train"], self._cleaned = clean_training(
            train, held_out, mode, data["cleaning"]
        )
        self.cleaning = {
            "mode": mode,
            "rows": len(train),
            "kept": len(self.splits["train"]),
            "quarantined": self._cleaned.counts,
            "repaired": self._cleaned.repaired,
        }
        self.evaluations = open_evaluations(data, evaluations, self.splits["train"])
        inputs = self.splits["train"].inputs
        size = (inputs.shape[1], inputs.shape[2]) if isinstance(inputs, np.ndarray) else None
        self.limits = make_limits(data["cleaning"])
        self._sets: dict[str, Source] = {}
        self._doubted: list[dict[str, Any]] = []
        self._unions: dict[tuple[str, ...], Source] = {}
        self._augmentation = make_augmentation(data["augmentation"], size)
        self._tokenizers: dict[str, Tokenizer] = {}
        self._prepared: dict[tuple[str, str], Any] = {}

    @property
    def num_classes(self) -> int:
        """How many classes the training data has."""
        return len(self.splits["train"].class_names)

    @property
    def modality(self) -> str:
        """ "text" or "image"."""
        return self.splits["train"].modality

    @property
    def augmented(self) -> bool:
        """Whether a training example looks different each time."""
        return self._augmentation is not None

    def add_set(
        self, name: str, source: Source, quarantined: Iterable[dict[str, Any]] = ()
    ) -> None:
        """Makes a transfer set or a trusted set known under its name, and what was quarantined for
        it."""
        self._sets[name] = source
        self._doubted += quarantined

    def remove_set(self, name: str) -> None:
        """Frees a set that no model learns from any more."""
        self.forget(self._sets.pop(name))
        self._unions = {names: union for names, union in self._unions.items() if name not in names}

    def training_source(self, names: tuple[str, ...]) -> Source:
        """What a model learns from: "train" and named sets, as one source."""
        known = {TRAIN: self.splits["train"]} | self._sets
        if names not in self._unions:
            self._unions[names] = concatenate([known[name] for name in names])
        return self._unions[names]

    def fingerprint(self) -> str:
        """SHA-256 over the content of the three splits, training as it was cleaned."""
        parts = "".join(self.splits[role].fingerprint for role in SPLITS)
        return f"sha256:{hashlib.sha256(parts.encode()).hexdigest()}"

    def rejected(self) -> list[dict[str, Any]]:
        """Every row that could not be read, once, with the reason."""
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
        """Every training row that cleaning or the judge of a trusted set found something wrong
        with, and what."""
        name = self.splits["train"].name
        return [
            {"dataset": name, **entry} for entry in (*self._cleaned.quarantined, *self._doubted)
        ]

    def tokenizer(self, spec: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer that a text view names; "trained" learns one from the training texts."""
        options = {key: value for key, value in spec.items() if key != "max_length"}
        key = view_name(options)
        if key not in self._tokenizers:
            self._tokenizers[key] = call_with_options(
                _load_tokenizer, options, "view", self.splits["train"].inputs, key="."
            )
        return self._tokenizers[key]

    def prepared(self, source: Source, spec: Mapping[str, Any]) -> Any:
        """A source seen through a view: tokenised, or resized and normalised on access."""
        key = (source.name, view_name(spec))
        if key not in self._prepared:
            if "tokenizer" in spec:
                if "max_length" not in spec:
                    raise ValueError("view needs option 'max_length'")
                view = TextView(self.tokenizer(spec), spec["max_length"])
            else:
                view = self._as_trained(call_with_options(_image_view, spec, "view", key="."))
            self._prepared[key] = view.prepare(source)
        return self._prepared[key]

    def _as_trained(self, view: ImageView) -> ImageView:
        """What a view leaves open is as in the training images, so that other datasets' images come
        out like these."""
        images = self.splits["train"].inputs
        if not isinstance(images, np.ndarray):
            return view
        size = (images.shape[1], images.shape[2])
        return replace(view, size=view.size or size, channels=view.channels or images.shape[3])

    def open_evaluations(self) -> Iterator[tuple[str, Evaluation, Source]]:
        """Each further dataset in turn; what was prepared of it is forgotten when the next is asked
        for."""
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
        """Tokens that a view knows; None for images."""
        return self.tokenizer(spec).get_vocab_size() if "tokenizer" in spec else None

    def training_batches(
        self,
        source: Source,
        views: Iterable[Mapping[str, Any]],
        training: Mapping[str, Any],
        seed: int,
    ) -> TrainingBatches:
        """The endless stream of a group's training batches."""
        return self._batches(
            training_batches,
            source,
            views,
            training["batch_size"],
            accumulate=training["accumulate"],
            seed=seed,
            augmentation=self._augmentation,
        )

    def evaluation_batches(
        self, source: Source, views: Iterable[Mapping[str, Any]], batch_size: int
    ) -> Iterable[Batch]:
        """Every example of a split once, padded to whole batches."""
        return self._batches(evaluation_batches, source, views, batch_size)

    def _batches(self, make, source, views, batch_size, **options) -> Any:
        prepared = {view_name(spec): self.prepared(source, spec) for spec in views}
        lengths = [spec["max_length"] for spec in views if "max_length" in spec]
        return make(
            source,
            prepared,
            batch_size=batch_size,
            buckets=bucket_lengths(max(lengths)) if lengths else (),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            **options,
        )


def _load_tokenizer(texts: Any, *, tokenizer: str, vocabulary_size: int | None = None) -> Tokenizer:
    return load_tokenizer(tokenizer, texts=texts, vocabulary_size=vocabulary_size)


def _image_view(*, size: Any, mean: Any, std: Any, channels: int | None) -> ImageView:
    return ImageView(
        size=_pair(size),
        mean=tuple(mean),
        std=tuple(std),
        channels=channels,
    )


def _pair(size: Any) -> tuple[int, int] | None:
    """Height and width; one number stands for both."""
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else tuple(size)
