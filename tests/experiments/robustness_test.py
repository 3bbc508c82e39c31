import pytest

from kd_jax.experiments.robustness import summarize

EVALUATIONS = {
    "near": {"student": {"accuracy": 0.75}, "teacher": {"accuracy": 0.5}},
    "far": {"student": {"accuracy": 0.25}, "teacher": {"accuracy": 0.7}},
}


def test_the_mean_the_worst_and_the_drop_of_each_model():
    summary = summarize({"student": 0.875, "teacher": 0.9}, EVALUATIONS)
    assert summary["student"] == {
        "in_domain": 0.875,
        "mean": 0.5,
        "worst": 0.25,
        "worst_dataset": "far",
        "drop": 0.375,
    }
    assert summary["teacher"]["worst_dataset"] == "near"
    assert summary["teacher"]["drop"] == pytest.approx(0.3)


def test_without_further_datasets_there_is_nothing_to_say():
    assert summarize({"student": 0.9}, {}) == {}
