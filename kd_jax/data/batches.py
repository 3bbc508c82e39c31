"""Makes batches of a source and its views: shuffled, grouped by length, padded with a mask.

The global batch is formed first and sliced by process after, so its rows and their order depend on
neither the process count nor `accumulate`. The n-th batch is a function of the seed and n alone, so
a position in the stream is one number.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import grain
import jax
import numpy as np

from kd_jax.core.types import LOGITS, POSITIONS, Batch, View
from kd_jax.data.source import Source, are_labelled
from kd_jax.data.views.augmentation import Augmentation, Draws


class PreparedView(Protocol):
    """A source as one model reads it, ready to be looked up by position."""

    @property
    def lengths(self) -> np.ndarray | None:
        """Returns [N] tokens of each example, None for images."""
        ...

    def gather(
        self, indices: np.ndarray, length: int | None, draws: Any = None
    ) -> dict[str, np.ndarray]:
        """Returns the examples at `indices`, padded and augmented: name -> [b, ...].

        Args:
          indices: [b] positions in the source.
          length: tokens to pad to; None: the view's own maximum. Images ignore it.
          draws: how each example is augmented; None: not at all.
        """
        ...


class TrainingBatches:
    """An endless iterator of `Batch`, leaves [accumulate, microbatch // process_count, ...]."""

    def __init__(self, dataset: grain.MapDataset[Batch]):
        self._dataset = dataset
        # Up to four batches are made ahead, so that reading overlaps with training.
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
        self._iterator = iter(dataset.to_iter_dataset(options))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)

    def at(self, number: int) -> Batch:
        """Returns a batch by its number, counted from 0; the iterator stays where it is."""
        return cast(Batch, self._dataset[number])

    def get_state(self) -> dict:
        """Returns the position in the stream, as a JSON object."""
        return dict(self._iterator.get_state())

    def set_state(self, state: dict) -> None:
        """Moves to a position that `get_state` returned."""
        self._iterator.set_state(state)


def training_batches(
    source: Source,
    views: Mapping[str, PreparedView],
    *,
    batch_size: int,
    accumulate: int,
    seed: int,
    process_index: int,
    process_count: int,
    buckets: tuple[int, ...],
    augmentation: Augmentation | None = None,
    augmented_epochs: int | None = None,
    by_place: Mapping[str, PreparedView] | None = None,
) -> TrainingBatches:
    """Builds the endless stream of full batches; every epoch is shuffled anew.

    Args:
      source: N examples; N may be less than `batch_size`.
      views: name -> prepared view of `source`.
      batch_size: examples of the global batch, of which each of `accumulate` microbatches gets an
        equal part.
      accumulate: number of microbatches.
      seed: of the shuffle.
      process_index: which of the `process_count` equal slices of each microbatch to read.
      process_count: number of processes.
      buckets: ascending lengths to pad text to; a batch holds one bucket's examples. Empty for
        images.
      augmentation: of images; None: they stay as they are.
      augmented_epochs: epochs after which the same batches come again, augmented alike; None:
        never.
      by_place: further views of what stands at a place in the repeated batches, counted over all of
        their rows, and not of examples.

    Raises:
      ValueError: if `batch_size` doesn't divide, or a text is longer than the last bucket.
    """
    parts = accumulate * process_count
    if batch_size % parts:
        raise ValueError(
            f"batch_size {batch_size} is not divisible by accumulate x process_count, {parts}"
        )
    microbatch = batch_size // accumulate
    columns = _slice(microbatch, process_index, process_count)

    def gather(item: tuple[int, int | None, np.ndarray], rng: np.random.Generator) -> Batch:
        number, length, indices = item
        # The position in the global batch decides a row's augmentation, so the draws are made for
        # the whole batch and this process takes its rows' share of them.
        positions = np.arange(batch_size).reshape(accumulate, microbatch)[:, columns]
        mine = indices[positions]
        draws = (
            None
            if augmentation is None
            else augmentation.draw(rng, batch_size)[positions.reshape(-1)]
        )
        places = number * batch_size + positions.reshape(-1)
        known = {name: view.gather(places, length) for name, view in (by_place or {}).items()}
        everyone = np.ones(mine.size, bool)
        batch = _gather(source, views, mine.reshape(-1), length, everyone, draws, known)
        return jax.tree.map(lambda leaf: leaf.reshape(*mine.shape, *leaf.shape[1:]), batch)

    groups = assign_buckets(views, len(source), buckets)
    stream = shuffled_indices(groups, batch_size, seed, augmented_epochs)
    numbered = stream.map_with_index(lambda number, item: (number, *item))
    # The generator that Grain hands out depends on the seed and the batch's number alone.
    made = numbered.seed(seed % 2**32).random_map(gather)
    repeated = augmented_epochs is not None
    return TrainingBatches(made.repeat(None, reseed_each_epoch=False) if repeated else made)


