import jax
import numpy as np
import pytest

from kd_jax.objective.schedules import extremes, make_value

LINEAR = {"name": "linear", "start": 4.0, "stop": 1.0, "steps": 6}
COSINE = {"name": "cosine", "start": 4.0, "stop": 1.0, "steps": 6}
SWITCH = {"name": "switch", "start": 0.0, "stop": 1.0, "at": 3}


@pytest.mark.parametrize("value", [2, 2.5])
def test_a_number_stays_what_it_is(value):
    assert [make_value(value, "weight")(step) for step in (0, 10, 10_000)] == [value] * 3


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (LINEAR, {0: 4.0, 2: 3.0, 6: 1.0, 100: 1.0}),
        (COSINE, {0: 4.0, 2: 1 + 3 * 0.75, 3: 2.5, 6: 1.0, 100: 1.0}),
        (COSINE | {"start": 0.0}, {0: 0.0, 3: 0.5, 6: 1.0, 100: 1.0}),
        (SWITCH, {0: 0.0, 2: 0.0, 3: 1.0, 100: 1.0}),
        (SWITCH | {"at": 0}, {0: 1.0, 1: 1.0}),
    ],
)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_schedule_has_its_values_at_key_steps(spec, values, transform):
    schedule = transform(make_value(spec, "weight"))
    np.testing.assert_allclose(
        [schedule(step) for step in values], list(values.values()), rtol=1e-6
    )


def test_the_extremes_of_a_schedule_bound_it():
    assert extremes(3.0) == (3.0,)
    assert extremes(COSINE) == (4.0, 1.0)
    values = [float(make_value(COSINE, "weight")(step)) for step in range(10)]
    assert (max(values), min(values)) == extremes(COSINE)


@pytest.mark.parametrize("value", ["3", None, True, [1.0]])
def test_what_is_neither_number_nor_schedule_is_refused(value):
    with pytest.raises(ValueError, match=r"^weight must be a finite number or a schedule, got"):
        make_value(value, "weight")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            LINEAR | {"name": "wave"},
            "unknown schedule for weight 'wave'; there are cosine, linear, switch",
        ),
        ({"start": 1.0}, "unknown schedule for weight None; there are cosine, linear, switch"),
        (
            LINEAR | {"at": 3},
            "weight: schedule 'linear' has no option 'at'; its options are start, steps, stop",
        ),
        (
            {"name": "switch", "at": 3},
            "weight: schedule 'switch' needs option 'start'; its options are at, start",
        ),
    ],
)
def test_an_unknown_schedule_or_option_is_refused_with_those_that_exist(spec, message):
    with pytest.raises(ValueError, match=message):
        make_value(spec, "weight")
