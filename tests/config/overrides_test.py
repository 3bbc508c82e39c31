import pytest

from kd_jax.config.load import load_config, plain
from kd_jax.config.overrides import override, split_overrides


def overridden(path, text, config="sst2_minilm"):
    found = load_config(config)
    override(found, path, text)
    value = plain(found)
    for name in path.split("."):
        value = value[name]
    return value


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("data.inputs", "sentence1,sentence2", ("sentence1", "sentence2")),
        ("data.inputs", "[sentence1, sentence2]", ("sentence1", "sentence2")),
        ("data.inputs", "('sentence1', 'sentence2')", ("sentence1", "sentence2")),
        ("data.inputs", '["sentence1","sentence2"]', ("sentence1", "sentence2")),
        ("data.inputs", "text", "text"),
        ("data.label", "joy,anger", ("joy", "anger")),
        ("task", "regression", "regression"),
        ("primary", "mcc", "mcc"),
        ("data.name", "a,b.csv", "a,b.csv"),
        ("data.unlabelled", "-1", ("-1",)),
        ("data.unlabelled", "-1,-100", ("-1", "-100")),
        ("data.unlabelled", "()", ()),
        ("data.unlabelled", "", ()),
        ("data.selection", "train[90%:]", "train[90%:]"),
        ("data.selection.whole_texts", "20", 20),
        ("view.long", "head_tail", "head_tail"),
        ("training.epochs", "3", 3.0),
        ("training.batch_size", "1e2", 100),
        ("training.optimizer.clip_norm", "None", None),
        ("models.student.model.hidden", "8,16", (8, 16)),
        ("models.student.model.hidden", "8", (8,)),
        ("models.student.model.hidden", "()", ()),
        ("models.student.training.epochs", "2", 2.0),
        ("models.teacher.restore", "runs/a/teacher", "runs/a/teacher"),
    ],
)
def test_a_value_takes_the_kind_of_its_key(path, text, value):
    found = overridden(path, text)
    assert found == value
    assert type(found) is type(value)


def test_what_a_section_in_another_need_not_have_can_be_added():
    path = "transfer_sets.of_teacher.restore"
    assert overridden(path, "runs/a/transfer_sets/b", "sst2_transfer") == "runs/a/transfer_sets/b"
    with pytest.raises(ValueError, match=r"transfer_sets\.of_teacher has no 'kept'"):
        overridden("transfer_sets.of_teacher.kept", "x", "sst2_transfer")


def test_cached_teachers_and_how_they_are_kept_can_be_added():
    assert overridden("models.student.cached", "teacher", "digits") == ("teacher",)
    assert overridden("models.student.cached_as.top_k", "3") == 3
    assert overridden("models.student.cached_as.dtype", "float16") == "float16"
    with pytest.raises(ValueError, match=r"cached_as has no 'top'; it has dtype, top_k"):
        overridden("models.student.cached_as.top", "3")


def test_a_split_takes_the_place_of_whole_texts():
    assert overridden("data.selection", "validation", "sst2_bilstm") == "validation"
    assert overridden("data.selection.whole_texts", "9", "sst2_bilstm") == 9


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("view.size", "32", 32),
        ("view.size", "32,24", (32, 24)),
        ("models.teacher.model.batch_norm", "false", False),
        ("models.teacher.model.batch_norm", "True", True),
    ],
)
def test_pairs_and_booleans_can_be_set(path, text, value):
    assert overridden(path, text, "digits") == value


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("trainin.epochs", "1", ["trainin", "training"]),
        ("training.epoch", "1", ["epoch", "epochs"]),
        ("training.epochs", "many", ["training.epochs", "many"]),
        ("training.optimizer", "adam", ["training.optimizer", "learning_rate"]),
        ("models.student.model.widht", "1", ["widht", "width"]),
    ],
)
def test_what_does_not_fit_is_refused_with_the_key_and_what_exists(path, text, words):
    with pytest.raises(ValueError, match=words[0]) as refusal:
        overridden(path, text)
    assert all(word in str(refusal.value) for word in words)


@pytest.mark.parametrize(
    ("name", "path", "text", "task"),
    [
        ("goemotions", "task.threshold", "tuned", dict(separator=",", threshold="tuned")),
        ("goemotions", "task.threshold", "0.3", dict(separator=",", threshold=0.3)),
        ("goemotions", "task.separator", ",", dict(separator=",", threshold="tuned")),
        ("goemotions", "task.separator", "1", dict(separator="1", threshold="tuned")),
        ("goemotions", "task.separator", ";", dict(separator=";", threshold="tuned")),
        ("digits", "task.name", "embedding", {}),
    ],
)
def test_options_of_the_task_are_added_and_a_name_becomes_a_section(name, path, text, task):
    config = load_config(name)
    override(config, path, text)
    known = {"goemotions": "multilabel", "digits": "embedding"}[name]
    assert plain(config)["task"] == {"name": known, **task}


def test_a_boolean_is_no_number():
    with pytest.raises(ValueError, match="batch_norm must be true or false, got '2'"):
        overridden("models.teacher.model.batch_norm", "2", "digits")


def test_an_override_of_the_experiment_reaches_every_model_that_inherits_it():
    config = load_config("digits")
    override(config, "training.batch_size", "32")
    assert plain(config)["models"]["baseline"]["training"]["batch_size"] == 32


def test_overrides_are_told_from_flags_with_or_without_an_equals_sign():
    found, rest = split_overrides(["--config=a.py", "--config.x.y=1", "--debug", "--config.z", "2"])
    assert found == [("x.y", "1"), ("z", "2")]
    assert rest == ["--config=a.py", "--debug"]
    with pytest.raises(ValueError, match=r"--config.z needs a value"):
        split_overrides(["--config.z"])
