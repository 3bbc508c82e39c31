import pytest

from kd_jax.config import experiment
from kd_jax.config.hashing import config_hash
from kd_jax.config.load import find_config, load_config, plain, resolve

CNN = dict(model=dict(name="cnn", widths=(4, 8), batch_norm=False))


def test_the_fair_baseline_is_added():
    config = resolve(experiment("x", data="digits", teacher=CNN, student=CNN))
    student, baseline = config["models"]["student"], config["models"]["baseline"]
    assert baseline["teachers"] == ()
    assert baseline["objective"] == {"hard": {"term": "cross_entropy", "weight": 1.0}}
    assert {key: baseline[key] for key in ("model", "view", "training")} == {
        key: student[key] for key in ("model", "view", "training")
    }


def test_the_baseline_takes_nothing_else_from_a_teacher():
    student = CNN | dict(cached=("teacher",), condition=dict(on="teacher"))
    config = resolve(experiment("x", data="digits", teacher=CNN, student=student))
    assert config["models"]["baseline"]["cached"] == ()
    assert config["models"]["baseline"]["condition"] is None


def test_a_table_is_split_and_read_as_text():
    config = plain(experiment("x", data="reviews.csv", student=CNN))
    assert config["data"]["train"] == "train[:80%]"
    assert config["data"]["inputs"] == "text"
    assert config["view"]["tokenizer"] == "trained"


def test_a_student_is_needed_and_data_too():
    with pytest.raises(ValueError, match="needs a student"):
        experiment("x", data="digits", teacher=CNN)
    with pytest.raises(ValueError, match="needs data"):
        experiment("x", student=CNN)


def test_another_optimizer_takes_over_only_what_all_have():
    config = plain(
        experiment("x", data="digits", student=CNN, training=dict(optimizer=dict(name="adam")))
    )
    assert config["training"]["optimizer"] == {
        "name": "adam",
        "clip_norm": 1.0,
        "learning_rate": 1e-3,
    }


def test_a_shipped_config_is_found_by_its_name_and_a_file_wins(tmp_path, monkeypatch):
    assert find_config("digits").name == "digits.py"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.py").write_text("")
    assert find_config("digits.py") == type(tmp_path)("digits.py")
    with pytest.raises(
        ValueError, match="there is no config file 'digitz'; give a file, or one of"
    ):
        find_config("digitz")


def test_a_config_begins_with_another_ones_task_and_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = "from kd_jax.config import experiment\ndef get_config():\n    return experiment('x', "
    (tmp_path / "first.py").write_text(
        own + "data='a.csv', task=dict(name='regression'), primary='spearman', "
        "student=dict(model=dict(name='bag_of_embeddings')), checkpoint=dict(every_steps=7))"
    )
    taken = plain(experiment("y", start="first.py"))
    assert taken["task"] == {"name": "regression"}
    assert taken["primary"] == "spearman"
    assert taken["data"]["name"] == "a.csv"
    assert taken["checkpoint"]["every_steps"] == 7
    # A metric belongs to its task.
    other = plain(experiment("y", start="first.py", task="classification"))
    assert (other["task"], other["primary"]) == ("classification", None)


def test_the_hash_does_not_depend_on_whether_defaults_are_written_out():
    config = plain(load_config("digits"))
    shorter = {key: value for key, value in config.items() if key not in ("parallel", "dtype")}
    del shorter["data"]["dir"]
    assert config_hash(config) == config_hash(shorter)


def test_smoke_leaves_no_data_that_would_have_to_be_fetched():
    for name in ("sst2_domains", "digits_mnist", "cifar10_resnet56:crd", "bert_adam"):
        config = plain(load_config(name, smoke=True))
        assert config["data"]["name"] in ("digits", "docstrings")
        assert not any("pretrained" in model["model"] for model in config["models"].values())
        assert not any("name" in section for section in config["evaluations"].values())
