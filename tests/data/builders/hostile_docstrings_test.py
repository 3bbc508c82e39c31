"""The planted dataset: every kind in equal parts, evaluation splits untouched, and cleaning finds
what was planted."""

import json
from collections import Counter

import pytest
import tensorflow_datasets as tfds
from paths import ROOT

from kd_jax.config.load import load_config, plain
from kd_jax.data import builders
from kd_jax.data.builders import hostile_docstrings
from kd_jax.data.cleaning import duplicates, text
from kd_jax.data.open import open_source
from kd_jax.experiments.run import run_experiment

pytestmark = pytest.mark.slow

CONFIG = ROOT / "configs" / "docstrings_hostile.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="module")
def planted(folder):
    """Row, from 1 -> what it was planted for."""
    path, _ = builders.prepare("hostile_docstrings", folder)
    records = tfds.builder_from_directory(path).as_data_source(split="train")
    found = {row: record["planted"].decode() for row, record in enumerate(records, start=1)}
    return {row: reason for row, reason in found.items() if reason}


def read(folder, name, split):
    return open_source(name, split, dir=str(folder), inputs="text", label="label", max_rejected=0)


def test_every_kind_is_planted_about_as_often(planted):
    kinds = Counter(planted.values())
    assert kinds.keys() == {*text.REASONS, *duplicates.REASONS}
    assert sum(kinds.values()) == hostile_docstrings.HOSTILE
    single = [
        count for kind, count in kinds.items() if kind != "conflicting_labels"
    ]  # Those come in pairs.
    assert max(single) - min(single) <= 1


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_splits_are_those_of_the_docstrings(folder, split):
    ours, real = (read(folder, name, split) for name in ("hostile_docstrings", "docstrings"))
    assert sorted(zip(ours.inputs, ours.labels.tolist(), strict=True)) == sorted(
        zip(real.inputs, real.labels.tolist(), strict=True)
    )
    assert list(ours.inputs) != list(real.inputs)


def test_the_training_texts_that_were_not_planted_are_real(folder, planted):
    ours, real = (read(folder, name, "train") for name in ("hostile_docstrings", "docstrings"))
    left = [value for row, value in enumerate(ours.inputs, start=1) if row not in planted]
    assert len(ours) == len(real)
    assert len(left) == len(real) - hostile_docstrings.HOSTILE
    assert set(left) < set(real.inputs)


def test_the_config_sets_aside_or_repairs_what_was_planted(folder, planted, tmp_path):
    """On the whole training split; two short steps of training beside it."""
    config = load_config(f"{CONFIG}:smoke")
    config.parallel.data, config.data.dir = 1, str(folder)
    config.data.update(train="train", selection="validation", evaluation="test")
    config.data.cleaning.prepared = "drop"
    config.training.epochs = config.models.teacher.training.epochs = 0.005
    results = run_experiment(plain(config), tmp_path)
    entries = [
        json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()
    ]
    reasons = {entry["row"]: entry["reasons"] for entry in entries}
    missed = {row: reason for row, reason in planted.items() if reason not in reasons.get(row, ())}
    assert len(missed) <= 3  # A small change may take two long texts apart.
    assert set(missed.values()) <= {"near_duplicate", "near_duplicate_of_evaluation"}
    assert results["cleaning"]["kept"] == results["cleaning"]["rows"] - len(entries)
