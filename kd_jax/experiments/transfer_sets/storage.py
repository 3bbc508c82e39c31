"""A transfer set on disk: a prepared TFDS dataset in array_record, with soft labels and where they
come from."""

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
from kd_jax.data.readers.tfds import SOFT_LABELS
from kd_jax.data.readers.tfds_writer import prepare_whole
from kd_jax.data.source import Source

VERSION = "1.0.0"
PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Labelled:
    """Inputs and what a teacher says of them.

    Attributes:
      inputs: [N] texts, pairs of texts, or uint8 images [H, W, C].
      soft_labels: [N, K] float32, each row a distribution.
    """

    inputs: Sequence | np.ndarray
    soft_labels: np.ndarray


def columns(modality: str, inputs: Sequence | np.ndarray) -> tuple[str, ...]:
    """Returns the names of the features that hold the inputs."""
    if modality == "image":
        return ("image",)
    return ("text", "text_2") if isinstance(inputs[0], tuple) else ("text",)


def write(
    root: Path, name: str, labelled: Labelled, modality: str, classes: Sequence[str], facts: dict
) -> None:
    """Writes `root/NAME/1.0.0`, whole or not at all.

    Args:
      root: TFDS data directory.
      name: the dataset's.
      labelled: its only split, "train"; `label` is the likeliest class.
      modality: "text" or "image".
      classes: [K].
      facts: JSON, written beside the records as provenance.json.
    """
    # An older set of the same name may be of another teacher, and TFDS would not replace it.
    shutil.rmtree(root / name / VERSION, ignore_errors=True)
    prepare_whole(
        root,
        Path(name, VERSION),
        lambda at: _Builder(
            name, labelled, modality, classes, data_dir=at, file_format="array_record"
        ),
        {PROVENANCE: json.dumps(facts, indent=1)},
    )


def provenance(root: Path, name: str) -> dict[str, Any] | None:
    """Reads provenance.json; None, announced, where it can't be read or there is no such set."""
    return read_facts(
        root / name / VERSION / PROVENANCE, ("teacher",), "the transfer set is made again"
    )


def read(root: Path, name: str, modality: str, pairs: bool, classes: Sequence[str]) -> Source:
    """Opens a set that was written."""
    names = "image" if modality == "image" else ("text", "text_2") if pairs else "text"
    return open_source(
        name,
        "train",
        dir=str(root),
        inputs=names,
        # The class of each row; the soft labels are read beside it.
        label="label",
        max_rejected=0,
        class_names=tuple(classes),
    )


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A dataset of one split whose content is at hand."""

    VERSION = tfds.core.Version(VERSION)
    code_path = None

    def __init__(
        self, name: str, labelled: Labelled, modality: str, classes: Sequence[str], **options: Any
    ):
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]
        self._labelled, self._modality, self._classes = labelled, modality, list(classes)
        self._columns = columns(modality, labelled.inputs)
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        features: dict[str, Any] = {name: self._feature() for name in self._columns}
        # Other tools know hard labels only, so the likeliest class is stored too.
        features["label"] = tfds.features.ClassLabel(names=self._classes)
        features[SOFT_LABELS] = tfds.features.Tensor(shape=(len(self._classes),), dtype=np.float32)
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
        for row, (value, soft) in enumerate(
            zip(self._labelled.inputs, self._labelled.soft_labels, strict=True)
        ):
            values = (
                value
                if isinstance(value, tuple)
                else (value,)
                if isinstance(value, str)
                else (_picture(value),)
            )
            yield (
                row,
                dict(zip(self._columns, values, strict=True))
                | {"label": int(soft.argmax()), SOFT_LABELS: soft},
            )


def _picture(image: np.ndarray) -> Image.Image:
    """Encodes a picture as TFDS does, without TensorFlow."""
    # Pillow takes grey images without the axis of channels.
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
