"""Shapley and Banzhaf values: worked examples, the axioms that define them, sampling against exact,
refusals."""

import itertools
import math

import numpy as np
import pytest

from kd_jax.analysis.shapley import EXACT_PLAYERS, LEAST_PAIRS, banzhaf_values, shapley_values

WORKED = {
    (): 0,
    (0,): 40,
    (1,): 60,
    (2,): 80,
    (0, 1): 70,
    (0, 2): 75,
    (1, 2): 85,
    (0, 1, 2): 90,
}
PLAYERS = range(8)


def worked(subset):
    return WORKED[tuple(sorted(subset))]


def random_game(seed, players=PLAYERS, offset=0.0):
    """Every subset's value drawn on its own, the empty one's too."""
    count = len(players)
    table = np.random.default_rng(seed).normal(size=2**count) + offset
    bit = {player: 1 << i for i, player in enumerate(players)}
    return lambda subset: table[sum(bit[player] for player in subset)]


def linear(worths):
    return lambda subset: 10 + sum(worths[player] for player in subset)


def counted(value):
    calls = []

    def counting(subset):
        calls.append(subset)
        return value(subset)

    return counting, calls


SAMPLING = [{}, {"permutations": 40}, {"permutations": 400, "tolerance": 0.2}]


# Exact values


def test_the_worked_example():
    values, errors = shapley_values(worked, [0, 1, 2])
    assert values == pytest.approx({0: 95 / 6, 1: 185 / 6, 2: 260 / 6}, rel=1e-12)
    assert errors == {0: 0.0, 1: 0.0, 2: 0.0}


def test_exact_values_are_the_mean_over_all_orders_of_joining():
    game, players = random_game(0, "abcde"), "abcde"
    totals = dict.fromkeys(players, 0.0)
    for order in itertools.permutations(players):
        for i, player in enumerate(order):
            totals[player] += game(order[: i + 1]) - game(order[:i])
    values, _ = shapley_values(game, players)
    assert values == pytest.approx(
        {player: total / math.factorial(5) for player, total in totals.items()}, rel=1e-9
    )


def test_one_player_is_worth_the_whole():
    assert shapley_values({frozenset(): 2, frozenset("a"): 5}.get, "a") == ({"a": 3.0}, {"a": 0.0})
    assert shapley_values({frozenset(): 2, frozenset("a"): 5}.get, "a", permutations=4) == (
        {"a": 3.0},
        {"a": 0.0},
    )


@pytest.mark.parametrize("players", [("x", 1, (2, 3), frozenset({4}), None), [3, 1, 2]])
def test_players_are_any_hashables_and_keep_their_order(players):
    worths = {player: float(i) for i, player in enumerate(players)}
    values, errors = shapley_values(linear(worths), players)
    assert values == pytest.approx(worths, abs=1e-12)
    assert list(values) == list(errors) == list(players)


# The axioms, exact and sampled


@pytest.mark.parametrize("options", SAMPLING)
def test_efficiency_the_values_add_up_to_what_all_add_to_none(options):
    game = random_game(1, offset=100)
    values, _ = shapley_values(game, PLAYERS, **options)
    assert sum(values.values()) == pytest.approx(game(PLAYERS) - game(()), abs=1e-10)


@pytest.mark.parametrize("options", SAMPLING)
def test_a_linear_game_pays_each_player_its_own_worth(options):
    worths = dict(zip("abcd", (1.0, -2.0, 0.5, 0.0), strict=True))
    values, errors = shapley_values(linear(worths), worths, **options)
    assert values == pytest.approx(worths, abs=1e-12)
    assert errors == pytest.approx(dict.fromkeys(worths, 0.0), abs=1e-12)


def test_symmetry_players_that_are_interchangeable_are_worth_the_same():
    game = random_game(2, range(4))
    values, _ = shapley_values(
        lambda subset: game({p for p in subset if p < 3} | ({3} & subset)), range(4)
    )
    assert len(set(values.values())) == 4
    swapped, _ = shapley_values(
        lambda subset: game({{0: 1, 1: 0}.get(p, p) for p in subset}), range(4)
    )
    assert swapped == pytest.approx({0: values[1], 1: values[0], 2: values[2], 3: values[3]})
    alike, _ = shapley_values(
        lambda subset: game(range(len(subset & {0, 1}))) + game(subset - {0, 1}), range(4)
    )
    assert alike[0] == pytest.approx(alike[1])
    assert alike[0] != pytest.approx(alike[2])


