import pytest
from training.writers.fake_services import install_wandb

from kd_jax.training.writers import FollowedRun
from kd_jax.training.writers.weights_and_biases import WeightsAndBiases


@pytest.fixture
def runs(monkeypatch):
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(name, raising=False)
    return install_wandb(monkeypatch)


@pytest.fixture
def followed(tmp_path):
    return FollowedRun(tmp_path / "mine", {"name": "digits", "widths": (4, 8)})


def test_a_run_is_named_by_its_folder_and_lies_in_it(runs, followed):
    WeightsAndBiases(followed)
    options = runs[0].options
    assert (options["name"], options["group"], options["project"]) == ("mine", "digits", "kd_jax")
    assert options["dir"] == str(followed.folder)
    assert runs[0].settings == {"name": "digits", "widths": [4, 8]}


def test_the_users_environment_names_it_otherwise(runs, followed, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    WeightsAndBiases(followed)
    assert runs[0].options["project"] == "theirs"


def test_each_models_metrics_have_a_step_of_their_own(runs, followed):
    writer = WeightsAndBiases(followed)
    writer.begin("teacher", 0)
    writer.write("teacher", 9, {"loss": 2.0})
    writer.begin("student", 0)
    writer.write("student", 1, {"loss": 1.0})
    assert ("student/*", {"step_metric": "student/step"}) in runs[0].metrics
    assert runs[0].logged == [
        {"teacher/loss": 2.0, "teacher/step": 9},
        {"student/loss": 1.0, "student/step": 1},
    ]


def test_a_resumed_run_goes_on_in_it_and_doubles_no_step(runs, followed):
    for start, stop in ((0, 4), (2, 6)):
        writer = WeightsAndBiases(followed)
        writer.begin("student", start)
        for step in range(start + 1, stop + 1):
            writer.write("student", step, {"loss": 1.0})
        writer.close(ended=stop == 6)
    assert [run.options["id"] for run in runs] == [None, "first"]
    assert {run.options["resume"] for run in runs} == {"allow"}
    assert [entry["student/step"] for run in runs for entry in run.logged] == [1, 2, 3, 4, 5, 6]
    assert [run.exit_code for run in runs] == [1, 0]


def test_what_a_killed_process_may_have_had_in_memory_is_logged_again(runs, followed):
    for start, stop in ((0, 4), (2, 6)):
        writer = WeightsAndBiases(followed)
        writer.begin("student", start)
        for step in range(start + 1, stop + 1):
            writer.write("student", step, {"loss": 1.0})
    assert [entry["student/step"] for run in runs for entry in run.logged] == [
        1,
        2,
        3,
        4,
        3,
        4,
        5,
        6,
    ]
