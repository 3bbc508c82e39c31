"""The parts of an example whose presence is attributed: a grid of patches, or the tokens of a
tokenizer."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_jax.analysis.masking import (
    Masking,
    hide_tokens,
    mask_batch,
    replace_patches,
    replace_tokens,
)
from kd_jax.core.types import Batch
from kd_jax.data.run_datasets import Datasets, view_name
from kd_jax.data.views.text import padding_id
from kd_jax.training.trained_model import TrainedModel

SIDE = 8
"""Patches along each side of a picture, or the next smaller number that divides it."""


@dataclass(frozen=True)
class PatchesAndTokens:
    """How examples fall into parts, and how models see them.

    Attributes:
      grid: rows and columns of patches; None for tokens.
      masking: hides parts in every view.
      views: name -> section of the views that are read.
    """

    grid: tuple[int, int] | None
    masking: Masking
    views: dict[str, Any]

    @property
    def kind(self) -> str:
        """Returns "patches" or "tokens"."""
        return "tokens" if self.grid is None else "patches"

    def count(self, batch: Batch) -> int:
        """Returns how many parts an example has, those that only fill a text up included."""
        if self.grid is not None:
            return math.prod(self.grid)
        return next(iter(batch.views.values()))["input_ids"].shape[1]

    def tokens(self, datasets: Datasets, batch: Batch) -> list[str] | None:
        """Returns the tokens of an example without those that only fill; None for pictures."""
        if self.grid is not None:
            return None
        # Texts are explained in one view at a time, as each tokenizer makes its own parts.
        ((name, spec),) = self.views.items()
        view, tokenizer = batch.views[name], datasets.tokenizer(spec)
        ids = np.asarray(view["input_ids"])[0][np.asarray(view["attention_mask"])[0]]
        return [str(tokenizer.id_to_token(int(number))) for number in ids]


def one_example(datasets: Datasets, views: Mapping[str, Any], index: int) -> Batch:
    """Returns a batch of one evaluation example, a text padded to its bucket's length."""
    source, seen = datasets.splits["evaluation"], {}
    for name, spec in views.items():
        prepared, length = datasets.prepared(source, spec), None
        # The same few lengths as in evaluation, so that few programs are compiled.
        if spec.get("long") == "windows":
            raise ValueError("texts in windows (view.long) aren't explained yet; name another view")
        if "max_length" in spec:
            length = next(step for step in prepared.buckets if step >= prepared.lengths[index])
        seen[name] = prepared.gather(np.array([index]), length)
    everyone = np.ones(1, bool)
    # Its label doesn't count: nobody is told the answer.
    return Batch(np.array([index], np.int32), seen, source.labels[[index]], ~everyone, everyone)


def views_of(*models: TrainedModel) -> dict[str, Any]:
    """Returns name -> section of all that the models read."""
    return {view_name(spec): spec for model in models for spec in model.views}


def split(views: dict[str, Any], datasets: Datasets) -> PatchesAndTokens:
    """Splits examples into parts, in views that show the same: pictures of any sizes, or one of
    texts.
    """
    if datasets.modality == "image":
        grid = _grid(
            datasets.prepared(datasets.splits["evaluation"], spec) for spec in views.values()
        )
        # Zero is the view's mean, and so the colour that says least.
        maskings = {name: replace_patches(grid=grid, baseline=0.0) for name in views}
        return PatchesAndTokens(grid, mask_batch(maskings), views)
    ((name, spec),) = views.items()
    tokenizer = datasets.tokenizer(spec)
    # What the tokenizer gives for an empty text are its special tokens; these never disappear.
    always = tuple(dict.fromkeys(tokenizer.encode("").ids))
    # A text needs something that stays; one without special tokens keeps its length instead.
    masking = (
        hide_tokens(fixed_ids=always)
        if always
        else replace_tokens(baseline_id=padding_id(tokenizer), fixed_ids=())
    )
    return PatchesAndTokens(None, mask_batch({name: masking}), views)


def _grid(prepared: Iterable[Any]) -> tuple[int, int]:
    """Rows and columns that divide the pictures of all views."""
    sizes = np.array([each.gather(np.array([0]), None)["images"].shape[1:3] for each in prepared])
    # A grid that divides the side of every view makes a patch show the same part in all of them.
    return _patches(math.gcd(*sizes[:, 0].tolist())), _patches(math.gcd(*sizes[:, 1].tolist()))


def _patches(side: int) -> int:
    """Returns the largest divisor up to `SIDE`; if a side has none but 1, the smallest beyond."""
    divisors = [count for count in range(2, side + 1) if side % count == 0]
    return max((count for count in divisors if count <= SIDE), default=min(divisors, default=1))