def repeated_batches(
    source: Source,
    views: Mapping[str, PreparedView],
    *,
    batch_size: int,
    buckets: tuple[int, ...],
    augmented_epochs: int,
    process_index: int,
    process_count: int,
) -> int:
    """Returns after how many batches the same ones come again; see `training_batches`."""
    del process_index, process_count
    groups = assign_buckets(views, len(source), buckets)
    return sum(_batches_of(len(each), augmented_epochs, batch_size) for each in groups.values())


def _batches_of(examples: int, epochs: int, batch_size: int) -> int:
    return math.ceil(examples * epochs / batch_size)


def shuffled_indices(
    groups: Mapping[int | None, np.ndarray],
    batch_size: int,
    seed: int,
    epochs: int | None = None,
) -> grain.MapDataset:
    """Builds a dataset of pairs (bucket, indices [batch_size]), endless unless `epochs` are given.

    Buckets take turns in proportion to their numbers of examples.

    Args:
      groups: bucket -> indices of its examples, as `assign_buckets` returns them.
      batch_size: examples of the global batch.
      seed: of the shuffle.
      epochs: passes over every bucket, the last batch of each filled up with the next pass.
    """
    streams = []
    for number, (length, members) in enumerate(groups.items()):
        # A seed of its own for each bucket, within the 32 bits that Grain takes.
        stream_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        # Repeated before it is batched: a batch may span two epochs, and none is ever short.
        endless = (
            grain.MapDataset.source(cast(Sequence, members))
            .seed(stream_seed)
            .shuffle()
            .repeat(None)
        )
        # Grain counts an endless stream's batches of one up to a number beyond Python's sizes.
        stream = endless.batch(batch_size) if batch_size > 1 else endless.map(np.atleast_1d)
        streams.append(stream.map(lambda indices, length=length: (length, indices)))
    if epochs is None:
        return grain.MapDataset.mix(streams, weights=[len(each) for each in groups.values()])
    # Each bucket has all of its batches: those of a rare one would come late in a mixture.
    counts = [_batches_of(len(members), epochs, batch_size) for members in groups.values()]
    turns = sorted(
        ((place + 0.5) / count, number, place)
        for number, count in enumerate(counts)
        for place in range(count)
    )
    return grain.MapDataset.source(turns).map(lambda turn: streams[turn[1]][turn[2]])


def assign_buckets(
    views: Mapping[str, PreparedView], count: int, buckets: tuple[int, ...]
) -> dict[int | None, np.ndarray]:
    """Groups examples by the length that they are padded to.

    An example's bucket is the smallest that holds it in every text view; without text or buckets
    all examples are under None.

    Args:
      views: name -> prepared view.
      count: number of examples, N.
      buckets: ascending lengths.

    Returns:
      Bucket -> its examples' indices, int32 ascending; buckets without examples are left out.

    Raises:
      ValueError: if a text is longer than the last bucket.
    """
    lengths = [view.lengths for view in views.values() if view.lengths is not None]
    if not lengths or not buckets:
        return {None: np.arange(count, dtype=np.int32)}
    # All views of a batch share one bucket: a teacher with a finer tokenizer sets the length.
    longest = np.max(lengths, axis=0)
    if longest.max() > buckets[-1]:
        raise ValueError(
            f"a text of {longest.max()} tokens is longer than the last bucket, {buckets[-1]}"
        )
    numbers = np.searchsorted(buckets, longest)
    return {
        buckets[number]: np.flatnonzero(numbers == number).astype(np.int32)
        for number in np.unique(numbers)
    }


class EvaluationBatches:
    """Every example once, in batches [batch_size // process_count, ...]; can be iterated again.

    The rows that fill a bucket's last batch repeat its first example, with `valid` and
    `label_valid` false.
    """

    def __init__(
        self,
        source: Source,
        views: Mapping[str, PreparedView],
        groups: Mapping[int | None, np.ndarray],
        batch_size: int,
        columns: slice,
    ):
        self._source, self._views, self._groups = source, views, groups
        self._batch_size, self._columns = batch_size, columns

    def __len__(self) -> int:
        return sum(math.ceil(len(members) / self._batch_size) for members in self._groups.values())

    def __iter__(self) -> Iterator[Batch]:
        for length, members in self._groups.items():
            for start in range(0, len(members), self._batch_size):
                indices = members[start : start + self._batch_size]
                # The last batch is filled up, so that it needs no second compiled program and every
                # process gets a slice of it.
                fill = np.full(self._batch_size - len(indices), indices[0])
                valid = np.arange(self._batch_size) < len(indices)
                indices = np.concatenate([indices, fill])[self._columns]
                yield _gather(self._source, self._views, indices, length, valid[self._columns])


