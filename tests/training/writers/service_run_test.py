import pytest

from kd_jax.training.writers import FollowedRun
from kd_jax.training.writers.service_run import ServiceRun


@pytest.fixture
def followed(tmp_path):
    return FollowedRun(tmp_path, {"name": "digits", "seed": 0})


def begun(followed):
    kept = ServiceRun(followed, "wandb")
    kept.begin("abc")
    kept.note(5, {"student/loss": 1.0})
    return kept


def test_the_next_start_finds_the_run_and_what_was_logged(followed):
    begun(followed)
    again = ServiceRun(followed, "wandb")
    assert again.id == "abc"
    values = {"student/loss": 0.5, "student/selection/loss": 0.5}
    assert again.new(5, values) == {"student/selection/loss": 0.5}
    assert again.new(6, values) == values


def test_services_are_kept_apart(followed):
    begun(followed)
    assert ServiceRun(followed, "mlflow").id is None


def test_another_config_in_the_folder_begins_another_run(followed):
    begun(followed)
    other = ServiceRun(FollowedRun(followed.folder, {"name": "digits", "seed": 1}), "wandb")
    assert other.id is None
    assert other.new(1, {"student/loss": 1.0})


def test_a_run_that_the_service_began_anew_knows_of_no_steps(followed):
    kept = begun(followed)
    kept.begin("other")
    assert ServiceRun(followed, "wandb").id == "other"
    assert kept.new(1, {"student/loss": 1.0})


def test_a_damaged_file_is_announced_and_another_run_begun(followed, caplog):
    (followed.folder / "wandb_run.json").write_text("{")
    assert ServiceRun(followed, "wandb").id is None
    assert "another run of wandb is begun" in caplog.text
