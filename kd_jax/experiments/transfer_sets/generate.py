"""Where a transfer set's inputs come from: the training data changed at random, or data without
labels."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kd_jax.core.options import call_with_options, choose, is_number, is_whole, options_of
from kd_jax.data.open import open_source
from kd_jax.data.readers import tables, unlabelled
from kd_jax.data.source import Source, texts_of
from kd_jax.experiments.transfer_sets.image_mixes import mix_images
from kd_jax.experiments.transfer_sets.masked_words import MaskedWords
from kd_jax.experiments.transfer_sets.text_augmentation import augment_sentences
from kd_jax.tasks import CLASSIFICATION, Task

KIND = "source of a transfer set"


def check_source(spec: Mapping[str, Any]) -> None:
    """Checks the name of a section `source` and which options it gives.

    Raises:
      ValueError: naming what there is.
    """
    options_of(choose(SOURCES, spec, KIND), spec, "source")


def find_candidates(
    spec: Mapping[str, Any], train: Source, seed: int, task: Task = CLASSIFICATION
) -> Sequence | np.ndarray:
    """Finds new inputs [N], as the config's section `source` of a transfer set says.

    Args:
      spec: `name`, one of `SOURCES`, and its options.
      train: the training split, or what is trusted of it.
      seed: of all draws.
      task: for which the inputs are.

    Raises:
      ValueError: for another name, an option out of range, or a source that the data can't have.
    """
    found = _find(spec, train, seed, task)
    if isinstance(found, Iterator):
        found = list(found)
    if not len(found):
        raise ValueError("its source holds nothing that can be read")
    if train.modality == "text":
        # Where each text of a pair is an example, so it is here; and words stand between spaces.
        found = [text for each in found for text in texts_of(each)] if task.apart else found
        found = [" ".join(text.split()) for text in found] if task.words else found
        _check_parts(found[0], train)
    return found


def check_candidates(spec: Mapping[str, Any], train: Source, task: Task = CLASSIFICATION) -> None:
    """Makes the first candidates, of few training rows: what can't be made is so refused before a
    teacher is trained.

    Raises:
      ValueError: as `find_candidates`.
    """
    few = replace(train, inputs=train.inputs[:2], labels=train.labels[:2])
    found = _find(spec, few, 0, task)
    first = next(iter(found), None)
    if first is None:
        raise ValueError("its source holds nothing that can be read")
    if train.modality == "text":
        _check_parts(texts_of(first)[0] if task.apart else first, train)


def _find(spec: Mapping[str, Any], train: Source, seed: int, task: Task) -> Any:
    find = choose(SOURCES, spec, KIND)
    return call_with_options(find, spec, "source", train, np.random.default_rng(seed), task)


def _augmented(
    train: Source,
    rng: np.random.Generator,
    _task: Task,
    *,
    rounds: int,
    mask: float,
    swap: float,
    ngram: float,
    mask_token: str,
) -> list:
    """Changes training texts `rounds` times each; see `augment_sentences`."""
    _require("text", train, "augmented")
    _check_rounds(rounds)
    _check_shares(mask=mask, swap=swap, ngram=ngram)
    # One draw decides between the two, so their shares must fit into 1 together.
    if mask + swap > 1:
        raise ValueError(
            f"mask and swap are shares of the words and sum to at most 1, got {mask} and {swap}"
        )
    options = {"mask": mask, "swap": swap, "ngram": ngram, "mask_token": mask_token, "rng": rng}
    return _by_part(list(train.inputs), rounds, lambda texts: augment_sentences(texts, **options))


def _masked_words(
    train: Source,
    rng: np.random.Generator,
    _task: Task,
    *,
    rounds: int,
    model: str,
    replace: float,
    candidates: int,
    max_length: int,
) -> list:
    """Replaces words of training texts by a masked language model's, `rounds` times each.

    See `MaskedWords`.
    """
    _require("text", train, "masked_words")
    _check_rounds(rounds)
    _check_shares(replace=replace)
    # Loaded after the cheap checks, since a model takes time and memory.
    language = MaskedWords.load(model, candidates=candidates, max_length=max_length)
    return _by_part(
        list(train.inputs), rounds, lambda texts: language.augment(texts, replace=replace, rng=rng)
    )


def _mixes(
    train: Source,
    rng: np.random.Generator,
    _task: Task,
    *,
    rounds: int,
    kind: str,
    concentration: float,
) -> np.ndarray:
    """Mixes training images with one another, `rounds` times each."""
    _require("image", train, "mixes")
    _check_rounds(rounds)
    if not (is_number(concentration) and concentration > 0):
        raise ValueError(f"concentration must be positive, got {concentration}")
    # The generator goes on from round to round, so every round gives other mixes.
    mixed = [
        mix_images(train.inputs, kind=kind, concentration=concentration, rng=rng)
        for _ in range(rounds)
    ]
    return np.concatenate(mixed)


def _unlabelled(
    train: Source,
    _rng: np.random.Generator,
    task: Task,
    *,
    dataset: str,
    split: str | None,
    dir: str | None,
    inputs: Any,
    label: str | None,
) -> Sequence | np.ndarray | Iterator:
    """Reads a file or folder one row at a time, or a split of TFDS, without looking at labels.

    Rows that can't be read are left out.
    """
    columns = (inputs,) if isinstance(inputs, str) else tuple(inputs or ())
    path = Path(dataset).expanduser()
    # A file goes before a TFDS dataset of the same name.
    if path.exists():
        # New images get the channels of the training data, or no model could read them.
        channels = train.inputs[0].shape[-1] if train.modality == "image" else None
        if path.suffix.lower() in tables.SUFFIXES and not columns:
            raise ValueError(f"source.inputs must name a column of {dataset!r}, or two for pairs")
        rows = unlabelled.read(path, train.modality, columns, channels, words=task.words)
        return (row.value for row in rows if row.error is None)
    if split is None or label is None:
        raise ValueError(
            f"there is no file or folder {dataset!r}; a TFDS dataset needs split and label"
        )
    # TFDS datasets are read by their label column, but nobody uses the labels.
    source = open_source(dataset, split, dir=dir, inputs=inputs, label=label, max_rejected=0)
    _require(train.modality, source, "unlabelled")
    return source.inputs


SOURCES: dict[str, Callable[..., Any]] = {
    "augmented": _augmented,
    "masked_words": _masked_words,
    "mixes": _mixes,
    "unlabelled": _unlabelled,
}
"""Name -> inputs, from the training split, a random generator and the section's options."""


