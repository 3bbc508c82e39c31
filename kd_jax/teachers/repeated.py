"""Training batches that come again, as a teacher is asked about them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from kd_jax.core.types import Batch
from kd_jax.data.batches import TrainingBatches, process_columns
from kd_jax.training.mixup import Mixing
from kd_jax.training.step import mixing_keys


@dataclass(frozen=True)
class Repeated:
    """Training batches that come again, augmented and mixed alike.

    Attributes:
      batches: the stream, with the teacher's views.
      steps: how many different batches there are.
      training: the section of whoever learns from them.
      seed: of the group.
      mixing: how they are mixed; None: not at all.
      told: all that decides what they are, beside the source and what a model reads of it.
    """

    batches: TrainingBatches
    steps: int
    training: Mapping[str, Any]
    seed: int
    mixing: Mixing | None
    told: str

    def microbatches(self, part: range) -> "_Microbatches":
        """Returns those whose rows lie in a part, for `compute.ask`."""
        return _Microbatches(self, part)


@dataclass(frozen=True)
class _Microbatches:
    """Pairs of the key that a microbatch is mixed by, and the microbatch, its `index` the places of
    its rows."""

    of: Repeated
    part: range

    def __len__(self) -> int:
        size = self.of.training["batch_size"]
        return -(-len(self.part) // size) * self.of.training["accumulate"]

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Batch]]:
        size, accumulate = self.of.training["batch_size"], self.of.training["accumulate"]
        micro = size // accumulate
        own = process_columns(micro)
        for number in range(self.part.start // size, -(-self.part.stop // size)):
            batch = self.of.batches.at(number)
            keys = mixing_keys(self.of.seed, number, accumulate)
            for each in range(accumulate):
                places = number * size + each * micro + np.arange(micro)
                rows = jax.tree.map(lambda leaf, each=each: leaf[each], batch)
                yield {"key": keys[each]}, rows.replace(index=places[own].astype(np.int32))
