import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.training.optimizers import make_optimizer, make_schedule, weight_decay_mask

ADAM = {"name": "adam", "learning_rate": 0.1, "clip_norm": None}
ADAMW = ADAM | {"name": "adamw", "weight_decay": 0.0}
SGD = ADAM | {"name": "sgd", "weight_decay": 0.0, "momentum": 0.0}
CONSTANT = {"name": "constant", "warmup_steps": 0}
STEP = {"name": "step", "warmup_steps": 10, "boundaries": (0.5, 0.75), "factor": 0.1}


def one_update(optimizer, params, gradients, schedule=CONSTANT):
    update, _ = make_optimizer(optimizer, schedule, 100)
    return update.update(gradients, update.init(params), params)[0]


# Schedules


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ({"name": "constant", "warmup_steps": 10}, {0: 0.0, 5: 1.0, 10: 2.0, 99: 2.0}),
        ({"name": "constant", "warmup_steps": 0}, {0: 2.0, 99: 2.0}),
        ({"name": "linear", "warmup_steps": 20}, {0: 0.0, 20: 2.0, 60: 1.0, 100: 0.0}),
        (
            {"name": "linear", "warmup_steps": 0, "final_fraction": 0.5},
            {0: 2.0, 50: 1.5, 100: 1.0, 120: 1.0},
        ),
        ({"name": "cosine", "warmup_steps": 20}, {0: 0.0, 10: 1.0, 20: 2.0, 60: 1.0, 100: 0.0}),
        ({"name": "cosine", "warmup_steps": 0, "final_fraction": 0.1}, {0: 2.0, 50: 1.1, 100: 0.2}),
        (STEP, {5: 1.0, 10: 2.0, 49: 2.0, 50: 0.2, 74: 0.2, 75: 0.02, 99: 0.02}),
        (STEP | {"warmup_steps": 0}, {0: 2.0, 49: 2.0, 50: 0.2, 74: 0.2, 75: 0.02}),
    ],
    ids=lambda value: value.get("name", ""),
)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_the_learning_rate_has_its_values_at_key_steps(spec, values, transform):
    schedule = transform(make_schedule(spec, 2.0, 100))
    np.testing.assert_allclose(
        [schedule(step) for step in values], list(values.values()), rtol=1e-5, atol=1e-7
    )


def test_every_boundary_multiplies_even_where_two_fall_on_one_step():
    schedule = make_schedule(STEP | {"warmup_steps": 0, "boundaries": (0.5, 0.6)}, 2.0, 2)
    np.testing.assert_allclose(schedule(1), 0.02, rtol=1e-6)


def test_a_warm_up_longer_than_the_training_only_rises():
    for name in ("constant", "cosine", "linear"):
        schedule = make_schedule({"name": name, "warmup_steps": 10}, 2.0, 5)
        np.testing.assert_allclose([schedule(step) for step in (0, 4)], [0.0, 0.8], rtol=1e-6)


def test_the_returned_schedule_is_the_one_that_the_update_follows():
    update, rates = make_optimizer(SGD, {"name": "linear", "warmup_steps": 2}, 6)
    params = gradients = jnp.ones(3)
    state = update.init(params)
    for step in range(6):
        updates, state = update.update(gradients, state, params)
        np.testing.assert_allclose(updates, -rates(step) * gradients, rtol=1e-6)


# Updates


def test_sgd_steps_against_the_gradient_times_the_learning_rate():
    np.testing.assert_allclose(
        one_update(SGD, jnp.zeros(2), jnp.array([3.0, -1.0])), [-0.3, 0.1], rtol=1e-6
    )


@pytest.mark.parametrize(("nesterov", "second"), [(False, 1.9), (True, 1 + 0.9 * 1.9)])
def test_sgd_with_momentum_accumulates(nesterov, second):
    update, _ = make_optimizer(SGD | {"momentum": 0.9, "nesterov": nesterov}, CONSTANT, 100)
    params = gradients = jnp.ones(1)
    _, state = update.update(gradients, update.init(params), params)
    np.testing.assert_allclose(update.update(gradients, state, params)[0], -0.1 * second, rtol=1e-6)


@pytest.mark.parametrize("optimizer", [ADAM, ADAMW])
def test_the_first_step_of_adam_has_the_length_of_the_learning_rate(optimizer):
    np.testing.assert_allclose(
        one_update(optimizer, jnp.zeros(2), jnp.array([3.0, -1e-3])), [-0.1, 0.1], rtol=1e-4
    )


