"""The token behind each mask: what is counted, and what a prediction says."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from kd_jax.core.types import Batch
from kd_jax.tasks import Rows, make_task

TASK = make_task("masked_language_model")


def test_perplexity_and_accuracy_are_over_all_masks_alone():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 4, 7)), rng.integers(0, 7, (3, 4))
    there = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], bool)
    labels[~there] = -1
    valid = np.array([True, True, False])
    batch = Batch(np.arange(3), {}, labels.astype(np.int32), valid, valid, there)
    found = TASK.summarize(TASK.sums(jnp.asarray(logits), batch), Rows(logits, labels))
    counted = there & valid[:, None]
    log_p = special.log_softmax(logits, axis=-1)
    nats = [-log_p[b, p, labels[b, p]] for b, p in zip(*np.nonzero(counted), strict=True)]
    assert found["perplexity"] == pytest.approx(np.exp(np.mean(nats)), rel=1e-6)
    right = (logits.argmax(-1) == labels)[counted].mean()
    assert found["token_accuracy"] == pytest.approx(right)


def test_a_prediction_names_the_likeliest_tokens_of_each_mask():
    logits = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]))
    answer = TASK.predict_row(logits, ("a", "b", "c"))
    assert answer["masks"][0] == {"a": 0.5, "b": 0.3, "c": 0.2}
    assert next(iter(answer["masks"][1])) == "c"


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0])
def test_a_rate_that_hides_nothing_or_all_is_refused(rate):
    with pytest.raises(ValueError, match=r"task\.rate must be above 0 and below 1"):
        make_task({"name": "masked_language_model", "rate": rate})


def test_no_labels_are_read_and_none_is_missing():
    numbers, names = TASK.number([None, None], (), None, (), (1, 2))
    assert (numbers.tolist(), names) == ([-1, -1], ("token",))
    assert not TASK.needs_labels
