import random
import tracemalloc

import numpy as np
import pytest
from jaccard import alike_pairs

from kd_jax.data.cleaning.near_duplicates import SHORTEST, Shingles, find_near_duplicates

WORDS = [
    a + b
    for a in ("ka", "lo", "mi", "nu", "pe", "ra", "so", "ti")
    for b in ("ban", "der", "gis", "hol", "jup", "vex")
]


def sentences(count, seed):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randrange(1, 20))) for _ in range(count)]


def vary(texts, seed):
    """Each text with up to three words replaced."""
    rng = random.Random(seed)
    varied = []
    for text in texts:
        words = text.split()
        for place in rng.choices(range(len(words)), k=rng.randrange(4)):
            words[place] = rng.choice(WORDS)
        varied.append(" ".join(words))
    return varied


@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.95])
def test_finds_what_comparing_all_with_all_finds(threshold):
    texts = sentences(600, 0)
    texts += vary(texts, 1)
    pairs = {(a, b) for a, b in alike_pairs(texts, threshold) if len(texts[b]) >= SHORTEST}
    found = find_near_duplicates(texts, threshold)
    assert {(earlier, later) for later, earlier in found.items()} <= pairs
    missed = {later for _, later in pairs} - found.keys()
    assert len(pairs) > 100
    assert len(missed) <= 0.025 * len(pairs)


def test_the_index_is_that_of_the_sets_of_shingles():
    shingles = Shingles(["abcdefgh", "abcdefgx", "aaaaaaaa", "é東𝐀𝐁zz"])
    assert shingles.lengths.tolist() == [5, 5, 1, 3]
    np.testing.assert_array_equal(
        shingles.overlaps(np.array([0, 0, 0, 3]), np.array([1, 0, 2, 3])), [4 / 6, 1.0, 0.0, 1.0]
    )


def test_the_first_of_several_is_none_and_others_name_it():
    text = "the very same sentence about a film"
    assert find_near_duplicates(
        [text, "something else entirely, at length", f"{text}.", f"{text}!"], 0.8
    ) == {
        2: 0,
        3: 0,
    }


def test_in_a_crowded_bucket_a_row_is_compared_with_the_first():
    # Every other text is as like the first as the last is, but too unlike the one before it.
    start, ends = (
        "the very same long beginning of a text that goes on for a while, then ",
        ["alpha beta gamma", "one two three"],
    )
    texts = [start, *(start + end for end in ends * 3)]
    found = find_near_duplicates(texts, 0.78)
    assert found == dict.fromkeys(range(1, 7), 0)
    alone = find_near_duplicates(texts[1:3], 0.78)
    assert alone == {}


def test_short_texts_are_left_to_exact_comparison():
    assert find_near_duplicates(["a good film, b", "a good film, b"], 0.5) == {}


def test_rows_before_the_first_are_only_repeated():
    text = "the very same sentence about a film"
    assert find_near_duplicates([text, f"{text}.", f"{text}!"], 0.8, first=2) == {2: 0}


@pytest.mark.parametrize("texts", [[], ["short"], ["one text that is long enough"]])
def test_few_texts_have_no_duplicates(texts):
    assert find_near_duplicates(texts, 0.8) == {}


@pytest.mark.parametrize("threshold", [0, -1, 1.1])
def test_another_index_is_refused(threshold):
    with pytest.raises(ValueError, match=f"above 0 and up to 1, got {threshold}"):
        find_near_duplicates(["x"], threshold)


def peak_memory(texts):
    tracemalloc.start()
    found = find_near_duplicates(texts, 0.8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, len(found)


def test_memory_grows_with_the_rows_even_where_all_are_alike():
    text = "the very same sentence about a film and more, number "
    small, found = peak_memory([f"{text}{number}" for number in range(5_000)])
    large, _ = peak_memory([f"{text}{number}" for number in range(20_000)])
    assert found == 4_999
    assert large < 6 * small
