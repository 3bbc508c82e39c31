"""A teacher whose outputs are kept on disk teaches what the live one does: by vectors of tokens, by
attention scores, by feature maps."""

import copy

import jax
import numpy as np
import pytest
from task_experiments import config_of, table

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.run import run_experiment
from kd_jax.teachers import kept_outputs
from kd_jax.training import trained_model
from kd_jax.training.interruption import Interrupted

pytestmark = pytest.mark.slow

ENCODER = dict(name="encoder", width=16, layers=2, heads=2, intermediate=32, pooling="mean")
ENCODER |= dict(max_positions=64, type_vocabulary=2, dropout=0.0)
TRAINING_IMAGES = 1078
OF_TEXTS = dict(
    hard=dict(term="cross_entropy", weight=0.5),
    tokens=dict(
        term="hidden_mse", weight=1.0, student="block_0", teacher="block_1", mapping="linear"
    ),
    scores=dict(
        term="attention_scores_mse", weight=1.0, student="attention_0", teacher="attention_1"
    ),
)
OF_IMAGES = dict(
    soft=dict(term="soft_target_kl", weight=1.0, temperature=2.0),
    maps=dict(term="attention_transfer", weight=10.0, student="block_0", teacher="block_0"),
)


def texts():
    config = plain(load_config("docstrings", smoke=True))
    for name in ("teacher", "student", "baseline"):
        config["models"][name]["model"] = copy.deepcopy(ENCODER)
    config["models"]["student"]["objective"] = OF_TEXTS
    return config


def images():
    config = plain(load_config("digits", smoke=True))
    config["models"]["student"]["objective"] = OF_IMAGES
    return config


def augmented():
    """Cropped, mirrored and mixed images, in microbatches; the same 2 epochs come twice."""
    config = images()
    config["data"]["augmentation"] = dict(crop=2, flip=0.5)
    mixing = dict(kind="mixup", probability=0.5, share=1.0, concentration=1.0, candidates=1)
    config["training"] |= dict(epochs=4.0, augmented_epochs=2, accumulate=2, mixing=mixing)
    for model in config["models"].values():
        model.pop("training", None)
    return config


def mixed():
    """Texts mixed by their word embeddings; the mixes of one epoch come three times."""
    config = texts()
    mixing = dict(kind="mixup", probability=1.0, share=0.5, concentration=1.0, candidates=1)
    config["training"] |= dict(epochs=3.0, augmented_epochs=1, mixing=mixing)
    for model in config["models"].values():
        model.pop("training", None)
    return config


def test_teaching_keeps_outputs_and_trains_no_student(tmp_path, monkeypatch):
    config = images()
    config["models"]["student"]["cached"] = ("teacher",)
    assert run_experiment(config, tmp_path, teach=True) == {}
    assert trained_model.load(tmp_path / "teacher") is not None
    assert not (tmp_path / "student" / "checkpoints").exists()
    assert not (tmp_path / "results.json").exists()

    def refuse(*_):
        raise AssertionError("the teacher is asked again")

    monkeypatch.setattr(kept_outputs, "ask", refuse)
    assert run_experiment(config, tmp_path)["finished"]


def test_a_stopped_teaching_goes_on_with_the_next_file(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_outputs, "ROWS", 100)
    config = images()
    config["models"]["student"]["cached"] = ("teacher",)
    ask, asked = kept_outputs.ask, []

    def stop_after(*given):
        for number, rows in enumerate(ask(*given)):
            asked.append(len(rows.get("index", ())))
            if number == 5:
                raise Interrupted("stopped")
            yield rows

    monkeypatch.setattr(kept_outputs, "ask", stop_after)
    with pytest.raises(Interrupted):
        run_experiment(config, tmp_path, teach=True)
    (folder,) = (tmp_path / "teacher").glob("outputs-*")
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert before
    first = sum(asked)
    monkeypatch.setattr(kept_outputs, "ask", lambda *given: _counted(ask(*given), asked))
    run_experiment(config, tmp_path, teach=True)
    # Whole files stay as they are, and their rows aren't asked about again.
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert 0 < sum(asked) - first < TRAINING_IMAGES


