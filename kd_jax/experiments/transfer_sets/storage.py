"""A transfer set on disk: a prepared TFDS dataset in array_record, with a teacher's labels and the
facts of their origin."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from kd_jax.core.json_files import read_facts
from kd_jax.data.open import open_source
from kd_jax.data.readers.tfds import SOFT_LABELS, Records, read_records
from kd_jax.data.readers.tfds_writer import prepare_whole
from kd_jax.data.source import Source, fingerprint, texts_of
from kd_jax.tasks import CLASSIFICATION, Task

VERSION = "1.0.0"
PROVENANCE = "provenance.json"
LABELS = "labels"
"""Feature of a set whose labels are no distributions over classes."""


@dataclass(frozen=True)
class Labelled:
    """Inputs and what a teacher says of them.

    Attributes:
      inputs: [N] texts, pairs of texts, or uint8 images [H, W, C].
      labels: [N, K] float32, or [N, W] int32, -1 after the last; None: it says nothing.
      class_names: [K].
    """

    inputs: Sequence | np.ndarray
    labels: np.ndarray | None
    class_names: Sequence[str]


def columns(modality: str, inputs: Sequence | np.ndarray) -> tuple[str, ...]:
    """Returns the names of the features that hold the inputs."""
    if modality == "image":
        return ("image",)
    return ("text", "text_2") if isinstance(inputs[0], tuple) else ("text",)


def write(
    root: Path, name: str, labelled: Labelled, modality: str, facts: dict, *, soft: bool = True
) -> None:
    """Writes `root/NAME/1.0.0`, whole or not at all.

    Args:
      root: TFDS data directory.
      name: the dataset's.
      labelled: its only split, "train".
      modality: "text" or "image".
      facts: JSON, written beside the records as provenance.json.
      soft: whether labels are distributions; then `label` is the likeliest class.
    """
    # An older set of the same name may be of another teacher, and TFDS would not replace it.
    shutil.rmtree(root / name / VERSION, ignore_errors=True)
    prepare_whole(
        root,
        Path(name, VERSION),
        lambda at: _Builder(
            name, labelled, modality, soft, data_dir=at, file_format="array_record"
        ),
        {PROVENANCE: json.dumps(facts, indent=1)},
    )


def about(root: Path, name: str) -> Path:
    """Returns the path of a set's provenance.json, which is there once all of the set is."""
    return root / name / VERSION / PROVENANCE


def provenance(root: Path, name: str) -> dict[str, Any] | None:
    """Reads provenance.json; None, announced, where it can't be read or there is no such set."""
    return read_facts(about(root, name), ("teacher",), "the transfer set is made again")


def missing_files(root: Path, name: str) -> list[str]:
    """Returns the names of a set's files of records that aren't there."""
    builder: Any = tfds.builder_from_directory(root / name / VERSION)
    paths = [Path(path) for path in builder.info.splits["train"].filepaths]
    return [path.name for path in paths if not path.is_file()]


def copy(source: Path, old: str, root: Path, name: str) -> None:
    """Copies a set into another folder and name, whole or not at all."""
    target = root / name / VERSION
    shutil.rmtree(target, ignore_errors=True)
    # A process that is killed leaves a folder that nothing reads.
    half = target.with_name(f"{VERSION}.half")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(source / old / VERSION, half)
    half.rename(target)


def read(
    root: Path,
    name: str,
    modality: str,
    pairs: bool,
    classes: Sequence[str],
    task: Task = CLASSIFICATION,
) -> Source:
    """Opens a set that was written."""
    builder: Any = tfds.builder_from_directory(root / name / VERSION)
    features = dict(builder.info.features.items())
    names = ("image",) if modality == "image" else ("text", "text_2") if pairs else ("text",)
    if SOFT_LABELS in features:
        return open_source(
            name,
            "train",
            dir=str(root),
            inputs=("text", "text_2") if pairs else names[0],
            # The class of each row; the soft labels are read beside it.
            label="label",
            max_rejected=0,
            class_names=tuple(classes),
        )
    count = builder.info.splits["train"].num_examples
    parts = [("train", range(count))]
    inputs, _, contents, _ = read_records(Records(builder, parts, names), names, None, features)
    labels = task.no_labels(count, classes)
    if LABELS in features:
        labels = np.stack([record[LABELS] for record in Records(builder, parts, ())])
    return Source(
        f"{name} train",
        modality,
        inputs,
        labels,
        tuple(classes),
        fingerprint(contents, labels, classes),
        ids=[f"train:{row}" for row in range(count)],
    )


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A dataset of one split whose content is at hand."""

    VERSION = tfds.core.Version(VERSION)
    code_path = None

    def __init__(self, name: str, labelled: Labelled, modality: str, soft: bool, **options: Any):
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]
        self._labelled, self._modality, self._soft = labelled, modality, soft
        self._columns = columns(modality, labelled.inputs)
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        features: dict[str, Any] = {name: self._feature() for name in self._columns}
        classes, labels = list(self._labelled.class_names), self._labelled.labels
        if self._soft:
            # Other tools know hard labels only, so the likeliest class is stored too.
            features["label"] = tfds.features.ClassLabel(names=classes)
            features[SOFT_LABELS] = tfds.features.Tensor(shape=(len(classes),), dtype=np.float32)
        elif labels is not None:
            features[LABELS] = tfds.features.Tensor(shape=labels.shape[1:], dtype=labels.dtype.type)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Labelled by a teacher.",
            features=tfds.features.FeaturesDict(features),
            # The order must stay, because outputs that are kept beside the set are found by row.
            disable_shuffling=True,
        )

    def _feature(self) -> Any:
        if self._modality == "text":
            return tfds.features.Text()
        shape = (None, None, self._labelled.inputs[0].shape[-1])
        # PNG loses nothing; JPEG would change the pixels that the teacher labelled.
        return tfds.features.Image(shape=shape, encoding_format="png")

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator:
        for row, value in enumerate(self._labelled.inputs):
            values = (_picture(value),) if self._modality == "image" else texts_of(value)
            yield row, dict(zip(self._columns, values, strict=True)) | self._labels(row)

    def _labels(self, row: int) -> dict[str, Any]:
        if self._labelled.labels is None:
            return {}
        given = self._labelled.labels[row]
        if self._soft:
            return {"label": int(given.argmax()), SOFT_LABELS: given}
        return {LABELS: given}


def _picture(image: np.ndarray) -> Image.Image:
    """Encodes a picture as TFDS does, without TensorFlow."""
    # Pillow takes grey images without the axis of channels.
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
