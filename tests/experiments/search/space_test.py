"""Which settings a search tries, and what is no search file."""

import json

import pytest

from kd_jax.experiments.search.space import draw, read


def spec_of(tmp_path, **content):
    file = tmp_path / "search.json"
    file.write_text(json.dumps(content))
    return read(file)


def test_lists_alone_are_tried_in_all_combinations(tmp_path):
    spec = spec_of(tmp_path, space={"a": [1, 2], "b": ["x", "y"]})
    assert spec["seed"] == 100
    assert spec["fractions"] == [0.25, 1.0]
    wanted = [{"a": a, "b": b} for a in (1, 2) for b in ("x", "y")]
    assert draw(spec) == wanted
    # More trials than there are settings try each of them once.
    assert draw(spec | {"trials": 9}) == wanted


def test_fewer_trials_are_drawn_without_repeating_any_and_alike_for_one_seed(tmp_path):
    space = {
        "a": [1, 2, 3],
        "rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "n": {"low": 1, "high": 3, "integer": True},
        "x": {"low": -1, "high": 1},
    }
    spec = spec_of(tmp_path, space=space, trials=50, seed=7)
    found = draw(spec)
    assert found == draw(spec)
    assert found != draw(spec | {"seed": 8})
    assert len({json.dumps(each) for each in found}) == 50
    rates = [each["rate"] for each in found]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    # Half of a logarithmic range lies below its geometric mean.
    assert 15 <= sum(rate < 10**-2.5 for rate in rates) <= 35
    assert {each["n"] for each in found} == {1, 2, 3}
    assert all(type(each["n"]) is int for each in found)
    assert min(each["x"] for each in found) < 0 < max(each["x"] for each in found)


def test_what_is_drawn_stays_in_its_range(tmp_path):
    space = {"decay": {"low": 0.99, "high": 0.9999}}
    found = [each["decay"] for each in draw(spec_of(tmp_path, space=space, trials=30))]
    assert len(found) == 30
    assert all(0.99 <= value <= 0.9999 for value in found)


def test_a_range_of_few_integers_ends_when_all_are_tried(tmp_path):
    space = {"n": {"low": 1, "high": 3, "integer": True}}
    assert len(draw(spec_of(tmp_path, space=space, trials=8))) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "is not JSON"),
        ("[]", "must look like"),
        ('{"space": []}', "must look like"),
        ("{}", "space"),
        ('{"space": {}}', "is empty"),
        ('{"space": {"a": [1, 2]}, "trial": 3}', "no option 'trial'"),
        ('{"space": {"a": []}}', "'a' in .* has no values"),
        ('{"space": {"a": [1, 1]}}', "'a' in .* must have different values"),
        ('{"space": {"a": 3}}', "'a' in .* must be a list of values or a range"),
        ('{"space": {"a": {"low": 2, "high": 1}}, "trials": 2}', "low below high, got 2 and 1"),
        ('{"space": {"a": {"low": 0, "high": 1, "log": true}}, "trials": 2}', "low must be above"),
        ('{"space": {"a": {"low": 0.5, "high": 2, "integer": true}}, "trials": 2}', "of integers"),
        ('{"space": {"a": {"low": NaN, "high": 2}}, "trials": 2}', "low below high"),
        ('{"space": {"a": {"low": 1, "high": 2, "step": 1}}, "trials": 2}', "no option 'step'"),
        ('{"space": {"a": {"low": 1, "high": 2}}}', "is a range, of which all can't be tried"),
        ('{"space": {"a": [1, 2]}, "trials": 1}', "trials in .* must be an integer from 2 on"),
        ('{"space": {"a": [1, 2]}, "trials": true}', "trials in .* must be an integer from 2 on"),
        ('{"space": {"a": [1, 2]}, "seed": -1}', "seed in .* must be an integer from 0 on"),
        ('{"space": {"a": [1, 2]}, "fractions": [0.5]}', "fractions in .* that rise to 1"),
        ('{"space": {"a": [1, 2]}, "fractions": [1, 0.5]}', "fractions in .* that rise to 1"),
        ('{"space": {"a": [1, 2]}, "fractions": [0, 1]}', "fractions in .* that rise to 1"),
        ('{"space": {"a": [1, 2]}, "fractions": []}', "fractions in .* that rise to 1"),
    ],
)
def test_what_is_no_search_file_is_refused_in_one_line(content, words, tmp_path):
    file = tmp_path / "search.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=words) as refusal:
        read(file)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="can't be read"):
        read(tmp_path / "none.json")


def test_a_space_of_one_setting_is_no_search(tmp_path):
    with pytest.raises(ValueError, match="one setting only"):
        draw(spec_of(tmp_path, space={"a": [1], "b": [2]}))