def evaluation_batches(
    source: Source,
    views: Mapping[str, PreparedView],
    *,
    batch_size: int,
    process_index: int,
    process_count: int,
    buckets: tuple[int, ...],
    rows: range | None = None,
) -> EvaluationBatches:
    """Builds batches with every example exactly once, equally many on every process.

    Args:
      source: N examples.
      views: name -> prepared view of `source`.
      batch_size: examples of the global batch.
      process_index: which of the `process_count` equal slices of each batch to read.
      process_count: number of processes.
      buckets: as in `training_batches`.
      rows: neighbouring examples, where not all of them are wanted.

    Raises:
      ValueError: if `batch_size` doesn't divide, or a text is longer than the last bucket.
    """
    if batch_size % process_count:
        raise ValueError(
            f"batch_size {batch_size} is not divisible by process_count {process_count}"
        )
    groups = assign_buckets(views, len(source), buckets)
    if rows is not None:
        within = {
            length: members[(members >= rows.start) & (members < rows.stop)]
            for length, members in groups.items()
        }
        groups = {length: members for length, members in within.items() if len(members)}
    return EvaluationBatches(
        source, views, groups, batch_size, _slice(batch_size, process_index, process_count)
    )


def process_columns(size: int) -> slice:
    """Returns which of a microbatch's rows this process reads."""
    return _slice(size, jax.process_index(), jax.process_count())


def _slice(size: int, process_index: int, process_count: int) -> slice:
    share = size // process_count
    return slice(process_index * share, (process_index + 1) * share)


def _gather(
    source: Source,
    views: Mapping[str, PreparedView],
    indices: np.ndarray,
    length: int | None,
    valid: np.ndarray,
    draws: Draws | None = None,
    known: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Batch:
    labels = source.labels[indices]
    found = {name: cast(View, view.gather(indices, length, draws)) for name, view in views.items()}
    # What only decides the groups is no part of a batch.
    found = {name: view for name, view in found.items() if view}
    found |= {name: cast(View, {**view}) for name, view in (known or {}).items()}
    positions = _align(list(found.values()))
    # What is hidden in a text is its label; all views are one here.
    for view in found.values():
        labels = np.asarray(view.pop("labels", labels))
    if positions is not None and labels.ndim == 2:
        labels = _widened(labels, positions.shape[1])
    return Batch(
        index=indices.astype(np.int32),
        views=found,
        labels=np.nan_to_num(labels) if source.soft_labels is None else source.soft_labels[indices],
        label_valid=are_labelled(labels) & valid,
        valid=valid,
        positions=positions,
    )


def _align(views: list[View]) -> np.ndarray | None:
    """Gives all views room for as many words; returns which of them are there in every view.

    None where an example has one prediction.
    """
    asking = [view for view in views if POSITIONS in view]
    # Stored outputs have room for their own rows' words only, which is another size in each batch.
    widths = [view[POSITIONS].shape[1] for view in asking if LOGITS not in view]
    if not widths:
        return None
    width = max(widths)
    for view in asking:
        view[POSITIONS] = _widened(np.asarray(view[POSITIONS]), width)
    for view in views:
        for name in view:
            if LOGITS in view and name.split("/")[0] == LOGITS:
                view[name] = _with_room(np.asarray(view[name]), width)
    return np.logical_and.reduce([view[POSITIONS] >= 0 for view in asking])


def _with_room(values: np.ndarray, width: int) -> np.ndarray:
    """Returns [b, P, ...] values in [b, width, ...], zeros where there was nothing."""
    kept = values[:, :width]
    return np.pad(kept, [(0, 0), (0, width - kept.shape[1])] + [(0, 0)] * (kept.ndim - 2))


def _widened(values: np.ndarray, width: int) -> np.ndarray:
    """Returns [b, W] values in [b, width]: filled up with -1, or without what no row has."""
    kept = values[:, :width]
    return np.pad(kept, ((0, 0), (0, width - kept.shape[1])), constant_values=-1)
