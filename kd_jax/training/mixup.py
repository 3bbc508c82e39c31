"""Mixed training examples: mixup, cutmix, mixup of word embeddings, drawn on the device from the
  step's own stream.

A microbatch is mixed once, before any model reads it, so teachers and student see the same mixes
("function matching") whatever the sizes and tokenizers of their views. A draw belongs to a position
in the global microbatch: it is the same on any number of devices.

Beyer et al. `Knowledge distillation: A good teacher is patient and consistent
  <https://arxiv.org/abs/2106.05237>`_,
2022. Zhang et al. `mixup <https://arxiv.org/abs/1710.09412>`_, 2018. Yun et al. `CutMix
<https://arxiv.org/abs/1905.04899>`_, 2019. Liang et al. `MixKD
<https://arxiv.org/abs/2011.00593>`_, 2021."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kd_jax.core.options import call_with_options
from kd_jax.core.rng import fold_name
from kd_jax.core.types import LOGITS, Array, Batch, View

KINDS = {"image": ("mixup", "cutmix"), "text": ("mixup",)}
"""What can be mixed how: images by pixels or rectangles, texts by their word embeddings."""


class Mix(NamedTuple):
    """What was drawn for some examples.

    Attributes:
      partner: [B] int32, the position in the microbatch of the example that is mixed in.
      weight: [B] float32, the share of the example itself; 1: it stays as it is.
      box: [B, 4] float32, top, bottom, left and right of the partner's rectangle as fractions;
        empty for mixup.
    """

    partner: jax.Array
    weight: jax.Array
    box: jax.Array


@dataclass(frozen=True)
class Mixing:
    """How the examples of a microbatch are mixed.

    Attributes:
      kind: "mixup" or "cutmix".
      probability: that a microbatch is mixed at all.
      share: of its examples that then are, each by itself; below 1 the mixing is partial.
      concentration: alpha of the weight's distribution Beta(alpha, alpha); 1 is uniform.
      candidates: mixes drawn for each example, of which the one is kept that the teachers are least
        certain of (by the entropy of their predictions, as CutMixPick chooses); 1: no choice.
      num_classes: K, where an example has one class; None: its labels are numbers, and stay them.
    """

    kind: str
    probability: float
    share: float
    concentration: float
    candidates: int
    num_classes: int | None

    def draw(self, key: jax.Array, rows: int) -> Mix:
        """Draws for a global microbatch of `rows` examples."""
        # Each quantity has its own stream, so a change in how one is drawn leaves the others alone.
        keys = {
            name: fold_name(key, name)
            for name in ("partner", "weight", "box", "share", "probability")
        }
        # A permutation, not free draws: every example is somebody's partner exactly once.
        partner = jax.random.permutation(keys["partner"], rows)
        weight = jax.random.beta(
            keys["weight"], self.concentration, self.concentration, (rows,), jnp.float32
        )
        # Two draws: one for each example, and one that decides for the whole microbatch.
        mixed = jax.random.bernoulli(keys["share"], self.share, (rows,))
        mixed &= jax.random.bernoulli(keys["probability"], self.probability)
        # A weight of 1 leaves an example pure, while all shapes stay the same for jit.
        weight = jnp.where(mixed, weight, 1)
        if self.kind == "mixup":
            return Mix(partner, weight, jnp.zeros((rows, 4), jnp.float32))
        # A rectangle of the image's shape, its area the partner's share, clipped at the image's
        # edges.
        half = jnp.sqrt(1 - weight)[:, None] / 2
        center = jax.random.uniform(keys["box"], (rows, 2))
        low, high = jnp.maximum(center - half, 0), jnp.minimum(center + half, 1)
        box = jnp.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=-1)
        # Clipping made some rectangles smaller, so the labels get the share that is left.
        return Mix(partner, 1 - jnp.prod(high - low, axis=-1), box)

    def __call__(self, batch: Batch, key: jax.Array, axis_name: str | None = None) -> Batch:
        """Mixes a microbatch within itself.

        Args:
          batch: leaves [B, ...]; under pmap the device's rows of the microbatch.
          key: the same on all devices.
          axis_name: pmap's axis, None under jit.

        Returns:
          The batch with mixed views and soft labels [B, K]. Images are mixed; a text keeps its own
          tokens beside its partner's, `partner_ids` [B, T] and `weight` [B], and both count in its
          mask. A mix of an example without label has none.
        """
        rows = len(batch.valid)
        # Partners may lie on other devices, so under pmap all rows are gathered first.
        together = batch if axis_name is None else jax.lax.all_gather(batch, axis_name, tiled=True)
        # Every device draws for the whole microbatch, so that layouts agree.
        mix = self.draw(key, len(together.valid))
        if axis_name is not None:
            first = jax.lax.axis_index(axis_name) * rows
            mix = Mix(*(jax.lax.dynamic_slice_in_dim(drawn, first, rows) for drawn in mix))
        partner = jax.tree.map(lambda leaf: jnp.asarray(leaf)[mix.partner], together)
        labels = _weighted(
            mix.weight, *(self._soft(jnp.asarray(x.labels)) for x in (batch, partner))
        )
        # A row that kept itself whole needs nothing of its partner.
        pure = mix.weight == 1
        return Batch(
            index=batch.index,
            views={
                name: _mixed_view(view, partner.views[name], mix, self.kind)
                for name, view in batch.views.items()
            },
            labels=labels,
            label_valid=batch.label_valid & (partner.label_valid | pure),
            valid=batch.valid & (partner.valid | pure),
        )

    def _soft(self, labels: jax.Array) -> jax.Array:
        """Turns class numbers [B] or soft labels [B, K] into [B, K]; zeros where there is no
        label.
        """
        if labels.ndim == 1 and self.num_classes is not None:
            return jax.nn.one_hot(labels, self.num_classes)
        return labels


def _mixed_view(view: View, partner: View, mix: Mix, kind: str) -> View:
    if LOGITS in view:
        # A teacher's outputs on these very mixes.
        return view
    if "images" in view:
        return {"images": _mixed_images(view["images"], partner["images"], mix, kind)}
    # A pure text must not attend to its partner's tokens, so those are masked out for it.
    mask, other = jnp.asarray(view["attention_mask"]), jnp.asarray(partner["attention_mask"])
    both = mask | (other & (mix.weight < 1)[:, None])
    return view | {
        "attention_mask": both,
        "partner_ids": partner["input_ids"],
        "weight": mix.weight,
    }


def _mixed_images(images: Array, others: Array, mix: Mix, kind: str) -> jax.Array:
    """Mixes [B, H, W, C]; a pixel is the partner's where its center lies in the rectangle."""
    if kind == "mixup":
        return _weighted(mix.weight, jnp.asarray(images), jnp.asarray(others))
    _, height, width, _ = images.shape
    # Fractions of the side, so views of different sizes get the same rectangle.
    top, bottom, left, right = (mix.box[:, i, None] for i in range(4))
    # Pixels' centers, in shares of the side.
    y, x = ((jnp.arange(size)[None] + 0.5) / size for size in (height, width))
    inside = ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None, :]
    return jnp.where(inside[..., None], others, images)


