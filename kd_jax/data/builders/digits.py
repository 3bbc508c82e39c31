"""Handwritten digits from scikit-learn's wheel: 1,797 grey images of 8 x 8, ten classes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

VERSION = "1.0.0"
PACKAGES = ("scikit-learn",)
_TEST_FRACTION = 0.2


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builds the splits train and test, about 80 to 20 and stratified by class.

    `id` is the position in scikit-learn's order.
    """

    name = "digits"
    VERSION = tfds.core.Version(VERSION)
    # Otherwise TFDS looks for checksums beside this file, with a package that it doesn't declare.
    code_path = None

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "id": np.int32,
                "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
            }
        )
        return tfds.core.DatasetInfo(builder=self, description=__doc__, features=features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager
        images, labels = _load()
        test = split_by_class(labels, _TEST_FRACTION)
        return {
            "train": self._generate_examples(images, labels, np.flatnonzero(~test)),
            "test": self._generate_examples(images, labels, np.flatnonzero(test)),
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, indices: np.ndarray
    ) -> Iterator:
        for index in indices.tolist():
            yield (
                index,
                {
                    "id": index,
                    "image": Image.fromarray(images[index], "L"),
                    "label": int(labels[index]),
                },
            )


def split_by_class(labels: np.ndarray, fraction: float) -> np.ndarray:
    """Picks `fraction` of each class, spread evenly over its order.

    scikit-learn's order goes by writer, so an even spread is a fair sample and needs no random
    generator.

    Args:
      labels: [N] class numbers.
      fraction: in [0, 1].

    Returns:
      [N] bool.
    """
    picked = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks = np.arange(len(members) + 1)
        # A row is picked where the rounded number of picks so far goes up by one.
        picked[members] = np.diff(np.floor(ranks * fraction + 0.5)) > 0
    return picked


def _load() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    # scikit-learn stores intensities from 0 to 16, PNG from 0 to 255.
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target
