"""Teachers that were trained elsewhere: what they are called, read and know is compared with the
run's data before a student learns from them."""

import json
import logging
import shutil

import numpy as np
import pytest
import safetensors.numpy
from tokenizers import Tokenizer

import kd_jax as kd
from kd_jax.export import export

pytestmark = pytest.mark.slow

WORDS = {"bad": ("awful", "dull"), "fair": ("plain", "usual"), "good": ("fine", "great")}
SMALL = dict(name="encoder", max_positions=16, type_vocabulary=2, dropout=0.0, pooling="mean")
SMALL |= dict(width=16, layers=1, heads=2, intermediate=32)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    rng = np.random.default_rng(0)
    rows = [
        f"{rng.choice(words)} story number {number},{label}\n"
        for number in range(80)
        for label, words in WORDS.items()
    ]
    path.write_text("text,label\n" + "".join(rows))
    return path


def config(table, view, **teacher):
    return kd.experiment(
        "reviews",
        data=dict(name=str(table), inputs="text", label="label", cleaning=dict(mode="off")),
        view=view,
        training=dict(
            epochs=1.0,
            batch_size=16,
            optimizer=dict(learning_rate=0.02),
            schedule=dict(name="constant", warmup_steps=8),
        ),
        teacher=teacher,
        student=dict(model=dict(SMALL, width=8)),
        parallel=dict(data=1),
    )


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    """A run with a good teacher, and the teacher as a folder of Hugging Face."""
    workdir = tmp_path_factory.mktemp("first") / "run"
    view = dict(tokenizer="trained", vocabulary_size=100, max_length=12)
    teacher = dict(model=SMALL | dict(pooling="cls"), objective=kd.config.HARD)
    teacher["training"] = dict(epochs=8.0)
    results = kd.run(config(table, view, **teacher), workdir)
    assert results["models"]["teacher"]["accuracy"] > 0.9
    return workdir, export(workdir, "teacher", formats=["huggingface"]) / "huggingface"


def copy_of(folder, path):
    shutil.copytree(folder, path)
    return path


def swap_classes(folder, *, rows):
    settings = json.loads((folder / "config.json").read_text())
    names = [settings["id2label"][str(number)] for number in range(3)]
    names = [names[2], names[0], names[1]]
    settings["id2label"] = {str(number): name for number, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(settings))
    if rows:
        tensors = safetensors.numpy.load_file(folder / "model.safetensors")
        for name in ("classifier.weight", "classifier.bias"):
            tensors[name] = np.ascontiguousarray(tensors[name][[2, 0, 1]])
        safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def run(table, workdir, folder, **model):
    view = dict(tokenizer=str(folder), max_length=12)
    section = dict(model=dict(pretrained=str(folder), **model), objective={})
    return kd.run(config(table, view, **section), workdir)


def test_a_teacher_with_classes_in_another_order_is_as_good(table, trained, tmp_path):
    results = run(table, tmp_path / "plain", copy_of(trained[1], tmp_path / "a"))
    folder = copy_of(trained[1], tmp_path / "b")
    swap_classes(folder, rows=True)
    other = run(table, tmp_path / "swapped", folder)
    first = results["models"]["teacher"]
    assert first["accuracy"] == other["models"]["teacher"]["accuracy"] > 0.9
    assert first["origin"] == "as published"
    assert first["selection_accuracy"] > 0.9


def test_a_teacher_whose_names_stand_on_the_wrong_outputs_is_worse_than_a_guess(
    table, trained, tmp_path
):
    folder = copy_of(trained[1], tmp_path / "a")
    swap_classes(folder, rows=False)
    with pytest.raises(
        ValueError, match=r"models.teacher is not trained here; selection split: .* worse than"
    ):
        run(table, tmp_path / "run", folder)
    assert not (tmp_path / "run" / "student").exists()
    found = config(
        table,
        dict(tokenizer=str(folder), max_length=12),
        model=dict(pretrained=str(folder)),
        objective={},
        allow_weak=True,
    )
    results = kd.run(found, tmp_path / "allowed")
    assert results["models"]["teacher"]["accuracy"] < 0.3


def test_a_teacher_goes_on_training_from_its_own_order(table, trained, tmp_path):
    folder = copy_of(trained[1], tmp_path / "a")
    swap_classes(folder, rows=True)
    view = dict(tokenizer=str(folder), max_length=12)
    section = dict(model=dict(pretrained=str(folder)), objective=kd.config.HARD)
    section["training"] = dict(epochs=0.1, optimizer=dict(learning_rate=1e-6))
    results = kd.run(config(table, view, **section), tmp_path / "run")
    assert results["models"]["teacher"]["accuracy"] > 0.9