def _weighted(weight: jax.Array, one: jax.Array, other: jax.Array) -> jax.Array:
    """Mixes `weight` [B] of `one` and the rest of `other`, both [B, ...]."""
    # Cast, because float32 weights would promote half-precision images to float32.
    weight = weight.reshape(-1, *[1] * (one.ndim - 1)).astype(one.dtype)
    return weight * one + (1 - weight) * other


def make_mixing(
    spec: Mapping[str, Any] | None, modality: str, num_classes: int | None
) -> Mixing | None:
    """Builds the mixing of a config's section `training.mixing`.

    Args:
      spec: `kind`, `probability`, `share`, `concentration` and `candidates` as in `Mixing`; None or
        empty: no mixing.
      modality: of the data, "image" or "text".
      num_classes: of the data; None where an example isn't of one class.

    Raises:
      ValueError: for another option, a kind that the data can't have, or a number out of range.
    """
    if not spec:
        return None
    return call_with_options(_make, spec, "training.mixing", modality, num_classes, key=".")


def _make(
    modality: str,
    num_classes: int | None,
    *,
    kind: str,
    probability: float,
    share: float,
    concentration: float,
    candidates: int,
) -> Mixing:
    if kind not in KINDS[modality]:
        raise ValueError(
            f"training.mixing.kind of {modality} data is {' or '.join(KINDS[modality])}, got"
            f" {kind!r}"
        )
    for name, value in (("probability", probability), ("share", share)):
        # Zero is refused as well: it would be no mixing, which has its own spelling, None.
        if not 0 < value <= 1:
            raise ValueError(f"training.mixing.{name} must be in (0, 1], got {value}")
    if not concentration > 0:
        raise ValueError(f"training.mixing.concentration must be positive, got {concentration}")
    if candidates < 1:
        raise ValueError(f"training.mixing.candidates must be at least 1, got {candidates}")
    return Mixing(kind, probability, share, concentration, candidates, num_classes)
