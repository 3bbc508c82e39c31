"""Transfer sets made in whole experiments: what is in them, what they say of themselves, what
students make of it."""

import json
import logging
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from paths import ROOT

from kd_jax.config.load import load_config, plain
from kd_jax.data import run_datasets
from kd_jax.data.open import open_source
from kd_jax.experiments.run import run_experiment
from kd_jax.training import trained_model

pytestmark = pytest.mark.slow

CONFIGS = ROOT / "configs"
OPTIONS = dict(
    teacher="teacher",
    labels="soft",
    temperature=1.0,
    confidence=0.0,
    per_class=None,
    near_duplicate=0.8,
    max_overlap=0.1,
)
SUBJECTS = ("film", "plot", "cast", "score", "script", "scene", "joke", "ending")
PRAISE = ("wonderful", "a joy to watch", "clever and warm", "the best of the year")
BLAME = ("dreadful", "a waste of time", "dull and loud", "the worst of the year")
NEW = [
    f"every {subject} was {words} so they said"
    for subject in SUBJECTS
    for words in (*PRAISE, *BLAME)
]


def write_reviews(path):
    """64 sentences, one a row, with their labels; the splits of the configs below take them by
    halves and quarters."""
    rows = [
        f"the {subject} was {words},{label}"
        for label, phrases in (("good", PRAISE), ("bad", BLAME))
        for subject in SUBJECTS
        for words in phrases
    ]
    path.write_text("\n".join(["text,label", *rows]) + "\n")


def text_config(folder, source, **options):
    """Two models: a teacher of the labels, and a student of it that learns from its transfer set
    too."""
    config = load_config(f"{CONFIGS / 'sst2_transfer.py'}:smoke")
    write_reviews(folder / "reviews.csv")
    config.data.update(
        name=str(folder / "reviews.csv"),
        train="train[:50%]",
        selection="train[50%:75%]",
        evaluation="train[75%:]",
    )
    config.parallel.data, config.training.batch_size, config.training.epochs = 1, 16, 4.0
    config.models.teacher.training.batch_size = 16
    resolved = plain(config)
    resolved["evaluations"] = {}
    resolved["transfer_sets"] = {"more": OPTIONS | {"source": source} | options}
    resolved["models"]["student"]["data"] = ("train", "more")
    for name in ("noisy", "without"):
        del resolved["models"][name]
    return resolved


def file_source(path):
    return dict(
        name="unlabelled", dataset=str(path), split=None, dir=None, inputs="text", label=None
    )


def splits_of(config):
    data = config["data"]

    def open_(split):
        return open_source(
            data["name"], split, dir=None, inputs="text", label="label", max_rejected=0
        )

    return {role: list(open_(data[role]).inputs) for role in ("train", "selection", "evaluation")}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A run whose unlabelled source holds evaluation sentences, as they are and changed a little:
    config, results."""
    folder = tmp_path_factory.mktemp("planted")
    config = text_config(folder, file_source(folder / "new.txt"), max_overlap=0.5)
    splits = splits_of(config)
    leaks = [
        *splits["evaluation"][:4],
        splits["selection"][0].upper(),
        splits["evaluation"][5] + " !",
    ]
    (folder / "new.txt").write_text("\n".join([*NEW, *leaks, splits["train"][0]]) + "\n")
    return config, run_experiment(config, folder / "run"), folder / "run"


def open_set(workdir, name="more", inputs="text"):
    root = str(workdir / "transfer_sets")
    return open_source(name, "train", dir=root, inputs=inputs, label="label", max_rejected=0)


def test_no_evaluation_sentence_is_in_the_set_and_all_new_ones_are(planted):
    _, results, workdir = planted
    assert sorted(open_set(workdir).inputs) == sorted(NEW)
    dropped = results["transfer_sets"]["more"]["dropped"]
    assert dropped == {
        "duplicate_of_evaluation": 5,
        "near_duplicate_of_evaluation": 1,
        "duplicate_of_training": 1,
    }


def test_provenance_says_what_the_set_was_made_from_and_by_whom(planted):
    config, results, workdir = planted
    told = json.loads(
        (workdir / "transfer_sets" / "more" / "1.0.0" / "provenance.json").read_text()
    )
    assert told == results["transfer_sets"]["more"]
    assert told["teacher_fingerprint"] == results["models"]["teacher"]["fingerprint"]
    assert told["options"]["source"] == config["transfer_sets"]["more"]["source"]
    assert (told["candidates"], told["kept"]) == (len(NEW) + 7, len(NEW))
    assert sum(told["by_class"].values()) == len(NEW)
    assert results["models"]["student"]["data"] == ["train", "more"]


def logits_of_teacher(workdir, source):
    """By the teacher's own weights, from the module up."""
    from kd_jax.data.views.text import TextView, load_tokenizer
    from kd_jax.models import registry

    teacher = trained_model.load_required(workdir / "teacher")
    module = registry.build(teacher.description["architecture"])
    view = TextView(load_tokenizer(str(workdir / "teacher")), 32).prepare(source)
    return module.apply(
        teacher.variables, **view.gather(np.arange(len(source)), 32), train=False
    ).logits


