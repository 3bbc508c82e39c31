import copy
import math

import pytest

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.plan import make_plan

DIGITS = plain(load_config("digits"))


def changed(path, value):
    config = copy.deepcopy(DIGITS)
    *sections, key = path.split(".")
    section = config
    for name in sections:
        section = section[name]
    section[key] = value
    return config


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", -1),
        ("seed", 0.5),
        ("seed", True),
        ("dtype", "float23"),
        ("name", ""),
        ("data.name", None),
        ("data.inputs", ("a", "b", "c")),
        ("data.max_rejected", -1),
        ("data.augmentation.flip", 1.5),
        ("data.augmentation.crop", 0.5),
        ("data.cleaning.mode", "maybe"),
        ("data.cleaning.near_duplicate", math.nan),
        ("training.epochs", math.inf),
        ("training.epochs", 0),
        ("training.epochs", "many"),
        ("training.batch_size", 0),
        ("training.accumulate", 1.0),
        ("training.optimizer", None),
        ("parallel.backend", "tpu"),
        ("parallel.fsdp", 0),
        ("checkpoint.use", "newest"),
        ("checkpoint.keep_best", 0),
        ("logging.every_steps", 0),
        ("models", None),
        ("models.student.model", None),
        ("models.student.training.epochs", math.nan),
        ("models.student.training.batch_size", "64"),
        ("models.student.teachers", "teacher"),
        ("models.student.objective.soft", 1.0),
        ("models.student.dtype", "double"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_the_keys_full_path(path, value):
    with pytest.raises(ValueError, match="must be") as refusal:
        make_plan(changed(path, value))
    assert path in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "path", ["trainin", "data.nam", "training.epoch", "parallel.x", "models.student.teacher"]
)
def test_an_unknown_key_is_refused_with_those_that_exist(path):
    owner, _, key = path.rpartition(".")
    with pytest.raises(ValueError, match=rf"has no option '{key}'; its options are ") as refusal:
        make_plan(changed(path, 1))
    assert (owner or "the config") in str(refusal.value)


def test_a_key_that_is_absent_counts_as_its_default():
    older = copy.deepcopy(DIGITS)
    del older["checkpoint"]["keep_best"], older["parallel"], older["data"]["cleaning"]
    assert make_plan(older).config == make_plan(DIGITS).config