def test_the_options_of_adam_are_passed_on():
    # With b1 = b2 = 0 every step is the gradient over its own size plus eps.
    update = one_update(ADAM | {"b1": 0.0, "b2": 0.0, "eps": 1.0}, jnp.zeros(1), jnp.array([3.0]))
    np.testing.assert_allclose(update, -0.1 * 3 / 4, rtol=1e-6)


@pytest.mark.parametrize(("clip_norm", "factor"), [(None, 1.0), (10.0, 1.0), (1.0, 0.2)])
def test_gradients_are_clipped_by_the_norm_of_all_of_them_together(clip_norm, factor):
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}
    updates = one_update(
        SGD | {"clip_norm": clip_norm}, jax.tree.map(jnp.zeros_like, gradients), gradients
    )
    np.testing.assert_allclose(updates["a"], [-0.3 * factor], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], [[-0.4 * factor]], rtol=1e-6)


PARAMS = {
    "kernel": np.ones((2, 2), np.float32),
    "bias": np.ones(2, np.float32),
    "scale": np.ones(2, np.float32),
}


def test_only_kernels_and_embeddings_decay():
    assert weight_decay_mask(PARAMS) == {"kernel": True, "bias": False, "scale": False}


@pytest.mark.parametrize("optimizer", [ADAMW, SGD])
def test_weight_decay_pulls_kernels_to_zero_and_leaves_biases_alone(optimizer):
    still = jax.tree.map(np.zeros_like, PARAMS)
    updates = one_update(optimizer | {"weight_decay": 0.5}, PARAMS, still)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5 * np.ones((2, 2)), rtol=1e-5)
    np.testing.assert_array_equal(updates["bias"], 0)
    np.testing.assert_array_equal(updates["scale"], 0)


def test_the_weight_decay_of_sgd_enters_the_momentum_as_in_pytorch():
    update, _ = make_optimizer(SGD | {"weight_decay": 0.5, "momentum": 0.9}, CONSTANT, 100)
    still = jax.tree.map(np.zeros_like, PARAMS)
    _, state = update.update(still, update.init(PARAMS), PARAMS)
    updates, _ = update.update(still, state, PARAMS)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5 * 1.9 * np.ones((2, 2)), rtol=1e-5)


# Refusals


def without(spec, key):
    return {name: value for name, value in spec.items() if name != key}


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (ADAM | {"name": "lion"}, "^unknown optimizer 'lion'; there are adam, adamw, sgd$"),
        (without(ADAM, "name"), "^unknown optimizer None; there are"),
        (without(ADAM, "learning_rate"), "^optimizer 'adam' needs 'learning_rate'$"),
        (without(ADAM, "clip_norm"), "^optimizer 'adam' needs 'clip_norm'$"),
        (
            ADAM | {"weight_decay": 0.1},
            "^optimizer 'adam' has no option 'weight_decay'; its options are b1, b2, eps$",
        ),
        (without(ADAMW, "weight_decay"), "^optimizer 'adamw' needs option 'weight_decay'"),
        (without(SGD, "momentum"), "^optimizer 'sgd' needs option 'momentum'"),
        (ADAM | {"learning_rate": 0.0}, "^learning_rate must be positive, got 0.0$"),
        (ADAM | {"learning_rate": -1.0}, "^learning_rate must be positive, got -1.0$"),
        (ADAM | {"learning_rate": float("nan")}, "^learning_rate must be positive, got nan$"),
        (
            ADAM | {"clip_norm": 0.0},
            "^clip_norm must be positive, or None for no clipping, got 0.0$",
        ),
    ],
)
def test_an_optimizer_that_makes_no_sense_is_refused(optimizer, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(optimizer, CONSTANT, 100)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            CONSTANT | {"name": "wave"},
            "^unknown schedule 'wave'; there are constant, cosine, linear, step$",
        ),
        (
            CONSTANT | {"factor": 0.1},
            "^schedule 'constant' has no option 'factor'; its options are warmup_steps$",
        ),
        ({"name": "cosine"}, "^schedule 'cosine' needs option 'warmup_steps'"),
        (without(STEP, "factor"), "^schedule 'step' needs option 'factor'"),
        (CONSTANT | {"warmup_steps": -1}, "^warmup_steps must not be negative, got -1$"),
        (
            STEP | {"boundaries": (0.5, 1.0)},
            "^boundaries are fractions of the training, between 0 and 1, got",
        ),
        (STEP | {"boundaries": (0,)}, "^boundaries are fractions"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(schedule, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(ADAM, schedule, 100)
