"""How a teacher's logits are kept: in fewer bits, or the largest of them and what the others weigh
together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kd_jax.core.types import LOGITS, POSITIONS

PLACES = "logits/places"
"""Output's name: the classes of the logits that are kept."""

REST = "logits/rest"
"""Output's name: log of the sum of the exponentials of those that aren't."""

OF_LOGITS = (LOGITS, PLACES, REST, POSITIONS)
"""Names of what is there of an example's predictions, and which of them there are."""


@dataclass(frozen=True)
class Compression:
    """What of `[..., K]` logits is kept.

    Attributes:
      top_k: how many, the largest; None, or more than there are: all.
      dtype: of those that are kept; None: as they are computed.
    """

    top_k: int | None = None
    dtype: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of what is kept beside the logits themselves."""
        return () if self.top_k is None else (PLACES, REST)

    @property
    def told(self) -> tuple[str, ...]:
        """Returns what tells its outputs from those of others; nothing where all is kept."""
        return () if self == Compression() else (f"top_k {self.top_k}, dtype {self.dtype}",)

    def compress(self, logits: jax.Array) -> dict[str, jax.Array]:
        """Returns what is kept of logits `[..., K]`, by name.

        `LOGITS` `[..., k]`, the largest first; with `top_k` also `PLACES` `[..., k]` in as few bits
        as K needs, and `REST` `[...]`.
        """
        dtype = logits.dtype if self.dtype is None else jnp.dtype(self.dtype)
        if self.top_k is None:
            return {LOGITS: _cast(logits, dtype)}
        classes = logits.shape[-1]
        values, places = jax.lax.top_k(logits, min(self.top_k, classes))
        kept = jnp.put_along_axis(
            jnp.zeros(logits.shape, bool), places, True, axis=-1, inplace=False
        )
        rest = jax.nn.logsumexp(jnp.where(kept, -jnp.inf, logits), axis=-1)
        narrow = jnp.uint16 if classes <= np.iinfo(np.uint16).max + 1 else jnp.uint32
        return {LOGITS: _cast(values, dtype), PLACES: places.astype(narrow), REST: rest}


def _cast(logits: jax.Array, dtype: Any) -> jax.Array:
    """Casts logits; very small ones become the smallest number there is, and rule out no class."""
    least = jnp.asarray(jnp.finfo(dtype).min, logits.dtype)
    return jnp.where(jnp.isneginf(logits), logits, jnp.maximum(logits, least)).astype(dtype)


ALL = Compression()
"""Keeps everything."""


def expand(kept: Mapping[str, Any], classes: int) -> jax.Array:
    """Returns logits `[..., K]` of what `Compression.compress` kept of them.

    Those that were kept are as they were, so their probabilities are exact; the others share what
    is left of the probability evenly, as nothing more is known of them.

    Args:
      kept: `LOGITS`, and `PLACES` and `REST` where only the largest were kept.
      classes: K.
    """
    values = jnp.asarray(kept[LOGITS])
    dtype = jnp.promote_types(values.dtype, jnp.float32)
    if PLACES not in kept:
        return values.astype(dtype)
    others = max(1, classes - values.shape[-1])
    rest = jnp.asarray(kept[REST]).astype(dtype)[..., None] - np.log(others)
    full = jnp.broadcast_to(rest, (*values.shape[:-1], classes))
    places = jnp.asarray(kept[PLACES]).astype(jnp.int32)
    return jnp.put_along_axis(full, places, values.astype(dtype), axis=-1, inplace=False)


def check_fits(values: np.ndarray, owner: str) -> None:
    """Refuses logits that the dtype they are kept in can't hold.

    Raises:
      ValueError: naming the model.
    """
    if np.isposinf(values.astype(np.float32)).any():
        raise ValueError(
            f"models.{owner}: a logit is larger than {values.dtype} holds; keep them by"
            " cached_as.dtype='bfloat16' or 'float32'"
        )
