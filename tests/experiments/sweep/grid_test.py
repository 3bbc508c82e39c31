"""Which runs a sweep has, which of them share a teacher, and what is no sweep."""

import copy

import pytest
from paths import ROOT, TESTS

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.sweep.grid import lay_out, read

CONFIG = str(TESTS / "configs" / "shared.py") + ":smoke"
TEMPERATURE = "models.student.objective.soft.temperature"


@pytest.fixture
def config():
    config = load_config(CONFIG)
    config.parallel.data = 1
    return config


def laid_out(config, tmp_path, **spec):
    return lay_out(config, spec, tmp_path)


# What the runs are.


def test_every_setting_meets_every_seed_in_a_folder_that_says_so(config, tmp_path):
    runs = laid_out(
        config, tmp_path, seeds=[3, 5], grid={TEMPERATURE: [1, 4.0], "training.epochs": [2]}
    )
    assert [run.name for run in runs] == [
        "temperature=1.0,epochs=2.0-seed3",
        "temperature=1.0,epochs=2.0-seed5",
        "temperature=4.0,epochs=2.0-seed3",
        "temperature=4.0,epochs=2.0-seed5",
    ]
    assert [run.config["seed"] for run in runs] == [3, 5, 3, 5]
    assert [
        run.config["models"]["student"]["objective"]["soft"]["temperature"] for run in runs
    ] == [1.0, 1.0, 4.0, 4.0]


def test_without_a_grid_the_config_itself_runs_once_a_seed(config, tmp_path):
    first, second = laid_out(config, tmp_path, seeds=[0, 1])
    assert (first.name, second.name) == ("seed0", "seed1")
    assert first.config == plain(config)


def test_an_override_reaches_all_that_inherit_it_and_nothing_else(config, tmp_path):
    before = copy.deepcopy(plain(config))
    rate = "models.student.training.optimizer.learning_rate"
    first, second = laid_out(
        config, tmp_path, seeds=[0], grid={"training.epochs": [7.0], rate: [0.5, 0.25]}
    )
    for run, wanted in ((first, 0.5), (second, 0.25)):
        models = run.config["models"]
        assert {model["training"]["epochs"] for model in models.values()} == {7.0}
        assert models["baseline"]["training"]["optimizer"]["learning_rate"] == wanted
        assert models["teacher"]["training"]["optimizer"]["learning_rate"] == 1e-3
    assert plain(config) == before


def test_lists_stand_for_tuples(config, tmp_path):
    (run,) = laid_out(config, tmp_path, seeds=[0], grid={"models.student.model.widths": [[4, 6]]})
    assert run.config["models"]["baseline"]["model"]["widths"] == (4, 6)
    assert run.name == "widths=4_6-seed0"


def test_folders_stay_short_and_apart(config, tmp_path):
    long = ["x" * 300, "x" * 301]
    odd = ["train[:90%]", "train[90%]"]
    names = [
        run.name
        for run in laid_out(config, tmp_path, seeds=[0], grid={"data.dir": long, "data.train": odd})
    ]
    assert len(set(names)) == 4
    assert max(map(len, names)) < 150
    same_end = {"models.student.model.name": ["cnn"], "data.name": ["digits"]}
    (run,) = laid_out(config, tmp_path, seeds=[0], grid=same_end)
    assert run.name == "model.name=cnn,data.name=digits-seed0"
    odd_only = [run.name for run in laid_out(config, tmp_path, seeds=[0], grid={"data.train": odd})]
    assert len(set(odd_only)) == 2


# Which runs share a teacher.


def restored(run):
    return {
        name: model["restore"] for name, model in run.config["models"].items() if model["restore"]
    }


def test_a_teacher_that_no_override_touches_is_trained_once(config, tmp_path):
    first, *others = laid_out(config, tmp_path, seeds=[0, 1], grid={TEMPERATURE: [1.0, 4.0]})
    assert (restored(first), first.needs) == ({}, frozenset())
    for run in others:
        assert restored(run) == {"teacher": str(tmp_path / first.name / "teacher")}
        assert run.needs == {first.name}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("training.epochs", [1.0, 2.0]),
        ("models.teacher.model.width", [0.25, 0.5]),
        ("data.train", ["train[:80%]", "train[:90%]"]),
        ("checkpoint.use", ["best", "latest"]),
        ("view.channels", [1, 3]),
    ],
)
def test_each_version_of_a_teacher_is_trained_once(config, tmp_path, path, values):
    runs = laid_out(config, tmp_path, seeds=[0, 1], grid={path: values})
    assert [run.needs for run in runs] == [set(), {runs[0].name}, set(), {runs[2].name}]