@pytest.mark.parametrize("options", SAMPLING)
def test_a_dummy_that_adds_nothing_is_worth_nothing(options):
    game = random_game(3)
    values, errors = shapley_values(lambda subset: game(subset - {5}), PLAYERS, **options)
    assert values[5] == errors[5] == 0
    assert all(abs(values[player]) > 1e-3 for player in PLAYERS if player != 5)


@pytest.mark.parametrize("options", SAMPLING[:2])
def test_additivity_the_values_of_a_sum_of_games_are_the_sums_of_their_values(options):
    first, second = random_game(4), random_game(5)
    parts = [shapley_values(game, PLAYERS, **options)[0] for game in (first, second)]
    whole, _ = shapley_values(lambda subset: first(subset) + second(subset), PLAYERS, **options)
    assert whole == pytest.approx(
        {player: parts[0][player] + parts[1][player] for player in PLAYERS}
    )


# Sampling


def deviations(exact, sampled):
    """How many standard errors sampled values are from exact ones, over twenty games of eight
    players."""
    found = []
    for seed in range(20):
        game = random_game(100 + seed)
        want, (values, errors) = exact(game, PLAYERS)[0], sampled(game, seed)
        assert all(0 < errors[player] < 0.15 for player in PLAYERS)
        found.extend((values[player] - want[player]) / errors[player] for player in PLAYERS)
    return np.abs(found)


@pytest.mark.parametrize(
    ("exact", "sampled"),
    [
        (
            shapley_values,
            lambda game, seed: shapley_values(game, PLAYERS, permutations=600, seed=seed),
        ),
        (banzhaf_values, lambda game, seed: banzhaf_values(game, PLAYERS, samples=600, seed=seed)),
    ],
)
def test_sampled_values_are_within_three_standard_errors_of_exact_ones(exact, sampled):
    found = deviations(exact, sampled)
    # Of 160 normal deviations 0.4 are beyond three, and their root mean square is 1 within a tenth
    # or so.
    assert np.sum(found > 3) <= 2
    assert 0.8 < np.sqrt(np.mean(found**2)) < 1.2


@pytest.mark.parametrize(
    "sample",
    [
        lambda game, seed: shapley_values(game, PLAYERS, permutations=40, seed=seed),
        lambda game, seed: banzhaf_values(game, PLAYERS, samples=20, seed=seed),
    ],
)
def test_standard_errors_are_how_far_the_values_of_other_seeds_spread(sample):
    game = random_game(6)
    runs = [sample(game, seed) for seed in range(200)]
    spread = np.std([list(values.values()) for values, _ in runs], axis=0)
    stated = np.sqrt(np.mean(np.square([list(errors.values()) for _, errors in runs]), axis=0))
    np.testing.assert_allclose(stated, spread, rtol=0.2)


def test_a_permutation_and_its_reverse_cancel_what_pairs_of_players_add():
    interactions = np.random.default_rng(7).normal(size=(8, 8))

    def game(subset):
        return sum(interactions[i, j] for i in subset for j in subset)

    values, errors = shapley_values(game, PLAYERS, permutations=4)
    assert values == pytest.approx(
        {i: (interactions[i] + interactions[:, i]).sum() / 2 for i in PLAYERS}
    )
    assert errors == pytest.approx(dict.fromkeys(PLAYERS, 0.0), abs=1e-12)


