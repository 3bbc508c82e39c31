import json
import os
import threading

import pytest

from kd_jax.experiments import workdir
from kd_jax.experiments.workdir import Workdir

CONFIG = {
    "seed": 0,
    "training": {"epochs": 1.0, "widths": (1, 2)},
    "models": {"student": {"model": {"name": "cnn"}}},
    "evaluations": {},
    "parallel": {"backend": "jit"},
    "logging": {"every_steps": 1},
    "checkpoint": {"every_steps": 5, "keep_latest": 2},
}


def claim(path, **changes):
    """Claims a folder for the config with some paths changed, and lets it go again."""
    config = json.loads(json.dumps(CONFIG))
    for dotted, value in changes.items():
        *sections, key = dotted.split("__")
        section = config
        for name in sections:
            section = section[name]
        section[key] = value
    Workdir(path, config).close()


def train_something(path):
    """Leaves what a finished model leaves."""
    (path / "teacher").mkdir(exist_ok=True)
    (path / "teacher" / "finished.json").write_text("{}")


def test_a_new_folder_is_made_and_says_whose_it_is(tmp_path):
    claim(tmp_path / "a" / "b")
    assert (
        json.loads((tmp_path / "a" / "b" / "config.json").read_text())["models"] == CONFIG["models"]
    )


def test_the_same_config_may_come_again(tmp_path):
    claim(tmp_path)
    claim(tmp_path)


def test_another_config_is_refused_naming_the_keys_that_differ(tmp_path):
    claim(tmp_path)
    train_something(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"belongs to another config; they differ in models.student.model.name, seed;",
    ):
        claim(tmp_path, seed=1, models__student__model__name="vgg")
    claim(tmp_path)


def test_a_key_that_one_side_lacks_is_a_difference(tmp_path):
    claim(tmp_path)
    train_something(tmp_path)
    with pytest.raises(ValueError, match=r"they differ in models.student.teachers; give"):
        claim(tmp_path, models__student__teachers=["teacher"])


@pytest.mark.parametrize(
    "change",
    [
        {"parallel__backend": "pmap"},
        {"logging__every_steps": 9},
        {"checkpoint__every_steps": 9},
        {"evaluations": {"other": {"evaluation": "test"}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_does_not_change_the_result_may_differ(tmp_path, change):
    claim(tmp_path)
    claim(tmp_path, **change)


def test_how_many_checkpoints_are_kept_may_not_differ(tmp_path):
    claim(tmp_path)
    train_something(tmp_path)
    with pytest.raises(ValueError, match=r"checkpoint.keep_latest"):
        claim(tmp_path, checkpoint__keep_latest=3)


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"the workdir .*/file/run can't be written: Not a directory"
    ):
        claim(tmp_path / "file" / "run")


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path, monkeypatch):
    from pathlib import Path

    def refuse(self, *_args, **_options):
        raise PermissionError(13, "Permission denied", str(self))

    # Whoever may do everything, as in a container, isn't stopped by the folder's mode.
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ValueError, match=r"the workdir .* can't be written: Permission denied"):
        claim(tmp_path)


def test_one_run_at_a_time_works_in_a_folder(tmp_path):
    held = Workdir(tmp_path, CONFIG)
    with pytest.raises(ValueError, match=r"another process is at work in"):
        Workdir(tmp_path, CONFIG)
    del held
    claim(tmp_path)


def test_a_value_of_the_first_start_that_trained_must_be_that_of_the_next(tmp_path):
    claim(tmp_path)
    train_something(tmp_path)
    folder = Workdir(tmp_path, CONFIG)
    folder.require_same("data", "sha256:a", "the data changed")
    folder.require_same("data", "sha256:a", "the data changed")
    folder.require_same("tokenizers", {"a": 1}, "a tokenizer changed")
    folder.require_same("tokenizers", {"b": 2}, "a tokenizer changed")
    for name, known in {"a": 1, "b": 2}.items():
        with pytest.raises(ValueError, match="a tokenizer changed"):
            folder.require_same("tokenizers", {name: known + 1}, "a tokenizer changed")
    with pytest.raises(
        ValueError, match=r'the data changed: .*data.json says "sha256:a", now it is "sha256:b"'
    ):
        folder.require_same("data", "sha256:b", "the data changed")
    folder.require_same("data", "sha256:a", "the data changed")


TRAINED = ["teacher/finished.json", "teacher/checkpoints/5", "run-1/teacher/finished.json"]


@pytest.mark.parametrize("name", [*TRAINED, "results.json"])
def test_a_folder_in_which_something_was_trained_stays_its_configs(tmp_path, name):
    claim(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=r"another config; they differ in seed; give another"):
        claim(tmp_path, seed=1)


def test_a_folder_in_which_nothing_was_trained_belongs_to_nobody(tmp_path):
    """A refused config leaves such a folder, and the corrected one must not be refused for it."""
    claim(tmp_path)
    (tmp_path / "data.json").write_text('"sha256:a"')
    (tmp_path / "student" / "checkpoints").mkdir(parents=True)
    claim(tmp_path, seed=1)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1
    folder = Workdir(tmp_path, CONFIG)
    folder.require_same("data", "sha256:b", "the data changed")
    assert json.loads((tmp_path / "data.json").read_text()) == "sha256:b"


def test_whoever_adapts_a_folder_is_given_the_config_that_it_belongs_to(tmp_path):
    claim(tmp_path)
    train_something(tmp_path)
    seen = []
    Workdir(tmp_path, CONFIG | {"seed": 1}, lambda *given: seen.append(given))
    ((folder, stored),) = seen
    assert (folder, stored["seed"]) == (tmp_path, 0)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", b"[1]", b"[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "data.json"])
