"""A folder of another config: what it trained alike stays, the rest is trained anew."""

import copy
import json
import shutil

import pytest
from starting import fingerprints, smoke
from task_experiments import config_of, table

from kd_jax.experiments.run import run_experiment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished run's config, folder and results."""
    config = smoke("digits.py")
    folder = tmp_path_factory.mktemp("first") / "run"
    return config, folder, run_experiment(config, folder)


def changed(config, **changes):
    found = copy.deepcopy(config)
    for dotted, value in changes.items():
        *sections, key = dotted.split("__")
        section = found
        for name in sections:
            section = section[name]
        section[key] = value
    return found


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "run")


def test_without_being_asked_nothing_is_taken_over(first, tmp_path):
    config, folder, _ = first
    other = changed(config, models__student__objective__soft__temperature=2.0)
    message = r"they differ in models.student.objective.soft.temperature; .*--reuse to keep"
    with pytest.raises(ValueError, match=message):
        run_experiment(other, copied(folder, tmp_path))


def test_only_the_student_that_changed_is_trained_anew(first, tmp_path):
    config, folder, before = first
    other = changed(config, models__student__objective__soft__temperature=2.0)
    workdir = copied(folder, tmp_path)
    stamps = {
        name: (workdir / name / "finished.json").stat().st_mtime_ns
        for name in ("teacher", "baseline")
    }
    after = run_experiment(other, workdir, reuse=True)
    for name, stamp in stamps.items():
        assert (workdir / name / "finished.json").stat().st_mtime_ns == stamp
    was, now = fingerprints(before), fingerprints(after)
    assert {name for name in was if was[name] != now[name]} == {"student"}
    assert now == fingerprints(run_experiment(other, tmp_path / "alone"))
    # Nothing is lost.
    kept = workdir / "replaced" / "1"
    assert json.loads((kept / "results.json").read_text())["models"] == before["models"]
    assert (kept / "student" / "model.safetensors").is_file()
    run_experiment(config, workdir, reuse=True)
    assert (workdir / "replaced" / "2" / "student").is_dir()


def test_whoever_learned_from_a_changed_teacher_is_trained_anew(first, tmp_path):
    config, folder, before = first
    other = changed(config, models__teacher__training__epochs=3.0)
    after = run_experiment(other, copied(folder, tmp_path), reuse=True)
    was, now = fingerprints(before), fingerprints(after)
    assert was["baseline"] == now["baseline"]
    assert was["teacher"] != now["teacher"]
    assert was["student"] != now["student"]


def test_what_every_model_depends_on_keeps_nothing(first, tmp_path):
    config, folder, _ = first
    workdir = copied(folder, tmp_path)
    for key, value in (("seed", 1), ("primary", "macro_f1"), ("checkpoint__use", "latest")):
        message = rf"^--reuse keeps nothing in .*: {key.replace('__', '.')} differ"
        with pytest.raises(ValueError, match=message):
            run_experiment(changed(config, **{key: value}), workdir, reuse=True)
    # The task's own first metric is the same, spelled out.
    again = changed(config, primary="accuracy", models__student__objective__soft__temperature=2.0)
    assert run_experiment(again, workdir, reuse=True)["finished"]


def test_a_model_of_masks_drawn_otherwise_is_not_kept(tmp_path):
    config = config_of(table(tmp_path, "masked_language_model"), "masked_language_model")
    run_experiment(config, tmp_path / "run")
    other = changed(config, task=dict(name="masked_language_model", rate=0.3))
    with pytest.raises(ValueError, match=r"^--reuse keeps nothing in .*: task.* differ"):
        run_experiment(other, tmp_path / "run", reuse=True)


def test_a_failed_try_doesn_t_claim_the_folder(first, tmp_path):
    config, _, before = first
    wrong = changed(config, models__student__objective__soft__temperature="hot")
    with pytest.raises(ValueError, match="temperature"):
        run_experiment(wrong, tmp_path / "run")
    late = changed(config, models__teacher__model__width=-1)
    with pytest.raises(ValueError, match="width"):
        run_experiment(late, tmp_path / "run")
    assert fingerprints(run_experiment(config, tmp_path / "run")) == fingerprints(before)
