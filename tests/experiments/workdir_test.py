import json

import pytest

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

# A workdir's lock is held until the workdir is forgotten.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*\.lock:pytest.PytestUnraisableExceptionWarning")


def claim(path, **changes):
    """Claims a folder for the config with some paths changed, and lets it go again."""
    config = json.loads(json.dumps(CONFIG))
    for dotted, value in changes.items():
        *sections, key = dotted.split("__")
        section = config
        for name in sections:
            section = section[name]
        section[key] = value
    del Workdir(path, config)._lock


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
    with pytest.raises(
        ValueError,
        match=r"belongs to another config; they differ in models.student.model.name, seed$",
    ):
        claim(tmp_path, seed=1, models__student__model__name="vgg")
    claim(tmp_path)


def test_a_key_that_one_side_lacks_is_a_difference(tmp_path):
    claim(tmp_path)
    with pytest.raises(ValueError, match=r"they differ in models.student.teachers$"):
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


def test_a_value_of_the_first_start_must_be_that_of_the_next(tmp_path):
    folder = Workdir(tmp_path, CONFIG)
    folder.require_same("data", "sha256:a", "the data changed")
    folder.require_same("data", "sha256:a", "the data changed")
    with pytest.raises(
        ValueError, match=r'the data changed: .*data.json says "sha256:a", now it is "sha256:b"'
    ):
        folder.require_same("data", "sha256:b", "the data changed")
    folder.require_same("data", "sha256:a", "the data changed")


def test_there_are_no_results_before_a_run_is_finished(tmp_path):
    folder = Workdir(tmp_path, CONFIG)
    assert folder.results() is None
    (tmp_path / "results.json").write_text('{"finished": true}')
    assert folder.results() == {"finished": True}
