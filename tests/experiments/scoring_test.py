"""What is evaluated, and who is asked for it."""

from collections import Counter

import pytest

from kd_jax.config.load import load_config, plain
from kd_jax.data.run_datasets import Datasets
from kd_jax.experiments import scoring
from kd_jax.experiments.run import run_experiment
from kd_jax.tasks import make_task
from kd_jax.teachers import compute, kept_outputs

pytestmark = pytest.mark.slow


@pytest.fixture
def config():
    found = plain(load_config("digits", smoke=True))
    found["parallel"]["data"] = 1
    return found


@pytest.fixture
def rows_asked(monkeypatch):
    """How many rows each teacher is asked about, to keep its outputs on them."""
    asked, ask = Counter(), kept_outputs.ask

    def counted(compiled, variables, parts, name, stop):
        for rows in ask(compiled, variables, parts, name, stop):
            asked[name] += len(rows.get("index", ()))
            yield rows

    monkeypatch.setattr(kept_outputs, "ask", counted)
    return asked


def test_a_teacher_is_asked_once_about_the_evaluation_split(
    config, rows_asked, tmp_path, monkeypatch
):
    evaluate, asked_again = scoring.evaluate, []

    def seen(compiled, variables, teachers, batches, task, class_names=None):
        if class_names is not None:
            asked_again.append(
                (len(variables), [len(each.variables) for each in teachers.values()])
            )
        return evaluate(compiled, variables, teachers, batches, task, class_names)

    monkeypatch.setattr(scoring, "evaluate", seen)
    run_experiment(config, tmp_path, show=False)
    # By their own variables: the baseline and the student, whose teacher has none here.
    assert sorted(asked_again) == [(False, []), (True, []), (True, [False])]
    rows = Datasets(config["data"], {}, make_task("classification", None)).splits["evaluation"]
    assert rows_asked == {"teacher": len(rows)}


def test_so_is_an_ensemble_unless_it_chooses_by_the_label(rows_asked, tmp_path):
    config = plain(load_config("digits_three_teachers", smoke=True))
    config["parallel"]["data"] = 1
    run_experiment(config, tmp_path, show=False)
    rows = len(Datasets(config["data"], {}, make_task("classification", None)).splits["evaluation"])
    combined = {
        n: m["model"]["combine"] for n, m in config["models"].items() if "combine" in m["model"]
    }
    learned_from = {name for each in config["models"].values() for name in each.get("teachers", ())}
    assert combined
    for name in learned_from:
        assert rows_asked[name] == (0 if combined.get(name) == "least_loss" else rows), name


def test_members_are_asked_once_for_their_own_row_and_for_what_they_add(
    rows_asked, tmp_path, monkeypatch
):
    def refuse(*_, **__):
        raise AssertionError("a member is asked again")

    monkeypatch.setattr(compute, "outputs", refuse)
    config = plain(load_config("digits_three_teachers", smoke=True))
    config["parallel"]["data"] = 1
    results = run_experiment(config, tmp_path, show=False)
    rows = len(Datasets(config["data"], {}, make_task("classification", None)).splits["evaluation"])
    for name in ("vgg", "resnet", "vit"):
        assert rows_asked[name] == rows, name
    assert any("shapley" in entry for entry in results["models"].values())


def test_who_has_the_outputs_needs_no_teacher(config, rows_asked, tmp_path):
    config["models"]["student"]["cached"] = ("teacher",)
    run_experiment(config, tmp_path, teach=True)
    rows_asked.clear()
    assert run_experiment(config, tmp_path, show=False)["finished"]
    assert not rows_asked


def test_kept_logits_are_evaluated_as_a_teacher_that_is_asked_each_time(
    config, tmp_path, monkeypatch
):
    kept = run_experiment(config, tmp_path / "kept", show=False)
    assert [*(tmp_path / "kept" / "teacher" / "evaluation").glob("outputs-*/rows-*")]
    monkeypatch.setattr(kept_outputs, "EVALUATED", 0)
    live = run_experiment(config, tmp_path / "live", show=False)
    assert not (tmp_path / "live" / "teacher" / "evaluation").exists()
    for name, entry in live["models"].items():
        assert kept["models"][name]["metrics"] == pytest.approx(entry["metrics"], abs=1e-6)
    for key in ("agreement", "teacher_kl"):
        theirs = live["models"]["student"][key]
        assert kept["models"]["student"][key] == pytest.approx(theirs, abs=1e-6)
