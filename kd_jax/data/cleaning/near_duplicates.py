"""Finds texts that nearly repeat an earlier one, by MinHash signatures cut into bands.

Two texts are as alike as the Jaccard index of their sets of shingles, all their runs of `SHINGLE`
characters. The chance that two agree in the minimum of a random hash is that index (Broder, On the
Resemblance and Containment of Documents, 1997); texts that agree in a whole band of minima are
compared exactly. Two of index 0.8 are missed once in 3,000 times, two of 0.7 once in 40.
"""

from collections.abc import Iterator, Sequence

import numpy as np

SHINGLE = 4
"""Characters in a shingle."""

SHORTEST = 20
"""Characters below which texts are only compared exactly: a word changes what they say."""

BANDS, MINIMA = 20, 5
# Shingles compared at a time, which bounds the memory of the comparison.
_PART = 1_000_000
# Rows hashed at a time, whose shingles stay in a core's cache.
_CHUNK = 8_192
_HALF, _LOW, _MIX = np.uint64(32), np.uint64(0xFFFFFFFF), np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (
    np.random.Generator(np.random.PCG64(20)).integers(1, 2**31, (BANDS, MINIMA), np.uint32) * 2 + 1
)


class Shingles:
    """Distinct shingle hashes of texts [N], sorted within each text.

    They lie one text after the other in one flat uint32 array, `flat`; `starts` and `lengths` [N]
    say where each text's are.
    """

    def __init__(self, texts: Sequence[str]):
        # No text has more shingles than characters; what isn't written to takes no memory.
        room = np.empty(sum(map(len, texts)), np.uint32)
        self.lengths, end = np.zeros(len(texts), np.int64), 0
        for start in range(0, len(texts), _CHUNK):
            rows = slice(start, start + _CHUNK)
            flat, self.lengths[rows] = _hash_shingles(texts[rows])
            room[end : end + len(flat)] = flat
            end += len(flat)
        self.flat = room[:end]
        self.starts = np.cumsum(self.lengths) - self.lengths

    def overlaps(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Returns the Jaccard indices [P] of the texts at `left` [P] and `right` [P]."""
        pairs = np.concatenate([left, right])
        lengths = self.lengths[pairs]
        owners = np.repeat(np.tile(np.arange(len(left), dtype=np.uint64), 2), lengths)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        # The pair's number in the upper 32 bits, the shingle's hash in the lower: after one sort of
        # everything, a shingle that both texts have stands twice in a row.
        keys = owners << _HALF | self.flat[np.repeat(self.starts[pairs], lengths) + within]
        keys.sort()
        shared = keys[1:][keys[1:] == keys[:-1]] >> _HALF
        common = np.bincount(shared.astype(np.int64), minlength=len(left))
        return common / (self.lengths[left] + self.lengths[right] - common)


def find_near_duplicates(texts: Sequence[str], threshold: float, first: int = 0) -> dict[int, int]:
    """Finds the texts that nearly repeat an earlier one.

    Memory grows with the number of characters and of rows, whatever they hold: in a bucket, each
    row is compared with the one before it and with the bucket's first, not with all.

    Args:
      texts: [N] normalized texts.
      threshold: the Jaccard index from which two texts count as near duplicates, in (0, 1].
      first: only rows from this one on are looked at, as repeating any before them.

    Returns:
      Row -> an earlier row that it nearly repeats.

    Raises:
      ValueError: if `threshold` is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(
            f"the Jaccard index of near duplicates lies above 0 and up to 1, got {threshold}"
        )
    rows = np.flatnonzero([len(text) >= SHORTEST for text in texts])
    shingles = Shingles([texts[row] for row in rows.tolist()])
    candidates = _find_candidates(shingles, threshold, int(np.searchsorted(rows, first)))
    found: dict[int, int] = {}
    for later, earlier in _split(candidates, shingles.lengths):
        alike = shingles.overlaps(earlier, later) >= threshold
        for row, other in zip(
            rows[later[alike]].tolist(), rows[earlier[alike]].tolist(), strict=True
        ):
            found.setdefault(row, other)
    return found


def _find_candidates(shingles: Shingles, threshold: float, first: int) -> np.ndarray:
    """Returns pairs of rows that may be alike, as sorted uint64 `later << 32 | earlier`."""
    candidates = np.empty(0, np.uint64)
    for keys in _band_keys(shingles):
        # Rows with equal keys in a band are one bucket. A stable sort keeps them in their order, so
        # the first of a bucket is its earliest row.
        order = np.argsort(keys, kind="stable")
        ranks = np.arange(len(order))
        again = (
            np.append(False, keys[order[1:]] == keys[order[:-1]])
            if len(order)
            else np.empty(0, bool)
        )
        heads = np.maximum.accumulate(np.where(again, 0, ranks))
        later, earlier = (
            np.tile(order[again], 2),
            order[np.concatenate([heads[again], ranks[again] - 1])],
        )
        # The index can't exceed the ratio of the two sizes, which rules out many pairs without a
        # look at their shingles.
        sizes = np.sort(shingles.lengths[np.stack([later, earlier])], axis=0)
        possible = (later >= first) & (sizes[0] >= threshold * sizes[1])
        pairs = later[possible].astype(np.uint64) << _HALF | earlier[possible].astype(np.uint64)
        candidates = _distinct(np.concatenate([candidates, pairs]))
    return candidates


def _band_keys(shingles: Shingles) -> Iterator[np.ndarray]:
    """Yields [N] uint64 for each band: its minima, hashed together."""
    count = len(shingles.lengths)
    ends = shingles.starts + shingles.lengths
    for multipliers in _MULTIPLIERS:
        keys = np.zeros(count, np.uint64)
        for start in range(0, count, _CHUNK):
            rows = slice(start, min(start + _CHUNK, count))
            flat = shingles.flat[shingles.starts[start] : ends[rows.stop - 1]]
            for multiplier in multipliers:
                # Multiplying by a random odd number permutes the 32-bit hashes: each multiplier is
                # a random hash of its own, at the cost of one product.
                minima = np.minimum.reduceat(
                    flat * multiplier, shingles.starts[rows] - shingles.starts[start]
                )
                keys[rows] = keys[rows] * _MIX + minima
        yield keys


def _split(pairs: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields later and earlier rows of the pairs, in parts small enough to compare in memory."""
    later, earlier = (pairs >> _HALF).astype(np.int64), (pairs & _LOW).astype(np.int64)
    parts = np.cumsum(lengths[later] + lengths[earlier]) // _PART
    for part in np.split(np.arange(len(pairs)), np.flatnonzero(np.diff(parts)) + 1):
        yield later[part], earlier[part]


def _hash_shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns distinct hashes of each text, flat uint32, and how many each has, [N]."""
    letters = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    counts = np.array([len(text) for text in texts], np.int64)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), counts)
    last = SHINGLE - 1
    # All texts are hashed as one string, which is one pass without a loop over texts; shingles that
    # span two of them are dropped below.
    hashes = letters[: len(letters) - last].copy()
    for shift in range(1, SHINGLE):
        hashes = hashes * np.uint32(0x01000193) ^ letters[shift : len(letters) - last + shift]
    # The final mix of MurmurHash3, which spreads every letter over all bits.
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        hashes = (hashes ^ hashes >> np.uint32(shift)) * np.uint32(multiplier)
    keys = owners[: len(hashes)] << _HALF | hashes
    keys = _distinct(keys[owners[: len(hashes)] == owners[last:]])
    return (keys & _LOW).astype(np.uint32), np.bincount(
        (keys >> _HALF).astype(np.int64), minlength=len(texts)
    )


def _distinct(values: np.ndarray) -> np.ndarray:
    """Returns the values sorted, each once.

    `np.unique` takes fifty times as long for many integers.
    """
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values