def test_a_damaged_file_is_named_with_what_can_be_done(tmp_path, name, content):
    claim(tmp_path)
    train_something(tmp_path)
    (tmp_path / name).write_bytes(content)
    message = (
        rf"^{tmp_path / name} (can't be read|is damaged) .*; if .*, delete that file and go on"
    )
    with pytest.raises(ValueError, match=message):
        Workdir(tmp_path, CONFIG).require_same("data", "sha256:a", "the data changed")


def test_there_are_no_results_before_a_run_is_finished(tmp_path):
    folder = Workdir(tmp_path, CONFIG)
    assert folder.results() is None
    found = {"models": {}, "order": [], "compare": {}, "evaluations": {}}
    (tmp_path / "results.json").write_text(json.dumps(found))
    assert folder.results() == found


@pytest.mark.parametrize("content", ["", "{", "[]", '{"finished": true}'])
def test_damaged_results_are_made_again(tmp_path, content, caplog):
    folder = Workdir(tmp_path, CONFIG)
    (tmp_path / "results.json").write_text(content)
    with caplog.at_level("WARNING", "kd_jax"):
        assert folder.results() is None
    assert "results.json can't be read" in caplog.text
    assert "the models are evaluated again" in caplog.text


def test_what_kills_left_of_half_written_files_is_removed_and_nothing_else(tmp_path):
    claim(tmp_path)
    for folder in ("outputs-0a1b", "evaluation/outputs-0a1b"):
        (tmp_path / "teacher" / folder).mkdir(parents=True)
    leftovers = ["results.json.tmp", "sweep.csv.tmp", "teacher/model.safetensors.tmp"]
    old = ["teacher/outputs-0a1b/rows-0.7.tmp", "teacher/evaluation/outputs-0a1b/rows-0.7.tmp"]
    leftovers += [*old, "metrics.tmp"]
    others = ["notes.tmp", "teacher/finished.json", "teacher/outputs-0a1b/rows-0.safetensors"]
    others += ["teacher/outputs-0a1b/rows-1.8.tmp"]
    for name in (*leftovers, *others):
        (tmp_path / name).write_text("{}")
    # Another run of the sweep may be writing the newer one.
    for name in old:
        os.utime(tmp_path / name, (0, 0))
    claim(tmp_path)
    assert [name for name in (*leftovers, *others) if (tmp_path / name).exists()] == others


def test_a_folder_is_free_again_after_a_refusal_and_after_the_run(tmp_path):
    first = Workdir(tmp_path, CONFIG)
    with pytest.raises(ValueError, match="another process is at work"):
        claim(tmp_path)
    first.close()
    train_something(tmp_path)
    # The error is kept, as notebooks keep it, and with it all that it refers to.
    with pytest.raises(ValueError, match="belongs to another config") as kept:
        claim(tmp_path, seed=1)
    claim(tmp_path)
    assert kept.value.__traceback__ is not None


# Shared by several processes.


def share(path, **changes):
    config = json.loads(json.dumps(CONFIG)) | changes
    return Workdir(path, config, shared=True)


def test_those_who_share_a_folder_are_in_it_together_and_nobody_else(tmp_path):
    first, second = share(tmp_path), share(tmp_path)
    with pytest.raises(ValueError, match=r"^another process is at work in"):
        Workdir(tmp_path, CONFIG)
    first.close()
    with pytest.raises(ValueError, match=r"^another process is at work in"):
        Workdir(tmp_path, CONFIG)
    second.close()
    Workdir(tmp_path, CONFIG).close()


def test_who_shares_is_refused_where_somebody_is_at_work_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir, "PATIENCE", 0.2)
    alone = Workdir(tmp_path, CONFIG)
    with pytest.raises(ValueError, match=r"at work in .*, and doesn't share it$"):
        share(tmp_path)
    alone.close()


def test_who_shares_waits_for_the_one_who_is_just_taking_the_folder(tmp_path):
    taking = Workdir(tmp_path, CONFIG)
    timer = threading.Timer(0.5, taking.close)
    timer.start()
    share(tmp_path).close()
    timer.join()


def test_a_folder_is_shared_with_the_same_config_only_even_if_nothing_was_trained(tmp_path):
    first = share(tmp_path)
    with pytest.raises(ValueError, match=r"belongs to another config; they differ in seed;"):
        share(tmp_path, seed=1)
    with pytest.raises(ValueError, match=r"at work in .*, with other evaluations$"):
        share(tmp_path, evaluations={"scans": {}})
    first.close()
    share(tmp_path, seed=1).close()