def test_soft_labels_are_the_teacher_s_probabilities(planted):
    _, _, workdir = planted
    source = open_set(workdir)
    logits = logits_of_teacher(workdir, source)
    assert source.soft_labels is not None
    np.testing.assert_allclose(source.soft_labels, jax.nn.softmax(logits), atol=1e-5)
    assert source.labels.tolist() == np.argmax(logits, axis=-1).tolist()


def test_a_set_that_is_there_is_not_made_again_unless_its_teacher_is_another(planted, caplog):
    config, results, workdir = planted
    record = workdir / "transfer_sets" / "more" / "1.0.0" / "provenance.json"
    before = record.stat().st_mtime_ns
    (workdir / "results.json").unlink()
    assert run_experiment(config, workdir)["models"]["student"]["fingerprint"] == fingerprint(
        results
    )
    assert record.stat().st_mtime_ns == before
    (workdir / "results.json").unlink()
    record.write_text(
        record.read_text().replace(results["models"]["teacher"]["fingerprint"], "sha256:other")
    )
    with caplog.at_level(logging.WARNING):
        again = run_experiment(config, workdir)
    assert "transfer_sets.more was made from something else; it is made again" in caplog.text
    assert again["transfer_sets"] == results["transfer_sets"]
    assert fingerprint(again) == fingerprint(results)


def fingerprint(results):
    return results["models"]["student"]["fingerprint"]


def test_a_set_is_not_taken_over_with_rows_that_this_run_holds_out(planted, tmp_path):
    """It was sifted by the other run's held-out rows."""
    config, _, _ = planted
    config = json.loads(json.dumps(config))
    splits = splits_of(config)
    (tmp_path / "new.txt").write_text("\n".join([*NEW, *splits["evaluation"][-3:]]))
    config["transfer_sets"]["more"]["source"] = file_source(tmp_path / "new.txt")
    config["data"]["evaluation"] = "train[75%:80%]"
    run_experiment(config, tmp_path / "narrow")
    config["data"]["evaluation"] = "train[75%:]"
    config["models"]["teacher"]["restore"] = str(tmp_path / "narrow" / "teacher")
    config["transfer_sets"]["more"]["restore"] = str(tmp_path / "narrow" / "transfer_sets" / "more")
    with pytest.raises(ValueError, match=r"not for this run: {'duplicate_of_evaluation': 3}"):
        run_experiment(config, tmp_path / "wide")


def test_a_set_that_lacks_its_records_or_is_the_run_s_own_is_refused_at_once(planted, tmp_path):
    config, _, workdir = planted
    config = json.loads(json.dumps(config))
    copied = shutil.copytree(workdir, tmp_path / "copied")
    config["transfer_sets"]["more"]["restore"] = str(copied / "transfer_sets" / "more")
    with pytest.raises(ValueError, match=r"more\.restore names a set of .*copied itself"):
        run_experiment(config, copied, reuse=True)
    assert not (copied / "replaced").exists()
    (records,) = (copied / "transfer_sets").glob("*/*/*array_record*")
    records.unlink()
    with pytest.raises(ValueError, match=r"transfer_sets\.more: restore: the set in .* lacks more"):
        run_experiment(config, tmp_path / "lacking")
    assert not [*(tmp_path / "lacking").glob("*/finished.json")]


def test_a_set_of_another_seed_s_run_is_taken_over_and_of_another_making_refused(planted, tmp_path):
    config, results, workdir = planted
    config = json.loads(json.dumps(config)) | {"seed": 1}
    config["models"]["teacher"]["restore"] = str(workdir / "teacher")
    config["transfer_sets"]["more"]["restore"] = str(workdir / "transfer_sets" / "more")
    taken = run_experiment(config, tmp_path / "taken")
    assert taken["transfer_sets"] == results["transfer_sets"]
    assert open_set(tmp_path / "taken").fingerprint == open_set(workdir).fingerprint
    assert fingerprint(taken) != fingerprint(results)
    # The run has a copy, and goes on without the other run.
    (tmp_path / "taken" / "results.json").unlink()
    shutil.rmtree(tmp_path / "taken" / "student")
    kept = (workdir / "transfer_sets").rename(workdir / "elsewhere")
    again = run_experiment(config, tmp_path / "taken")
    kept.rename(workdir / "transfer_sets")
    assert fingerprint(again) == fingerprint(taken)
    config["transfer_sets"]["more"]["restore"] = str(workdir / "transfer_sets" / "none")
    with pytest.raises(ValueError, match=r"transfer_sets.more: restore: there is no whole trans"):
        run_experiment(config, tmp_path / "none")
    config["transfer_sets"]["more"] |= {
        "restore": str(workdir / "transfer_sets" / "more"),
        "temperature": 2.0,
    }
    with pytest.raises(ValueError, match=r"more.restore: .* was made with another options"):
        run_experiment(config, tmp_path / "other")


