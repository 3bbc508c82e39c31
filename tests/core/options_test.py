import pytest

from kd_jax.core.options import call_with_options, check_keys, choose


def cook(ingredient, *, minutes, salt=1):
    return ingredient, minutes, salt


def test_choose_gives_the_entry_that_the_section_names():
    assert choose({"cook": cook}, {"name": "cook", "minutes": 3}, "recipe") is cook
    assert choose({"cook": cook}, {"recipe": "cook"}, "recipe", key="recipe") is cook


@pytest.mark.parametrize(
    ("spec", "named"), [({"name": "fry"}, "'fry'"), ({}, "None"), ({"name": None}, "None")]
)
def test_an_unknown_name_is_refused_with_those_that_exist(spec, named):
    with pytest.raises(ValueError, match=rf"^unknown recipe {named}; there are bake, cook$"):
        choose({"cook": cook, "bake": cook}, spec, "recipe")


def test_options_reach_the_function_beside_its_arguments():
    assert call_with_options(cook, {"name": "cook", "minutes": 3}, "recipe", "rice") == (
        "rice",
        3,
        1,
    )
    assert call_with_options(cook, {"minutes": 3, "salt": 2}, "recipe", "rice") == ("rice", 3, 2)


def test_the_naming_key_may_be_another():
    assert call_with_options(
        cook, {"recipe": "cook", "minutes": 3}, "recipe", "rice", key="recipe"
    ) == ("rice", 3, 1)


@pytest.mark.parametrize("unknown", ["minute", "ingredient"])
def test_an_option_that_the_function_does_not_have_is_refused_with_those_it_has(unknown):
    with pytest.raises(
        ValueError,
        match=rf"^recipe 'cook' has no option '{unknown}'; its options are minutes, salt$",
    ):
        call_with_options(cook, {"name": "cook", "minutes": 3, unknown: 1}, "recipe", "rice")


def test_an_option_that_the_function_needs_is_asked_for():
    with pytest.raises(
        ValueError, match=r"^recipe 'cook' needs option 'minutes'; its options are minutes, salt$"
    ):
        call_with_options(cook, {"name": "cook", "salt": 1}, "recipe", "rice")


def test_an_owner_without_options_says_so():
    with pytest.raises(ValueError, match=r"^nothing has no option 'x'; its options are none$"):
        check_keys({"x": 1}, {}, "nothing")


def test_keys_that_are_known_and_complete_pass():
    check_keys({"a": 1}, {"a": True, "b": False}, "section")
