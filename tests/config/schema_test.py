import copy
import dataclasses
import inspect
import math

import pytest

from kd_jax.config import schema
from kd_jax.config.load import load_config, plain, resolve
from kd_jax.experiments.plan import make_plan
from kd_jax.training import optimizers

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
        ("logging.writers", "tensorboard"),
        ("logging.writers", None),
        ("models", None),
        ("models.student.model", None),
        ("models.student.training.epochs", math.nan),
        ("models.student.training.batch_size", "64"),
        ("models.student.teachers", "teacher"),
        ("models.student.objective.soft", 1.0),
        ("models.student.dtype", "double"),
        ("view.size", (8, 8, 8)),
        ("view.channels", 2),
        ("view.mean", 0.3),
        ("view.std", (0.0,)),
        ("training.optimizer.name", "lion"),
        ("training.optimizer.learning_rate", "fast"),
        ("training.optimizer.weight_decay", -0.1),
        ("training.optimizer.clip_norm", 0.0),
        ("training.schedule.warmup_steps", 0.5),
        ("training.mixing", {"kind": "blend"}),
        ("models.student.objective.soft.weight", math.inf),
        ("models.student.objective.soft.temperature", math.nan),
        ("models.student.model.name", 3),
        ("training.epochs", 10**400),
    ],
)
def test_a_value_of_another_kind_is_refused_with_the_keys_full_path(path, value):
    with pytest.raises(ValueError, match=r"must be|needs option") as refusal:
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


def test_what_a_model_lacks_is_as_in_the_experiment():
    older = copy.deepcopy(DIGITS)
    for model in older["models"].values():
        del model["training"]["accumulate"], model["dtype"], model["view"], model["restore"]
    assert make_plan(older) == make_plan(DIGITS)


def test_one_size_stands_for_height_and_width():
    assert make_plan(changed("models.teacher.view.size", 16))["teacher"].view["size"] == (16, 16)


def test_an_optimizer_of_a_models_own_has_defaults_where_all_optimizers_have_them():
    own = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.0}
    config = load_config("digits")
    with config.unlocked(), config.ignore_type():
        config.models.teacher.training.optimizer = own
    optimizer = make_plan(resolve(config))["teacher"].training["optimizer"]
    assert optimizer == own | {"learning_rate": 1e-3, "clip_norm": 1.0}


@pytest.mark.parametrize(
    ("schemas", "builders"),
    [(schema.OPTIMIZERS, optimizers.OPTIMIZERS), (schema.SCHEDULES, optimizers.SCHEDULES)],
)
def test_the_schema_has_the_options_of_every_optimizer_and_schedule(schemas, builders):
    assert schemas.keys() == builders.keys()
    for name, build in builders.items():
        options = {
            parameter.name: parameter.default is parameter.empty
            for parameter in inspect.signature(build).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        known = {
            field.name: field.default is dataclasses.MISSING
            for field in dataclasses.fields(schemas[name])
            if field.name not in ("learning_rate", "clip_norm")
        }
        assert known == options
