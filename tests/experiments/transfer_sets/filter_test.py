"""What a transfer set drops, and whom it takes the teacher's word for."""

import numpy as np
import pytest

from kd_jax.data.cleaning.clean import Limits
from kd_jax.experiments.transfer_sets.filter import choose, sift

EVALUATION = ["the only film this year that made me laugh out loud", "fine"]
TRAINING = ["a story of a man and his dog and a very long road", "good"]
NEARLY = EVALUATION[0] + " !"
FRESH = [
    "something that nobody has ever said before in a review",
    "nobody expects the next word to be this one",
]


def sifted(candidates, max_overlap=1.0, near=0.8):
    found = sift(
        candidates,
        TRAINING,
        EVALUATION,
        modality="text",
        limits=Limits(1000, 1000, near),
        max_overlap=max_overlap,
    )
    return [candidates[row] for row in found.rows], found.dropped


def test_what_repeats_the_evaluation_goes_however_it_is_written():
    kept, dropped = sifted([FRESH[0], EVALUATION[0].upper(), NEARLY, "  Fine ", FRESH[1]])
    assert kept == FRESH
    assert dropped == {"duplicate_of_evaluation": 2, "near_duplicate_of_evaluation": 1}
    assert NEARLY in sifted([FRESH[0], NEARLY], near=None)[0]


def test_so_does_what_nearly_repeats_another_that_does():
    """The second is compared with the first of its kind, which need not be the evaluation's row."""
    near, further = EVALUATION[0] + " in May", EVALUATION[0] + " in May and in June"
    assert sifted([FRESH[0], further])[0] == [FRESH[0], further]
    kept, dropped = sifted([near, further, FRESH[0]])
    assert kept == [FRESH[0]]
    assert dropped == {"near_duplicate_of_evaluation": 2}


def test_candidates_may_be_alike_but_not_equal_to_each_other_or_to_training_inputs():
    kept, dropped = sifted(
        [FRESH[0], FRESH[0] + " !", FRESH[0], TRAINING[1], TRAINING[0] + " !", "<b>x</b>"]
    )
    assert kept == [FRESH[0], FRESH[0] + " !", TRAINING[0] + " !"]
    assert dropped == {"duplicate": 1, "duplicate_of_training": 1, "markup": 1}


def test_too_much_overlap_is_refused_with_its_count_and_first_row():
    with pytest.raises(
        ValueError, match=r"2 of 4 rows .* max_overlap=0.4; the first is row 2: 'fine'"
    ):
        sifted([FRESH[0], "fine", FRESH[1], NEARLY], max_overlap=0.4)
    sifted([FRESH[0], "fine", FRESH[1], NEARLY], max_overlap=0.5)


def test_nothing_left_is_refused():
    with pytest.raises(
        ValueError, match=r"nothing is left of the 2 rows .*duplicate_of_training 1"
    ):
        sifted([TRAINING[1], ""])


def test_images_are_known_by_their_pixels():
    images = np.arange(4 * 12, dtype=np.uint8).reshape(4, 2, 2, 3)
    found = sift(
        images,
        images[:1],
        images[1:2],
        modality="image",
        limits=Limits(None, 100),
        max_overlap=0.25,
    )
    assert found.rows.tolist() == [2, 3]
    assert found.dropped == {"duplicate_of_training": 1, "duplicate_of_evaluation": 1}


SURENESS, CLASSES = np.array([0.9, 0.6, 0.8, 0.7, 0.7]), np.array([0, 0, 1, 1, 0])


def test_confidence_and_the_most_confident_of_each_class():
    assert choose(SURENESS, CLASSES, confidence=0.0, per_class=None).tolist() == [0, 1, 2, 3, 4]
    assert choose(SURENESS, CLASSES, confidence=0.7, per_class=None).tolist() == [0, 2, 3, 4]
    assert choose(SURENESS, CLASSES, confidence=0.0, per_class=1).tolist() == [0, 2]
    assert choose(SURENESS, CLASSES, confidence=0.65, per_class=2).tolist() == [0, 2, 3, 4]
    assert choose(SURENESS, None, confidence=0.75, per_class=None).tolist() == [0, 2]


def test_a_confidence_that_keeps_nothing_says_how_sure_the_teacher_is():
    with pytest.raises(ValueError, match=r"confidence 0.95 keeps none of 5 rows; .* has 0.9000"):
        choose(SURENESS, CLASSES, confidence=0.95, per_class=None)