def _counted(batches, asked):
    for rows in batches:
        asked.append(len(rows.get("index", ())))
        yield rows


def test_runs_share_outputs_in_a_folder_that_they_name(tmp_path, monkeypatch):
    config = images()
    config["models"]["student"]["cached"] = ("teacher",)
    config["checkpoint"]["outputs_dir"] = str(tmp_path / "outputs")
    run_experiment(config, tmp_path / "first", teach=True)
    assert [*(tmp_path / "outputs" / "teacher").glob("outputs-*/rows-*.safetensors")]
    assert not [*(tmp_path / "first" / "teacher").glob("outputs-*")]

    def refuse(*_):
        raise AssertionError("the teacher is asked again")

    monkeypatch.setattr(kept_outputs, "ask", refuse)
    config["models"]["teacher"]["restore"] = str(tmp_path / "first" / "teacher")
    config["models"]["student"]["objective"]["soft"]["temperature"] = 3.0
    assert run_experiment(config, tmp_path / "second")["finished"]


def test_a_folder_for_outputs_that_cannot_be_written_is_refused(tmp_path):
    config = images()
    (tmp_path / "file").touch()
    config["checkpoint"]["outputs_dir"] = str(tmp_path / "file" / "outputs")
    with pytest.raises(
        ValueError, match=r"^checkpoint.outputs_dir: .*outputs can't be written to: "
    ):
        run_experiment(config, tmp_path / "run")


def two_lengths():
    """The teacher reads more of a text than its student, and so decides which share a batch."""
    config = mixed()
    student = config["models"]["student"]
    student["view"] = config["models"]["baseline"]["view"] = config["view"] | dict(max_length=16)
    student["objective"] = dict(soft=dict(term="soft_target_kl", weight=1.0, temperature=2.0))
    return config


def largest_of_all():
    """All logits of a few classes, as the largest of them."""
    config = augmented()
    config["models"]["student"]["cached_as"] = dict(top_k=10, dtype=None)
    return config


def tagged(folder):
    """Words of which the teacher reads fewer than its student, and the largest of all logits."""
    config = config_of(table(folder, "tagging"), "tagging")
    view = dict(config["models"]["student"]["view"])
    config["models"]["teacher"]["view"] = view | dict(max_length=8)
    config["models"]["student"]["cached_as"] = dict(top_k=10, dtype=None)
    return config


MAKERS = [texts, images, augmented, mixed, two_lengths, largest_of_all, tagged]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("backend", ["jit", "pmap"])
def test_kept_features_teach_what_the_live_teacher_does(make, backend, tmp_path, monkeypatch):
    # Several files, so that rows are found in each.
    monkeypatch.setattr(kept_outputs, "ROWS", 50 if make is tagged else 100)
    config = make(tmp_path) if make is tagged else make()
    config["dtype"], config["parallel"]["backend"] = "float64", backend
    for name in config["models"]:
        config["models"][name].pop("dtype", None)
    config["models"]["student"]["cached"] = ()
    cached_as = config["models"]["student"].pop("cached_as", None)
    run_experiment(config, tmp_path / "live")
    config["models"]["student"]["cached_as"] = cached_as
    config["models"]["student"]["cached"] = ("teacher",)
    config["models"]["teacher"]["restore"] = str(tmp_path / "live" / "teacher")
    run_experiment(config, tmp_path / "kept")
    live, kept = (
        trained_model.load_required(tmp_path / name / "student").variables
        for name in ("live", "kept")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), live, kept)
    (folder,) = (tmp_path / "kept" / "teacher").glob("outputs-*")
    assert len([*folder.glob("rows-*.safetensors")]) > 1