def test_a_seed_draws_the_same_permutations_again_and_another_others():
    game = random_game(8)
    first, again, other = (
        shapley_values(game, PLAYERS, permutations=10, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_small_differences_of_large_values_keep_their_standard_errors():
    near = shapley_values(random_game(9), PLAYERS, permutations=100)
    far = shapley_values(random_game(9, offset=1e6), PLAYERS, permutations=100)
    for part, same in zip(far, near, strict=True):
        assert part == pytest.approx(same, abs=1e-8)


# How often a subset is valued


@pytest.mark.parametrize("values", [shapley_values, banzhaf_values])
def test_exact_values_value_each_subset_once(values):
    game, calls = counted(random_game(0))
    values(game, PLAYERS)
    assert len(calls) == len(set(calls)) == 2**8
    assert {type(subset) for subset in calls} == {frozenset}


def test_sampling_values_each_subset_once_and_both_ends_only_once():
    game, calls = counted(random_game(0))
    shapley_values(game, PLAYERS, permutations=4)
    assert len(calls) == len(set(calls)) <= 4 * 7 + 2
    game, calls = counted(random_game(0))
    shapley_values(game, PLAYERS, permutations=2000)
    assert len(calls) == 2**8


def test_sampled_banzhaf_values_value_a_subset_and_its_neighbours_once():
    game, calls = counted(random_game(0))
    banzhaf_values(game, PLAYERS, samples=2)
    assert len(calls) == len(set(calls)) <= 2 * 9


# Tolerance


def test_sampling_ends_once_every_standard_error_is_within_the_tolerance():
    game = random_game(11)
    loose, tight = (
        shapley_values(game, PLAYERS, permutations=20_000, tolerance=t)[1] for t in (0.1, 0.05)
    )
    assert 0.05 < max(loose.values()) <= 0.1
    assert 0.025 < max(tight.values()) <= 0.05


def test_sampling_never_ends_before_the_least_number_of_pairs():
    game, calls = counted(random_game(0, range(12)))
    ended = shapley_values(game, range(12), permutations=20_000, tolerance=1e9)
    assert ended == shapley_values(game, range(12), permutations=2 * LEAST_PAIRS)
    assert len(calls) > 2 * LEAST_PAIRS


def test_permutations_are_the_most_that_a_tolerance_can_ask_for():
    game = random_game(0)
    assert shapley_values(game, PLAYERS, permutations=60, tolerance=1e-9) == shapley_values(
        game, PLAYERS, permutations=60
    )


# Banzhaf values


def test_in_a_majority_of_three_each_player_swings_half_the_subsets_of_the_others():
    values, errors = banzhaf_values(lambda subset: len(subset) >= 2, "abc")
    assert values == {"a": 0.5, "b": 0.5, "c": 0.5}
    assert errors == {"a": 0.0, "b": 0.0, "c": 0.0}


def test_banzhaf_values_weigh_all_subsets_alike_and_need_not_add_up():
    values, _ = banzhaf_values(worked, [0, 1, 2])
    assert values == pytest.approx(
        {0: (40 + 10 - 5 + 5) / 4, 1: (60 + 30 + 5 + 15) / 4, 2: (80 + 35 + 25 + 20) / 4}
    )
    assert sum(values.values()) != pytest.approx(90)


# Refusals


@pytest.mark.parametrize("values", [shapley_values, banzhaf_values])
@pytest.mark.parametrize(
    ("players", "message"),
    [
        ([], "at least one player, got none"),
        (["a", "b", "a"], "distinct, got 'a' twice"),
        ([["a"]], r"hashable, got \['a'\]"),
        ([(1, ["a"])], r"hashable, got \(1, \['a'\]\)"),
        (range(EXACT_PLAYERS + 1), "limited to 16 players, got 17; sample instead"),
    ],
)
def test_players_that_make_no_game_are_refused(values, players, message):
    def untouched(subset):
        raise AssertionError(f"valued {subset}")

    with pytest.raises(ValueError, match=message):
        values(untouched, players)


@pytest.mark.parametrize("options", [{}, {"permutations": 4}])
@pytest.mark.parametrize("worth", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused_and_its_subset_named(options, worth):
    with pytest.raises(ValueError, match=rf"the value of {{'b', 'a', 'c'}} is {worth}"):
        shapley_values(lambda subset: worth if len(subset) == 3 else 0.0, "bac", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"permutations": 2}, "come in pairs, of which an error needs two: got 2"),
        ({"permutations": 7}, "come in pairs, of which an error needs two: got 7"),
        ({"permutations": 8, "tolerance": 0.0}, "tolerance must be positive, got 0.0"),
        ({"permutations": 8, "tolerance": math.nan}, "tolerance must be positive, got nan"),
        ({"tolerance": 0.1}, "give permutations too"),
    ],
)
def test_options_that_make_no_sample_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        shapley_values(worked, [0, 1, 2], **options)


def test_a_single_sample_has_no_standard_error():
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        banzhaf_values(worked, [0, 1, 2], samples=1)