def test_a_teacher_that_is_trained_with_a_peer_is_trained_in_every_run(config, tmp_path):
    with config.unlocked():
        config.models.other = copy.deepcopy(config.models.teacher)
        config.models.other.model.width = 0.125
        config.models.other.teachers, config.models.teacher.teachers = (
            ("peer:teacher",),
            ("peer:other",),
        )
    for run in laid_out(config, tmp_path, seeds=[0, 1], grid={TEMPERATURE: [1.0, 4.0]}):
        assert (restored(run), run.needs) == ({}, frozenset())


def test_baselines_assistants_and_teachers_that_are_restored_already_are_left_alone(
    config, tmp_path
):
    with config.unlocked():
        config.models.assistant = copy.deepcopy(config.models.student)
        config.models.student.teachers = ("assistant",)
    _, second = laid_out(config, tmp_path, seeds=[0, 1])
    assert set(restored(second)) == {"teacher"}
    with config.unlocked():
        config.models.teacher.restore = "elsewhere"
    for run in laid_out(config, tmp_path, seeds=[0, 1]):
        assert restored(run) == {"teacher": "elsewhere"}
        assert not run.needs


def test_a_baseline_that_teaches_is_still_one_of_each_seed(config, tmp_path):
    with config.unlocked():
        config.models.born_again = copy.deepcopy(config.models.student)
        config.models.born_again.teachers = ("baseline",)
    _, second = laid_out(config, tmp_path, seeds=[0, 1])
    assert set(restored(second)) == {"teacher"}


@pytest.mark.parametrize("kind", ["transfer", "trusted"])
def test_who_labels_or_judges_what_others_learn_from_is_trained_once(kind, tmp_path):
    """Without being anyone's teacher."""
    config = load_config(str(ROOT / "configs" / "digits_trusted.py") + ":smoke")
    with config.unlocked():
        del config.models.unsifted
        if kind == "transfer":
            config.trusted_sets = {}
            source = {"name": "mixes", "rounds": 1, "kind": "mixup", "concentration": 1.0}
            config.transfer_sets = {
                "trusted": {
                    "teacher": "judge",
                    "source": source,
                    "labels": "soft",
                    "temperature": 1.0,
                    "confidence": 0.0,
                    "per_class": None,
                    "near_duplicate": 0.0,
                    "max_overlap": 0.0,
                }
            }
    _, second = laid_out(config, tmp_path, seeds=[0, 1])
    assert restored(second)["judge"] == str(tmp_path / "seed0" / "judge")


def test_a_teacher_that_learns_from_a_set_is_trained_in_every_run(tmp_path):
    """Which rows it learns from may be what the grid varies."""
    config = load_config(str(ROOT / "configs" / "digits_trusted.py") + ":smoke")
    _, second = laid_out(config, tmp_path, seeds=[0], grid={"trusted_sets.trusted.folds": [2, 3]})
    assert set(restored(second)) == {"judge"}


# What is refused.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1", "not JSON"),
        ("[1]", "must look like"),
        ('{"seeds": [0], "grid": []}', "must look like"),
        ('{"grid": {}}', "needs option 'seeds'"),
        (
            '{"seeds": [0], "gird": {}}',
            "has no option 'gird'; its options are devices, grid, seeds",
        ),
        ('{"seeds": []}', "seeds in .* must be a list of integers"),
        ('{"seeds": [true]}', "seeds in .* must be a list of integers"),
        ('{"seeds": [-1]}', "seeds in .* must be a list of integers"),
        ('{"seeds": [1, 1]}', "must differ from one another"),
        ('{"seeds": [0], "devices": "all"}', "devices in .* must be a list of integers"),
        (
            '{"seeds": [0], "grid": {"training.epochs": []}}',
            "'training.epochs' in .* must be a list of values",
        ),
        (
            '{"seeds": [0], "grid": {"training.epochs": 1}}',
            "'training.epochs' in .* must be a list of values",
        ),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, content, message):
    file = tmp_path / "wrong.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        read(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json can't be read: No such file"):
        read(tmp_path / "none.json")
