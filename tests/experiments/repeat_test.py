"""A recorded experiment is run again and compared, or refused in a line."""

import json

import pytest
from paths import ROOT
from training.writers.fake_services import install_wandb

from kd_jax.config.load import load_config, plain
from kd_jax.core import seal
from kd_jax.experiments.repeat import compare, repeat_result
from kd_jax.experiments.run import run_experiment


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    config = plain(load_config(f"{ROOT / 'configs' / 'digits.py'}:smoke"))
    run_experiment(config, folder, show=False)
    return folder / "results.json"


def changed(file, folder, **changes):
    """Writes a results.json with other facts, sealed anew."""
    found = json.loads(file.read_text())
    found.pop(seal.KEY)
    other = folder / "results.json"
    other.write_text(json.dumps(seal.seal(found | changes)))
    return other


@pytest.mark.slow
def test_a_file_alone_is_enough_and_the_numbers_are_equal(recorded, tmp_path, capsys):
    moved = tmp_path / "published.json"
    moved.write_bytes(recorded.read_bytes())
    outcome = repeat_result(moved, tmp_path / "again")
    assert outcome["equal"]
    assert outcome["largest"] == 0
    assert outcome == json.loads((tmp_path / "again" / "repeat.json").read_text())
    assert "equal: every metric to the last digit" in capsys.readouterr().out


@pytest.mark.slow
def test_whoever_repeats_a_run_reaches_no_dashboard_of_whoever_recorded_it(
    recorded, tmp_path, monkeypatch
):
    runs = install_wandb(monkeypatch)
    config = json.loads(recorded.read_text())["config"]
    followed = config | {"logging": config["logging"] | {"writers": ["wandb"]}}
    assert repeat_result(changed(recorded, tmp_path, config=followed), tmp_path / "again")["equal"]
    assert not runs


@pytest.mark.slow
def test_other_numbers_are_told(recorded, tmp_path, capsys):
    found = json.loads(recorded.read_text())
    accuracy = found["models"]["student"]["metrics"]["accuracy"]
    found["models"]["student"]["metrics"]["accuracy"] = accuracy + 0.25
    environment = found["environment"] | {"jax": "0.0.1"}
    other = changed(recorded, tmp_path, models=found["models"], environment=environment)
    outcome = repeat_result(other, tmp_path / "again")
    assert not outcome["equal"]
    assert outcome["largest"] == pytest.approx(0.25)
    assert outcome["environment"]["jax"]["recorded"] == "0.0.1"
    told = capsys.readouterr().out
    assert "metrics differ by 0.25 at most" in told
    assert "jax: 0.0.1 when it was recorded" in told


@pytest.mark.slow
def test_data_that_changed_are_refused_before_anything_is_trained(recorded, tmp_path):
    environment = json.loads(recorded.read_text())["environment"]
    environment = environment | {"data_fingerprint": "sha256:other"}
    other = changed(recorded, tmp_path, environment=environment)
    with pytest.raises(ValueError, match=r"the data changed since .* was sha256:other"):
        repeat_result(other, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
def test_a_file_that_was_edited_or_lies_in_the_new_folder_is_refused(recorded, tmp_path):
    edited = tmp_path / "results.json"
    edited.write_text(recorded.read_text().replace('"seed": 0', '"seed": 1', 1))
    with pytest.raises(ValueError, match="was changed after it was written"):
        repeat_result(edited, tmp_path / "again")
    with pytest.raises(ValueError, match="name another folder to repeat it in"):
        repeat_result(recorded, recorded.parent)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        ("[]", "is damaged"),
        ("{}", "is no results.json of a finished run"),
        ('{"models": {}, "environment": {}}', "of an earlier version, which recorded no config"),
    ],
)
def test_what_is_no_result_is_refused_in_a_line(content, message, tmp_path):
    file = tmp_path / "results.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=message):
        repeat_result(file, tmp_path / "again")


def test_weights_that_differ_under_equal_metrics_are_not_equal():
    def result(fingerprint, value):
        entry = {"fingerprint": fingerprint, "metrics": {"accuracy": value}}
        return {"models": {"student": entry}, "environment": {"jax": "1"}}

    assert compare(result("a", 0.5), result("a", 0.5))["equal"]
    assert not compare(result("a", 0.5), result("b", 0.5))["equal"]
    undefined = compare(result("a", None), result("a", 0.5))
    assert (undefined["equal"], undefined["largest"]) == (False, 0)
