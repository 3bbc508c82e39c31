from training.writers.fake_services import install_wandb

from kd_jax.training.context import RunContext
from kd_jax.training.profile import ProfiledSteps
from kd_jax.training.writers import FollowedRun, open_writers


def test_a_training_in_a_folder_of_its_own_reaches_no_dashboard(tmp_path, monkeypatch):
    """A fold's model has the name of one of the run's own, and would write among its values."""
    runs = install_wandb(monkeypatch)
    with open_writers(("wandb",), FollowedRun(tmp_path, {"name": "digits"})) as writers:
        shared: tuple = (None, None, 0, {}, {}, None)
        context = RunContext(tmp_path, *shared, writers, ProfiledSteps(1, 2))
        fold = context.within(tmp_path / "fold")
        fold.writers.write("student", 1, {"loss": 0.5})
    assert (fold.workdir, fold.profile) == (tmp_path / "fold", None)
    assert runs[0].logged == []