def test_another_vocabulary_of_the_same_size_is_refused(table, trained, tmp_path):
    folder, other = copy_of(trained[1], tmp_path / "a"), copy_of(trained[1], tmp_path / "b")
    permute(other)
    found = config(
        table,
        dict(tokenizer=str(other), max_length=12),
        model=dict(pretrained=str(folder)),
        objective={},
    )
    message = r"models.teacher: its view's tokenizer '.*/b' is not the one in .*/a, .* other ids"
    with pytest.raises(ValueError, match=message):
        kd.run(found, tmp_path / "run")


def permute(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    last = sorted(words, key=words.get)[-20:]
    for word, number in zip(last, np.roll([words[word] for word in last], 1), strict=True):
        words[word] = int(number)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_a_teacher_restored_from_a_run_with_another_tokenizer_is_refused(table, trained, tmp_path):
    rows = table.read_text().splitlines(keepends=True)
    other = tmp_path / "others.csv"
    # Words that are as frequent, so that as many tokens are learned of another text.
    other.write_text("".join(rows).replace("story", "tale").replace("great", "grand"))
    view = dict(tokenizer="trained", vocabulary_size=100, max_length=12)
    section = dict(model=SMALL | dict(pooling="cls"), objective={})
    section["restore"] = str(trained[0] / "teacher")
    with pytest.raises(ValueError, match=r"is not the one in .*/run/teacher.* other ids"):
        kd.run(config(other, view, **section), tmp_path / "run")


def test_a_tokenizer_that_changed_since_the_run_began_is_refused(table, trained, tmp_path):
    folder = copy_of(trained[1], tmp_path / "tokens")
    view = dict(tokenizer=str(folder), max_length=12)
    section = dict(model=SMALL, objective=kd.config.HARD)
    kd.run(config(table, view, **section), tmp_path / "run")
    permute(folder)
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(ValueError, match="a tokenizer changed since this run began"):
        kd.run(config(table, view, **section), tmp_path / "run")


def test_a_head_that_nobody_trained_does_not_teach(table, trained, tmp_path):
    folder = copy_of(trained[1], tmp_path / "a")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    bare = {name: tensor for name, tensor in tensors.items() if "classifier" not in name}
    safetensors.numpy.save_file(bare, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="has no classifier for 3 classes, and nothing trains one"):
        run(table, tmp_path / "run", folder)
    with pytest.raises(ValueError, match="new_head=True makes a random head"):
        run(table, tmp_path / "again", folder, new_head=True)


def test_another_normalization_than_the_folders_is_told(tmp_path, caplog):
    from types import SimpleNamespace

    from kd_jax.experiments.check_inputs import check_inputs

    settings = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25] * 3, "size": {"height": 8}}
    settings["size"]["width"] = 8
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    view = {"size": (8, 8), "mean": (0.5,), "std": (0.25, 0.25, 0.25), "channels": 3}
    plan = SimpleNamespace(name="teacher", view=view)
    with caplog.at_level(logging.WARNING, "kd_jax"):
        check_inputs(plan, tmp_path, None)
        assert not caplog.text
        view |= {"mean": (0.0,), "size": (9, 8)}
        check_inputs(plan, tmp_path, None)
    assert "view.mean [0.0], there [0.5, 0.5, 0.5]; view.size [9, 8], there [8, 8]" in caplog.text


def test_outputs_of_a_restored_teacher_are_kept_in_the_run_that_uses_them(
    table, trained, tmp_path, caplog
):
    workdir, *_ = trained
    view = dict(tokenizer="trained", vocabulary_size=100, max_length=12)
    found = config(table, view, model=SMALL | dict(pooling="cls"), restore=str(workdir / "teacher"))
    found.models.student.cached = ("teacher",)
    found.models.baseline.cached = ()
    before = sorted(workdir.rglob("*"))
    assert kd.run(found, tmp_path / "run")["truncated"] == {}
    assert sorted(workdir.rglob("*")) == before
    assert list((tmp_path / "run" / "teacher").glob("outputs-*/rows-*.safetensors"))


def test_checkpoints_stay_where_the_config_wants_them_and_cut_texts_are_told(table, tmp_path):
    view = dict(tokenizer="trained", vocabulary_size=100, max_length=4)
    found = config(table, view, model=SMALL, objective=kd.config.HARD)
    found.checkpoint.keep_finished = True
    results = kd.run(found, tmp_path / "run")
    # [CLS], two of four words, and [SEP].
    (told,) = [entry for name, entry in results["truncated"].items() if "[:80%]" in name]
    assert told == {"texts": 192, "cut": 192}
    assert {path.parent.name for path in (tmp_path / "run").glob("*/checkpoints")} == set(
        found.models
    )
