"""How the players of an attribution are hidden: tokens of a text, patches of an image."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from kd_jax.core.types import Array, Batch, View

Masking = Callable[[Any, jax.Array], Any]
"""Hides players: a view, or a `Batch`, of `N` rows and which players stay, bool `[N, M]` -> the
same with them hidden. """


def replace_tokens(*, baseline_id: int, fixed_ids: tuple[int, ...]) -> Masking:
    """Tokens become a baseline token, such as the tokenizer's mask or unknown token; the text keeps
    its length.

    Args:
      baseline_id: the token shown in place of a hidden one.
      fixed_ids: tokens that are always shown, such as those that begin and end a text; their
        attribution is 0, and so is that of padding.

    Returns:
      A masking of text views, whose players are the `T` positions.
    """

    def mask(view: View, kept: jax.Array) -> View:
        hidden = _hidden_tokens(view, kept, fixed_ids)
        # A new mapping, since the caller's view must stay as it is.
        return view | {"input_ids": jnp.where(hidden, baseline_id, view["input_ids"])}

    return mask


def hide_tokens(*, fixed_ids: tuple[int, ...]) -> Masking:
    """Tokens leave the attention mask, as if they were padding; the others keep their positions.

    Args:
      fixed_ids: as in `replace_tokens`. A text should have one of them, since with no token left at
        all a network gives an arbitrary logit.

    Returns:
      A masking of text views, whose players are the `T` positions.
    """

    def mask(view: View, kept: jax.Array) -> View:
        hidden = _hidden_tokens(view, kept, fixed_ids)
        # Its own dtype is kept, so that the network is not compiled a second time.
        attention_mask = jnp.asarray(view["attention_mask"])
        return view | {
            "attention_mask": jnp.where(hidden, jnp.zeros((), attention_mask.dtype), attention_mask)
        }

    return mask


def replace_patches(*, grid: tuple[int, int], baseline: Array | float) -> Masking:
    """Patches of an image become a baseline, such as the mean image or the mean of each channel.

    Args:
      grid: rows and columns of patches, dividing height and width.
      baseline: in the unit of the view's images; one value, `[C]` or `[H, W, C]`.

    Returns:
      A masking of image views, whose `grid[0] * grid[1]` players are the patches row by row.
    """

    def mask(view: View, kept: jax.Array) -> View:
        _require_views(view, "images")
        images = jnp.asarray(view["images"])
        count, height, width, channels = images.shape
        # A border that belongs to no patch could never be hidden.
        if height % grid[0] or width % grid[1]:
            raise ValueError(
                f"a grid of {grid} patches doesn't divide images of {height} x {width}"
            )
        if kept.shape != (count, grid[0] * grid[1]):
            raise ValueError(
                f"a grid of {grid} has {grid[0] * grid[1]} players, got permutations of"
                f" {kept.shape[1]}"
            )
        # The images' dtype, so that the masked view has the type the network was compiled for.
        value = jnp.asarray(baseline, images.dtype)
        if value.shape not in ((), (channels,), (height, width, channels)):
            raise ValueError(
                f"baseline must be one value, [C] or [H, W, C] of {images.shape[1:]}, got"
                f" {value.shape}"
            )
        patches = kept.reshape(count, *grid)
        # Every patch's decision is spread over its pixels.
        shown = jnp.repeat(jnp.repeat(patches, height // grid[0], axis=1), width // grid[1], axis=2)
        return view | {
            "images": jnp.where(shown[..., None], images, jnp.broadcast_to(value, images.shape))
        }

    return mask


def mask_batch(maskings: Mapping[str, Masking]) -> Masking:
    """Hides the same players in several views of a batch.

    Args:
      maskings: name of the view -> how they are hidden there; other views stay as they are.

    Returns:
      A masking of a `Batch`.
    """

    def mask(batch: Batch, kept: jax.Array) -> Batch:
        # Hidden in one view only, a player would still be seen in another.
        hidden = {name: masking(batch.views[name], kept) for name, masking in maskings.items()}
        return replace(batch, views=batch.views | hidden)

    return mask


def _hidden_tokens(view: View, kept: jax.Array, fixed_ids: tuple[int, ...]) -> jax.Array:
    """Returns bool `[N, T]`: tokens that count, aren't fixed and don't stay."""
    _require_views(view, "input_ids", "attention_mask")
    input_ids = jnp.asarray(view["input_ids"])
    if kept.shape != input_ids.shape:
        raise ValueError(
            f"texts of {input_ids.shape[1]} tokens have as many players, got {kept.shape[1]}"
        )
    # Tokens that begin and end a text are in each text that the network has seen.
    fixed = jnp.isin(input_ids, jnp.array(fixed_ids, input_ids.dtype))
    # Padding is never hidden: it says nothing already.
    return jnp.asarray(view["attention_mask"]).astype(bool) & ~fixed & ~kept


def _require_views(view: View, *names: str) -> None:
    if not set(names) <= set(view):
        raise ValueError(
            f"the masking reads {' and '.join(names)}; the view has {', '.join(sorted(view))}"
        )
