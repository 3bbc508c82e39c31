import pytest
from training.writers.fake_services import install_mlflow

from kd_jax.training.writers import FollowedRun
from kd_jax.training.writers.ml_flow import MLflow


@pytest.fixture
def store(monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return install_mlflow(monkeypatch)


@pytest.fixture
def followed(tmp_path):
    options = {str(number): number for number in range(250)}
    return FollowedRun(tmp_path / "mine", {"name": "digits", "options": options})


def test_a_run_has_the_config_as_parameters(store, followed):
    MLflow(followed)
    assert store.experiments == {"kd_jax": "1"}
    assert store.params["name"] == "digits"
    assert store.params["options.249"] == "249"


def test_the_users_environment_names_another_experiment(store, followed, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    MLflow(followed)
    assert list(store.experiments) == ["theirs"]


def test_values_are_logged_under_the_models_name_as_mlflow_allows_it(store, followed):
    MLflow(followed).write("größer", 3, {"agreement/peer:wide": 0.5, "50%": 1.0})
    assert store.logged == [
        ("run0", "größer/agreement/peer:wide", 0.5, 3),
        ("run0", "größer/50_", 1.0, 3),
    ]


def test_a_resumed_run_goes_on_in_it_and_doubles_no_step(store, followed):
    seen = []
    for start, stop in ((0, 4), (2, 6)):
        writer = MLflow(followed)
        assert store.runs == {"run0": "RUNNING"}
        for step in range(start + 1, stop + 1):
            writer.write("student", step, {"loss": 1.0})
        writer.close(ended=stop == 6)
        seen.append(store.runs["run0"])
    assert [step for *_, step in store.logged] == [1, 2, 3, 4, 5, 6]
    assert seen == ["KILLED", "FINISHED"]
