"""The docstrings, with 300 hostile training texts of every kind that cleaning finds in texts.

The feature `planted` holds for each hostile text the reason for which cleaning should find it.
Classes, validation and test are those of `docstrings`.
"""

import random
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from kd_jax.data.builders import docstrings
from kd_jax.data.builders.docstrings import PACKAGES, choose_split
from kd_jax.data.cleaning.hostile_examples import HostileExamples, add_hostile_examples

VERSION = "1.0.0"
HOSTILE, SEED = 300, 0


class Builder(docstrings.Builder):
    """Builds the splits train, validation and test; only train has hostile texts.

    Each has an order of its own, in which a repetition follows its original.
    """

    name = "hostile_docstrings"
    VERSION = tfds.core.Version(VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "id": np.int32,
                "text": tfds.features.Text(),
                "label": tfds.features.ClassLabel(names=list(PACKAGES)),
                "planted": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self, description=__doc__, features=features, disable_shuffling=True
        )

    def _generate_examples(self, labelled: dict[str, str], split: str) -> Iterator:
        texts = [text for text in labelled if choose_split(text) == split]
        # Texts are sorted until here; hostile ones take the place of the first, which must be a
        # fair sample.
        random.Random(SEED).shuffle(texts)
        found = HostileExamples([*texts], [PACKAGES.index(labelled[text]) for text in texts])
        if split == "train":
            # All other splits, so that repetitions of evaluation texts are of both of them.
            held_out = [text for text in labelled if choose_split(text) != split]
            found = add_hostile_examples(
                texts, found.labels, held_out, SEED, HOSTILE, len(PACKAGES)
            )
        for index, (text, label) in enumerate(zip(found.inputs, found.labels, strict=True)):
            yield (
                index,
                {
                    "id": index,
                    "text": _storable(text),
                    "label": label,
                    "planted": found.wanted.get(index, ""),
                },
            )


def _storable(text: str | bytes) -> str:
    """Decodes what isn't valid UTF-8 as readers show it, with U+FFFD in its place."""
    found = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return found.decode("utf-8", "replace")
