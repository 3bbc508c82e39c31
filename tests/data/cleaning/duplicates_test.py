import pytest

from kd_jax.data.cleaning.duplicates import find_duplicates, normalize

LONG = "a sentence that is long enough to be compared"


@pytest.mark.parametrize(
    "text",
    ["A Good  film", "\ta good\u00a0film\n", "ａ ｇｏｏｄ film", b"a GOOD film", "a good \ufb01lm"],
)
def test_texts_that_read_alike_have_one_key(text):
    assert normalize(text) == "a good film"


def test_a_pair_is_another_than_its_texts_joined():
    assert len({normalize(("a", "b c")), normalize(("a b", "c")), normalize("a b c")}) == 3
    assert normalize(("A", "b")) == normalize(("a", "B"))


def test_of_equal_rows_all_but_the_first_are_duplicates():
    assert find_duplicates(["a", "b", "a", "a"], [0, 1, 0, 0]) == {
        2: ("duplicate", 0),
        3: ("duplicate", 0),
    }


def test_of_one_text_under_several_labels_none_is_trusted():
    found = find_duplicates(["a", "b", "a", "a"], [0, 1, 1, 0])
    assert found == dict.fromkeys((0, 2, 3), ("conflicting_labels", 0))


def test_what_repeats_an_evaluation_row_is_named_for_that():
    found = find_duplicates(["a", "b", "a"], [0, 1, 1], held_out=["a", "c"])
    assert found == {0: ("duplicate_of_evaluation", None), 2: ("duplicate_of_evaluation", None)}


def test_near_duplicates_of_both_kinds():
    other = "something else of a similar length, I suppose"
    keys = [f"{LONG}!", "unlike", other, f"{other}."]
    assert find_duplicates(keys, [0, 1, 0, 1], held_out=[LONG, LONG], near=0.8) == {
        0: ("near_duplicate_of_evaluation", None),
        3: ("near_duplicate", 2),
    }
    assert find_duplicates(keys, [0, 1, 0, 1], held_out=[LONG]) == {}


def test_what_is_set_aside_as_equal_makes_no_near_duplicate():
    assert find_duplicates([LONG, LONG, f"{LONG}."], [0, 1, 0], near=0.8).keys() == {0, 1}


def test_rows_without_labels_are_refused():
    with pytest.raises(ValueError, match="2 rows and 1 labels"):
        find_duplicates(["a", "b"], [0])


def test_a_row_without_a_label_contradicts_none_and_gives_way_to_one_with():
    keys = ["a", "a", "b", "b", "c", "c", "d", "d", "d"]
    found = find_duplicates(keys, [-1, 1, 0, -1, -1, -1, 0, -1, 1])
    assert found == {
        0: ("duplicate", 1),
        3: ("duplicate", 2),
        5: ("duplicate", 4),
        **dict.fromkeys((6, 7, 8), ("conflicting_labels", 6)),
    }
