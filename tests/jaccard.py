"""Near duplicates by comparing every text with every other."""

import numpy as np
from scipy import sparse


def alike_pairs(texts, threshold=0.8, shingle=4, shortest=20):
    """Pairs (earlier, later) of texts [N] that are equal or whose sets of shingles have at least
    this Jaccard index."""
    vocabulary = {}
    sets = [
        {
            text,
            *(
                text[i : i + shingle]
                for i in range(len(text) - shingle + 1)
                if len(text) >= shortest
            ),
        }
        for text in texts
    ]
    columns = [
        vocabulary.setdefault(one, len(vocabulary)) for members in sets for one in sorted(members)
    ]
    starts = np.cumsum([0, *map(len, sets)])
    matrix = sparse.csr_matrix(
        (np.ones(len(columns)), columns, starts), (len(texts), len(vocabulary))
    )
    common = (matrix @ matrix.T).tocoo()
    sizes = np.diff(starts) - 1  # Without the text itself, by which equal short ones are known.
    equal = np.array([texts[a] == texts[b] for a, b in zip(common.row, common.col, strict=True)])
    shared = common.data - equal
    alike = equal | (
        shared >= threshold * np.maximum(sizes[common.row] + sizes[common.col] - shared, 1)
    )
    return sorted(
        (a, b)
        for a, b in zip(common.row[alike].tolist(), common.col[alike].tolist(), strict=True)
        if a < b
    )
