"""Long texts as windows: parts of at most `max_length` tokens, one after the other."""

from collections.abc import Sequence

import numpy as np

from kd_jax.data.views.text import MOST_WINDOWS, PreparedText, bucket_lengths


def window_buckets(max_length: int) -> tuple[int, ...]:
    """Returns the lengths that texts are padded to: of one window, then 2, 4 and 8 whole ones."""
    several = [max_length * count for count in (2, 4, MOST_WINDOWS)]
    return (*bucket_lengths(max_length), *several)


class PreparedWindows:
    """A source's texts in windows.

    Args:
      text: the windows of all texts, as texts of their own.
      counts: [N] how many windows each text has.
      cut: how many texts have more than are read.
    """

    words = None

    def __init__(self, text: PreparedText, counts: Sequence[int], cut: int):
        self.max_length, self.cut = text.max_length, cut
        self.buckets = window_buckets(self.max_length)
        self._text, self._counts = text, np.array(counts, np.int64)
        self._first = np.cumsum(self._counts) - self._counts
        one = self._counts == 1
        # A text of several windows takes as much room as if all were full.
        self.lengths = np.where(one, text.lengths[self._first], self._counts * self.max_length)

    def gather(
        self, indices: np.ndarray, length: int | None, draws: None = None
    ) -> dict[str, np.ndarray]:
        """Returns some examples as a model reads them; see `PreparedText.gather`.

        Args:
          indices: [b] positions in the source.
          length: tokens to make room for; above `max_length` in several windows.
          draws: None; text is not augmented here.

        Returns:
          `input_ids` [b, W, T] int32, `attention_mask` [b, W, T] bool, and `window_mask` [b, W]
          bool, which windows there are.

        Raises:
          ValueError: if an example is longer.
        """
        del draws
        length = self.max_length if length is None else length
        width = -(-length // self.max_length)
        counts = self._counts[indices]
        if counts.max() > width:
            raise ValueError(f"an example of {counts.max()} windows doesn't fit in {width}")
        numbers = np.arange(width)
        # What is missing repeats the last window, so that a model never reads an empty one.
        places = self._first[indices][:, None] + np.minimum(numbers, counts[:, None] - 1)
        view = self._text.gather(places.reshape(-1), length)
        found = {name: array.reshape(*places.shape, -1) for name, array in view.items()}
        return found | {"window_mask": numbers < counts[:, None]}