def _by_part(inputs: Sequence, rounds: int, augment: Callable[[Sequence[str]], list[str]]) -> list:
    """Texts, or pairs of which both parts are changed."""
    if not isinstance(inputs[0], tuple):
        # Each round draws anew, so one text gives several different ones.
        return [text for _ in range(rounds) for text in augment(inputs)]
    firsts, seconds = zip(*inputs, strict=True)
    return [
        pair for _ in range(rounds) for pair in zip(augment(firsts), augment(seconds), strict=True)
    ]


def _check_parts(text: Any, train: Source) -> None:
    have, need = len(texts_of(text)), len(texts_of(train.inputs[0]))
    if have != need:
        kinds = {1: "single texts", 2: "pairs of texts"}
        raise ValueError(f"its source holds {kinds[have]}, and {train.name!r} {kinds[need]}")


def _require(modality: str, source: Source, name: str) -> None:
    if source.modality != modality:
        raise ValueError(
            f"source {name!r} is of {modality}s, and {source.name!r} holds {source.modality}s"
        )


def _check_rounds(rounds: int) -> None:
    if not is_whole(rounds, 1):
        raise ValueError(f"rounds must be a whole number from 1 on, got {rounds!r}")


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not (is_number(share) and 0 <= share <= 1):
            raise ValueError(f"{name} lies between 0 and 1, got {share}")
