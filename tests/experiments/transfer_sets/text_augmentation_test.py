"""Sentences changed by the rules of Tang et al.: each rule alone, how often it strikes, and what it
never does."""

import numpy as np
import pytest

from kd_jax.experiments.transfer_sets.text_augmentation import LONGEST_NGRAM, augment_sentences

SENTENCES = [
    "a good film",
    "a bad film",
    "a bad film",
    "the very long story of one man and his dog",
    "",
    "fine",
]


def augment(sentences=SENTENCES, mask=0.0, swap=0.0, ngram=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return augment_sentences(
        sentences, mask=mask, swap=swap, ngram=ngram, mask_token="[MASK]", rng=rng
    )


def test_without_any_rule_sentences_stay_as_they_are():
    assert augment() == SENTENCES
    assert augment([]) == []


def test_all_words_masked():
    assert augment(mask=1.0) == [
        " ".join(["[MASK]"] * len(sentence.split())) for sentence in SENTENCES
    ]


def test_words_are_exchanged_for_those_between_the_same_neighbours_as_often_as_these_stand_there():
    """Between "a" and "film" stands "good" once and "bad" twice; all other words have their places
    for themselves."""
    found = [augment(swap=1.0, seed=seed) for seed in range(300)]
    assert all(sentences[3:] == SENTENCES[3:] for sentences in found)
    middles = [sentence.split()[1] for sentences in found for sentence in sentences[:3]]
    assert set(middles) == {"good", "bad"}
    assert np.mean([word == "bad" for word in middles]) == pytest.approx(2 / 3, abs=0.05)
    assert all(
        s.startswith("a ") and s.endswith(" film") for sentences in found for s in sentences[:3]
    )


def test_a_sentence_s_end_is_no_neighbour_of_the_next_one_s_beginning():
    """Were it one, "x" and "y" would stand between the same two."""
    assert {tuple(augment(["a x", "b", "a y b"], swap=1.0, seed=seed)) for seed in range(50)} == {
        ("a x", "b", "a y b")
    }


def test_ngrams_are_words_that_stand_together_from_anywhere_in_the_sentence():
    sentence = SENTENCES[3]
    found = [augment([sentence], ngram=1.0, seed=seed)[0] for seed in range(300)]
    assert all(f" {part} " in f" {sentence} " for part in found)
    assert {len(part.split()) for part in found} == set(range(1, LONGEST_NGRAM + 1))
    assert {part.split()[0] for part in found if len(part.split()) == 1} == set(sentence.split())
    assert augment(["fine", ""], ngram=1.0) == ["fine", ""]


def test_rules_strike_with_their_probabilities():
    sentences = [" ".join(f"w{number}" for number in range(10))] * 2000
    masked = np.mean(
        [
            word == "[MASK]"
            for text in augment(sentences, mask=0.3, swap=0.2)
            for word in text.split()
        ]
    )
    assert masked == pytest.approx(0.3, abs=0.01)
    cut = np.mean([len(text.split()) < 10 for text in augment(sentences, ngram=0.25)])
    assert cut == pytest.approx(0.25, abs=0.03)
    pair = ["a b c", "a d c"] * 1000  # Half the exchanges draw the word that was there.
    changed = np.mean(
        [old != new for old, new in zip(pair, augment(pair, mask=0.5, swap=0.4), strict=True)]
    )
    masks = np.mean(["[MASK]" in text for text in augment(pair, mask=0.5, swap=0.4)])
    assert masks == pytest.approx(1 - 0.5**3, abs=0.03)
    assert changed - masks == pytest.approx(0.5**2 * 0.4 * 0.5, abs=0.02)


def test_draws_are_the_seed_s():
    assert augment(mask=0.5, seed=1) == augment(mask=0.5, seed=1) != augment(mask=0.5, seed=2)
