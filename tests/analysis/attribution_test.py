"""Attribution of predictions: against the exact values of the same game, efficiency, chunks, and
the matching loss."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kd_jax.analysis.attribution import attribute, attribution_matching, draw_permutations
from kd_jax.analysis.masking import hide_tokens, replace_patches, replace_tokens
from kd_jax.analysis.shapley import shapley_values
from kd_jax.models import registry

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
IMAGES = {"images": RNG.normal(size=(3, 4, 6, 2)).astype(np.float32)}
CLASSES = np.array([2, 0, 1])
PATCHES = replace_patches(grid=(2, 3), baseline=np.array([0.1, -0.2], np.float32))
TEXTS = {
    "input_ids": RNG.integers(3, 20, (3, 5)).astype(np.int32),
    "attention_mask": np.arange(5)[None] < np.array([[5], [4], [2]]),
}
HALF_OF_ALL = np.array([p for p in itertools.permutations(range(6)) if p[0] < p[-1]])
"""Of six players; with their reverses every permutation."""


def draw_network(seed, hidden=8):
    """Logits `[N, 3]` of images, not linear in them."""
    first, second = jax.random.normal(jax.random.key(seed), (2, 48, hidden))
    return lambda view: jnp.tanh(view["images"].reshape(-1, 48) @ first / 4) @ second[:hidden, :3]


NETWORK = draw_network(0)


def as_game(network, mask, view, example, label, players):
    """The same coalitions, shown one by one."""

    def value(subset):
        kept = np.array([[player in subset for player in range(players)]])
        alone = {name: leaf[example : example + 1] for name, leaf in view.items()}
        return network(mask(alone, kept))[0, label]

    return value


# Values


def test_over_all_permutations_they_are_the_exact_shapley_values():
    found = attribute(NETWORK, PATCHES, IMAGES, CLASSES, HALF_OF_ALL, rows=512)
    assert found.values.shape == found.errors.shape == (3, 6)
    for example, label in enumerate(CLASSES):
        want, _ = shapley_values(as_game(NETWORK, PATCHES, IMAGES, example, label, 6), range(6))
        np.testing.assert_allclose(found.values[example], list(want.values()), atol=1e-5)


def test_sampled_values_and_errors_are_those_of_the_same_permutations_one_by_one():
    generator = np.random.default_rng(5)
    permutations = np.array([generator.permutation(6) for _ in range(4)])
    found = attribute(NETWORK, PATCHES, IMAGES, CLASSES, permutations, rows=16)
    for example, label in enumerate(CLASSES):
        game = as_game(NETWORK, PATCHES, IMAGES, example, label, 6)
        values, errors = shapley_values(game, range(6), permutations=8, seed=5)
        assert min(errors.values()) > 1e-3
        np.testing.assert_allclose(found.values[example], list(values.values()), atol=1e-5)
        np.testing.assert_allclose(found.errors[example], list(errors.values()), atol=1e-5)


def test_the_patches_of_a_linear_network_are_worth_what_they_hold_without_any_error():
    weights = RNG.normal(size=(4, 6, 2, 3)).astype(np.float32)

    def linear(view):
        return jnp.einsum("nhwc,hwck->nk", view["images"], weights)

    found = attribute(
        linear, PATCHES, IMAGES, CLASSES, draw_permutations(jax.random.key(0), 6, 2), rows=16
    )
    held = (IMAGES["images"] - np.array([0.1, -0.2]))[..., None] * weights[None]
    by_patch = held.reshape(3, 2, 2, 3, 2, 2, 3).sum(axis=(2, 4, 5)).reshape(3, 6, 3)
    np.testing.assert_allclose(found.values, by_patch[np.arange(3), :, CLASSES], atol=1e-5)
    np.testing.assert_allclose(found.errors, 0, atol=1e-5)


@pytest.mark.parametrize("classes", [CLASSES, jnp.asarray(CLASSES), 1, np.int64(1)])
def test_efficiency_each_examples_values_add_up_from_all_masked_to_all_shown(classes):
    found = attribute(
        NETWORK, PATCHES, IMAGES, classes, draw_permutations(jax.random.key(0), 6, 2), rows=7
    )
    masked = PATCHES(IMAGES, jnp.zeros((3, 6), bool))
    change = (NETWORK(IMAGES) - NETWORK(masked))[np.arange(3), classes]
    assert np.abs(change).min() > 0.1
    np.testing.assert_allclose(found.values.sum(axis=1), change, atol=1e-5)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("rows", [1, 7, 42 * 3, 10_000])
def test_the_size_of_a_forward_pass_changes_nothing(rows, transform):
    permutations = draw_permutations(jax.random.key(0), 6, 4)
    want = attribute(NETWORK, PATCHES, IMAGES, CLASSES, permutations, rows=63)
    sizes = []

    def network(view):
        sizes.append(view["images"].shape[0])
        return NETWORK(view)

    found = transform(functools.partial(attribute, network, PATCHES, rows=rows))(
        IMAGES, CLASSES, permutations
    )
    np.testing.assert_allclose(found.values, want.values, atol=1e-6)
    np.testing.assert_allclose(found.errors, want.errors, atol=1e-6)
    assert set(sizes) == {min(rows, 3 * (8 * 5 + 2))}


def test_under_the_same_permutations_the_difference_of_two_networks_is_that_of_their_difference():
    permutations = draw_permutations(jax.random.key(0), 6, 3)
    student, teacher = draw_network(1), draw_network(2)

    def difference(view):
        return student(view) - teacher(view)

    ours, theirs, both = (
        attribute(network, PATCHES, IMAGES, CLASSES, permutations, rows=64)
        for network in (student, teacher, difference)
    )
    np.testing.assert_allclose(ours.values - theirs.values, both.values, atol=1e-5)


def test_one_player_is_worth_the_whole():
    whole = replace_patches(grid=(1, 1), baseline=0.0)
    found = attribute(NETWORK, whole, IMAGES, 1, np.zeros((2, 1), int), rows=4)
    change = NETWORK(IMAGES) - NETWORK({"images": np.zeros((3, 4, 6, 2), np.float32)})
    np.testing.assert_allclose(found.values[:, 0], change[:, 1], atol=1e-6)
    np.testing.assert_array_equal(found.errors, 0)


def test_logits_of_bfloat16_are_subtracted_in_float32():
    def coarse(view):
        return NETWORK(view).astype(jnp.bfloat16)

    found = attribute(
        coarse, PATCHES, IMAGES, 1, draw_permutations(jax.random.key(0), 6, 2), rows=64
    )
    assert found.values.dtype == found.errors.dtype == jnp.float32


@pytest.mark.parametrize(
    "mask", [replace_tokens(baseline_id=1, fixed_ids=(2,)), hide_tokens(fixed_ids=(2,))]
)
def test_tokens_of_a_text_network_add_up_and_padding_and_fixed_tokens_are_worth_nothing(mask):
    view = TEXTS | {"input_ids": np.where(np.arange(5) == 0, 2, TEXTS["input_ids"])}
    module = registry.build(
        dict(
            name="bag_of_embeddings",
            num_classes=3,
            vocabulary_size=20,
            width=6,
            hidden=(5,),
            dropout=0.0,
        )
    )
    variables = module.init(jax.random.key(0), **view)
    variables = jax.tree.map(lambda leaf: leaf + 0.3, variables)

    def network(view):
        return module.apply(variables, **view).logits

    found = attribute(
        network, mask, view, CLASSES, draw_permutations(jax.random.key(0), 5, 4), rows=64
    )
    change = network(view) - network(mask(view, jnp.zeros((3, 5), bool)))
    np.testing.assert_allclose(found.values.sum(axis=1), change[np.arange(3), CLASSES], atol=1e-5)
    idle = ~view["attention_mask"] | (view["input_ids"] == 2)
    np.testing.assert_allclose(np.asarray(found.values)[idle], 0, atol=1e-6)
    assert np.abs(np.asarray(found.values)[~idle]).min() > 1e-4


def test_drawn_permutations_are_permutations_and_follow_their_key():
    first, again, other = (
        np.asarray(draw_permutations(jax.random.key(seed), 9, 20)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(np.sort(first), np.broadcast_to(np.arange(9), (20, 9)))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert len(np.unique(first, axis=0)) == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"permutations": np.array([[0, 1, 2, 3, 4, 5]])},
            r"at least 2 of at least 1 player, got \(1, 6\)",
        ),
        ({"permutations": np.zeros((2, 0), int)}, r"at least 2 of at least 1 player, got \(2, 0\)"),
        (
            {"permutations": np.array([[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 4]])},
            r"0..5 once, got \[0, 1, 2, 3, 4, 4\]",
        ),
        (
            {"permutations": np.array([[0, 1], [1, 0]])},
            r"grid of \(2, 3\) has 6 players, got permutations of 2",
        ),
        ({"classes": np.array([0, 1, 3])}, "classes 0..2, got 3"),
        ({"classes": -1}, "classes 0..2, got -1"),
        ({"classes": np.array([0, 1])}, r"one int or \[B\], \(3,\), got \(2,\)"),
        ({"rows": 0}, "rows = 0"),
        ({"logits_of": lambda view: NETWORK(view)[:, 0]}, r"\[N, K\] for N = 8 rows, got \(8,\)"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    given = dict(
        logits_of=NETWORK,
        mask=PATCHES,
        view=IMAGES,
        classes=CLASSES,
        permutations=HALF_OF_ALL,
        rows=8,
    )
    with pytest.raises(ValueError, match=message):
        attribute(**(given | changes))


# The matching loss


def reference(student, teacher):
    student, teacher = (
        x / np.sqrt((x**2).sum(-1, keepdims=True))
        for x in (np.float64(student), np.float64(teacher))
    )
    return ((student - teacher) ** 2).sum(-1) / student.shape[-1]


@pytest.fixture
def pair():
    return [RNG.normal(size=(4, 3, 6)).astype(np.float32) for _ in range(2)]


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_matching_agrees_with_an_independent_computation(pair, transform):
    np.testing.assert_allclose(transform(attribution_matching)(*pair), reference(*pair), rtol=1e-5)


def test_matching_ignores_the_scale_of_either_side_but_not_its_sign(pair):
    student, teacher = pair
    np.testing.assert_allclose(
        attribution_matching(5 * student, teacher / 7), reference(*pair), rtol=1e-5
    )
    np.testing.assert_allclose(attribution_matching(3 * teacher, teacher), 0, atol=1e-12)
    np.testing.assert_allclose(attribution_matching(-teacher, teacher), 4 / 6, rtol=1e-6)


def test_matching_of_a_zero_attribution_is_finite_with_its_gradient():
    zero, some = jnp.zeros((2, 6)), jnp.ones((2, 6))
    for student, teacher, want in ((zero, some, 1 / 6), (some, zero, 1 / 6), (zero, zero, 0)):
        value, pull = jax.vjp(lambda s, t=teacher: attribution_matching(s, t), student)
        np.testing.assert_allclose(value, want, rtol=1e-6)
        assert np.isfinite(*pull(jnp.ones(2))).all()


def test_players_that_do_not_count_change_neither_norm_nor_mean(pair):
    where = np.broadcast_to(np.arange(6) < 4, (4, 3, 6))
    got = attribution_matching(
        np.where(where, pair[0], 1e9), np.where(where, pair[1], np.nan), where=where
    )
    np.testing.assert_allclose(got, reference(pair[0][..., :4], pair[1][..., :4]), rtol=1e-5)


def test_no_gradient_of_matching_reaches_the_teacher(pair):
    student, teacher = jax.grad(lambda *pair: attribution_matching(*pair).sum(), argnums=(0, 1))(
        *pair
    )
    np.testing.assert_array_equal(teacher, 0)
    assert np.abs(student).max() > 1e-3


def test_the_gradient_of_matching_agrees_with_finite_differences(pair):
    with jax.enable_x64(True):
        student, teacher = map(np.float64, pair)
        check_grads(
            lambda s: attribution_matching(s, teacher), (student,), order=1, modes=["fwd", "rev"]
        )


def test_matching_of_bfloat16_is_computed_in_float32(pair):
    small = [jnp.asarray(x, jnp.bfloat16) for x in pair]
    value = attribution_matching(*small)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(
        value, attribution_matching(*(x.astype(jnp.float32) for x in small)), rtol=1e-6
    )


def test_matching_refuses_what_does_not_fit(pair):
    with pytest.raises(ValueError, match=r"one shape, got \(4, 3, 6\) and \(4, 3, 1\)"):
        attribution_matching(pair[0], pair[1][..., :1])
    with pytest.raises(ValueError, match="teacher attributions must be floating point, got int32"):
        attribution_matching(pair[0], pair[1].astype(np.int32))
    with pytest.raises(ValueError, match="one value for each player"):
        attribution_matching(*pair, where=np.ones((4, 3), bool))


def test_a_network_can_be_trained_to_attribute_as_its_teacher():
    permutations = draw_permutations(jax.random.key(0), 6, 2)
    teacher = attribute(NETWORK, PATCHES, IMAGES, CLASSES, permutations, rows=128).values

    @jax.jit
    @jax.value_and_grad
    def loss(weights):
        def network(view):
            return jnp.tanh(view["images"].reshape(-1, 48) @ weights)

        student = attribute(network, PATCHES, IMAGES, CLASSES, permutations, rows=128)
        return attribution_matching(student.values, teacher).sum()

    weights = 0.1 * jax.random.normal(jax.random.key(9), (48, 3))
    first, _ = loss(weights)
    for _ in range(20):
        weights = weights - 0.3 * loss(weights)[1]
    assert loss(weights)[0] < 0.2 * first
