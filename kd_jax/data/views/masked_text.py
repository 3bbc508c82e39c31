"""Texts with some of their tokens masked, which a masked language model predicts."""

import numpy as np
from tokenizers import Tokenizer

from kd_jax.data.views.text import PreparedText

MASK_TOKENS = ("[MASK]", "<mask>")

MASKED, REPLACED = 0.8, 0.1
"""Of the tokens that are predicted, which shares become a mask and a random token; the others stay
as they are (Devlin et al., https://arxiv.org/abs/1810.04805)."""


def mask_id(tokenizer: Tokenizer) -> int:
    """Returns the id of the token that stands for a hidden one.

    Raises:
      ValueError: if there is none.
    """
    for token in MASK_TOKENS:
        if (found := tokenizer.token_to_id(token)) is not None:
            return found
    raise ValueError(f"the tokenizer has no {' or '.join(MASK_TOKENS)}, which the task needs")


class FreshMasks:
    """What is drawn for a batch: a seed an example, from which its masks follow."""

    def draw(self, rng: np.random.Generator, batch_size: int) -> np.ndarray:
        """Draws for all examples of a global batch: [batch_size] int64."""
        return rng.integers(2**63, size=batch_size)


class MaskedText:
    """A prepared text whose tokens are masked as they are gathered.

    Args:
      text: the tokens.
      tokenizer: that made them.
      rate: share of a text's tokens that are predicted, rounded, one at least; 0: those that are
        masks already.

    Raises:
      ValueError: if the tokenizer has no mask.
    """

    def __init__(self, text: PreparedText, tokenizer: Tokenizer, rate: float):
        self.lengths, self.cut, self.max_length = text.lengths, text.cut, text.max_length
        self.buckets = text.buckets
        self._text, self._rate, self._mask = text, rate, mask_id(tokenizer)
        # Special tokens are never hidden, nor drawn in place of others.
        special = [i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special]
        ids = np.array(sorted(tokenizer.get_vocab().values()), np.int32)
        self._special = np.array(special, np.int32)
        self._ordinary = ids[~np.isin(ids, self._special)]

    def gather(
        self, indices: np.ndarray, length: int | None, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Returns some examples as a model reads them; see `PreparedText.gather`.

        Args:
          indices: [b] positions in the source.
          length: pad to this many tokens; None: to `max_length`.
          draws: [b] of `FreshMasks`; None: each example has masks of its own, always the same.

        Returns:
          Beside the tokens `positions` [b, P] int32 of what is predicted, -1 where there are fewer,
          and `labels` [b, P] int32, the tokens there.
        """
        view = self._text.gather(indices, length)
        ids = view["input_ids"]
        free = view["attention_mask"] & ~np.isin(ids, self._special)
        if not self._rate:
            return view | self._of_masks(ids)
        most = max(1, round(self._rate * ids.shape[1]))
        positions = np.full((len(ids), most), -1, np.int32)
        labels, changed = positions.copy(), ids.copy()
        for row, seed in enumerate(indices if draws is None else draws):
            rng = np.random.default_rng(int(seed))
            places = np.flatnonzero(free[row])
            count = min(most, max(1, round(self._rate * len(places))), len(places))
            chosen = np.sort(rng.permutation(places)[:count])
            fate, others = rng.random(count), rng.choice(self._ordinary, count)
            positions[row, :count], labels[row, :count] = chosen, ids[row, chosen]
            new = np.where(fate < MASKED + REPLACED, others, ids[row, chosen])
            changed[row, chosen] = np.where(fate < MASKED, self._mask, new)
        return view | {"input_ids": changed, "positions": positions, "labels": labels}

    def _of_masks(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the positions of masks that stand in the texts."""
        found = [np.flatnonzero(row == self._mask) for row in ids]
        # A few sizes, each of which is compiled once.
        most = 8 * -(-max(map(len, found), default=0) // 8) or 8
        positions = np.full((len(ids), most), -1, np.int32)
        for row, places in enumerate(found):
            positions[row, : len(places)] = places
        return {"positions": positions}