def test_of_a_chosen_part_a_live_teacher_and_a_cached_one_teach_the_same(planted, tmp_path):
    """The rows that the teacher is surest of are scattered over the source; its labels are
    softened."""
    config, _, workdir = planted
    config = json.loads(json.dumps(config))
    config["transfer_sets"]["more"] |= {"per_class": 9, "temperature": 3.0}
    config["models"]["teacher"]["restore"] = str(workdir / "teacher")
    live = json.loads(json.dumps(config))
    live["models"]["student"]["cached"] = live["models"]["baseline"]["cached"] = ()
    found, again = (
        run_experiment(each, tmp_path / name) for each, name in ((config, "cached"), (live, "live"))
    )
    cached, taught = (
        trained_model.load_required(tmp_path / name / "student").variables
        for name in ("cached", "live")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), cached, taught)
    assert found["transfer_sets"] == again["transfer_sets"]
    source = open_set(tmp_path / "cached")
    assert 0 < len(source) < len(NEW)
    labels = jax.nn.softmax(logits_of_teacher(tmp_path / "cached", source) / 3.0)
    np.testing.assert_allclose(source.soft_labels, labels, atol=1e-5)


def test_the_set_teaches_something_else_than_the_training_split_in_as_many_steps(planted, tmp_path):
    config, results, workdir = planted
    without = config | {"models": json.loads(json.dumps(config["models"]))}
    without["models"]["student"]["data"] = ("train",)
    found = run_experiment(without, tmp_path)
    assert fingerprint(found) != fingerprint(results)
    assert found["transfer_sets"] == {}
    assert last_step(tmp_path) == last_step(workdir) == 4 * 32 // 16


def last_step(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return max(line["step"] for line in lines if line["model"] == "student")


def test_images_mixed_and_labelled_hard_by_the_most_confident_of_each_class(tmp_path):
    """Self-training on digits: the student's own kind labels, and then learns from that alone."""
    config = plain(load_config(f"{CONFIGS / 'digits.py'}:smoke"))
    config["parallel"]["data"] = 1
    source = dict(name="mixes", rounds=1, kind="cutmix", concentration=1.0)
    options = dict(teacher="baseline", source=source, labels="hard", per_class=3, max_overlap=0.0)
    config["transfer_sets"] = {"mixed": OPTIONS | options}
    config["models"]["student"]["data"] = ("mixed",)
    results = run_experiment(config, tmp_path)
    made = open_set(tmp_path, "mixed", "image")
    assert made.inputs.shape[1:] == (8, 8, 1)
    assert made.soft_labels is not None
    assert set(np.unique(made.soft_labels)) == {0.0, 1.0}
    assert max(results["transfer_sets"]["mixed"]["by_class"].values()) <= 3
    assert results["order"].index("baseline") < results["order"].index("student")


REFUSALS = [
    (dict(confidence=1.0), r"transfer_sets.more: confidence 1.0 keeps none of 64 rows"),
    (
        dict(source=dict(name="mixes", rounds=1, kind="mixup", concentration=1.0)),
        "source 'mixes' is of images",
    ),
    (
        dict(source=dict(name="copies")),
        "unknown source .*; there are augmented, masked_words, mixes, unlabelled",
    ),
    (dict(source=dict(name="augmented", rounds=1)), "needs option 'mask"),
    (
        dict(source=file_source("nowhere.txt")),
        "there is no file or folder 'nowhere.txt'; a TFDS dataset needs split",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSALS)
def test_sets_that_can_t_be_made_are_refused_in_one_line(options, message, planted, tmp_path):
    config, _, workdir = planted
    config = json.loads(json.dumps(config))
    config["transfer_sets"]["more"].update(options)
    config["models"]["teacher"]["restore"] = str(workdir / "teacher")
    with pytest.raises(ValueError, match=message):
        run_experiment(config, tmp_path)


def test_a_source_that_is_the_evaluation_data_is_refused(planted, tmp_path):
    config, _, _ = planted
    (tmp_path / "leak.txt").write_text("\n".join(splits_of(config)["evaluation"]))
    config = text_config(tmp_path, file_source(tmp_path / "leak.txt"))
    with pytest.raises(
        ValueError,
        match=r"transfer_sets.more: 16 of 16 rows of its source repeat the evaluation data",
    ):
        run_experiment(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train[:50%]", "models.baseline: objective 'hard' learns from labels, and '.*' has none"),
        ("train[75%:]", "data.evaluation: '.*' has no labels"),
    ],
)
def test_unlabelled_data_given_as_labelled_is_refused(split, message, tmp_path, monkeypatch):
    """As in the test split of GLUE, all of whose labels are -1."""

    def without_labels(*, name, split, **options):
        source = open_source(name, split, **options)
        return (
            replace(source, labels=np.full_like(source.labels, -1)) if split == wanted else source
        )

    wanted = split
    monkeypatch.setattr(run_datasets, "open_source", without_labels)
    (tmp_path / "new.txt").write_text("a new text")
    config = text_config(tmp_path, file_source(tmp_path / "new.txt"))
    with pytest.raises(ValueError, match=message):
        run_experiment(config, tmp_path / "run")
