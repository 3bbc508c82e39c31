from kd_jax.training.writers import FollowedRun
from kd_jax.training.writers.tensorboard import TensorBoard


def scalars(folder):
    (events,) = (folder / "student" / "events").iterdir()
    return events.read_bytes()


def test_values_reach_tensorboard_under_the_models_name(tmp_path):
    writer = TensorBoard(FollowedRun(tmp_path, {"name": "digits"}))
    writer.begin("student", 0)
    writer.write("student", 1, {"loss": 0.5, "accuracy": 1.0})
    writer.end("student")
    content = scalars(tmp_path)
    assert b"student/loss" in content
    assert b"student/accuracy" in content


def test_what_a_model_reached_is_written_though_it_was_not_trained_in_this_start(tmp_path):
    writer = TensorBoard(FollowedRun(tmp_path, {"name": "digits"}))
    writer.write("student", 7, {"evaluation/accuracy": 1.0})
    writer.close(ended=True)
    assert b"student/evaluation/accuracy" in scalars(tmp_path)
