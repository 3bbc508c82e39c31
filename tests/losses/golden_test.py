"""The losses against values that each paper's original PyTorch code gives for the stored arrays
(tests/golden)."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from loss_cases import CASES
from paths import TESTS

from kd_jax import losses

pytestmark = pytest.mark.grid

GOLDEN = TESTS / "golden"
ENTRIES = [
    entry
    for entry in json.loads((GOLDEN / "losses.json").read_text())
    if entry["function"] in losses.__all__
]
MESSAGE = (
    "the value of the original code; a change here means that the formula changed, and the formula"
    " is the paper's:"
    " correct the function, never the stored value"
)


def test_the_stored_values_check_something():
    stored = json.loads((GOLDEN / "losses.json").read_text())
    assert len(ENTRIES) == len(stored) == 38
    assert len({entry["function"] for entry in ENTRIES}) == 28


@pytest.mark.parametrize(
    "entry", ENTRIES, ids=[f"{entry['id']}-{entry['function']}" for entry in ENTRIES]
)
def test_agrees_with_the_original_code(entry):
    with np.load(GOLDEN / "losses.npz") as stored:
        arrays = [stored[f"{entry['id']}/{name}"] for name in entry["arrays"]]
    function = jax.jit(partial(getattr(losses, entry["function"]), **entry["hyperparameters"]))
    value = np.asarray(function(*arrays))
    shape = next(case for case in CASES if case.name == entry["function"]).shape
    assert value.shape == shape(dict(zip(entry["arrays"], arrays, strict=True)))
    assert entry["compare"] == "mean"
    np.testing.assert_allclose(
        np.float64(value).mean(), entry["expected"], rtol=1e-5, err_msg=MESSAGE
    )
