import copy

import pytest
from paths import TESTS

from kd_jax.config.experiment import experiment
from kd_jax.config.load import load_config, plain, resolve
from kd_jax.experiments.plan import make_plan

DIGITS = plain(load_config(str(TESTS / "configs" / "shared.py")))


@pytest.fixture
def config():
    return copy.deepcopy(DIGITS)


def put(config, path, value):
    *sections, key = path.split(".")
    for section in sections:
        config = config[section]
    config[key] = value


def add(config, name, *teachers):
    config["models"][name] = copy.deepcopy(config["models"]["student"]) | {"teachers": teachers}


# Order


def test_teachers_come_before_those_that_learn_from_them_and_equals_by_name(config):
    assert [model.name for model in make_plan(config).models] == ["baseline", "teacher", "student"]


def test_a_chain_of_teachers_is_followed_against_the_order_of_names(config):
    add(config, "a", "b")
    add(config, "b", "c")
    add(config, "c", "teacher", "student")
    names = ["baseline", "teacher", "student", "c", "b", "a"]
    assert [model.name for model in make_plan(config).models] == names


def test_the_order_does_not_depend_on_the_order_of_the_keys(config):
    turned = config | {"models": dict(reversed(config["models"].items()))}
    assert make_plan(turned).models == make_plan(config).models


@pytest.mark.parametrize(
    "circle", [{"teacher": "student"}, {"a": "b", "b": "a"}, {"teacher": "teacher"}]
)
def test_teachers_in_a_circle_are_refused_and_named(config, circle):
    for name, teacher in circle.items():
        if name in config["models"]:
            put(config, f"models.{name}.teachers", (teacher,))
        else:
            add(config, name, teacher)
    with pytest.raises(
        ValueError, match="their teachers, or the models they start from, form a circle"
    ) as refusal:
        make_plan(config)
    assert all(name in str(refusal.value) for name in circle)


def test_an_unknown_teacher_is_refused_with_the_models_there_are(config):
    put(config, "models.student.teachers", ("tutor",))
    message = r"^models.student.teachers names 'tutor'; there are baseline, student, teacher$"
    with pytest.raises(ValueError, match=message):
        make_plan(config)


# Peers


def add_peer(config, name, **changes):
    """Adds a model of its own kind that learns from the student, and the student from it."""
    add(config, name, "peer:student")
    model = dict(name="cnn", widths=(5, 8), batch_norm=False)
    config["models"][name] |= {"model": model} | changes
    put(config, "models.student.teachers", ("teacher", f"peer:{name}"))


def test_peers_are_one_group_beside_each_other_after_the_teachers_of_both(config):
    add_peer(config, "a")
    plan = make_plan(config)
    assert [[model.name for model in group] for group in plan.groups] == [
        ["baseline"],
        ["teacher"],
        ["a", "student"],
    ]
    assert [(model.teachers, model.peers) for model in plan.groups[-1]] == [
        ((), ("student",)),
        (("teacher",), ("a",)),
    ]


def test_a_peer_that_is_like_the_other_is_seeded_by_its_own_name(config):
    """Two that started from the same weights, on the same batches, would never differ."""
    add_peer(config, "twin", like="student", model=config["models"]["student"]["model"])
    add(config, "twins_baseline")
    put(config, "models.twins_baseline.like", "twin")
    plan = make_plan(config)
    seed_groups = [
        plan[name].seed_group for name in ("student", "baseline", "twin", "twins_baseline")
    ]
    assert seed_groups == ["student", "student", "twin", "twin"]


def test_peers_that_would_start_from_the_same_weights_are_refused(config):
    add_peer(config, "twin", like="baseline", model=config["models"]["student"]["model"])
    del config["models"]["baseline"]["like"]
    put(config, "models.student.like", "baseline")
    message = (
        r"^models.student and models.twin train together and would start from the"
        r" same weights, as models `like`"
    )
    with pytest.raises(ValueError, match=message):
        make_plan(config)


def test_a_peer_that_is_also_a_finished_teacher_is_a_circle(config):
    add_peer(config, "a")
    put(config, "models.a.teachers", ("peer:student", "student"))
    with pytest.raises(ValueError, match="form a circle"):
        make_plan(config)


def test_peers_are_checked_where_a_plan_is_made(config):
    add_peer(config, "a")
    put(config, "models.student.teachers", ("teacher",))
    with pytest.raises(
        ValueError,
        match=r"^models.a.teachers names 'peer:student'; models.student.teachers must name",
    ):
        make_plan(config)


# What a model's plan holds


def test_a_model_is_planned_from_its_section(config):
    student = make_plan(config)["student"]
    assert (student.name, student.seed_group, student.teachers, student.cached) == (
        "student",
        "student",
        ("teacher",),
        (),
    )
    assert student.model == {"name": "cnn", "widths": (4, 8), "batch_norm": False}
    assert (student.dtype, student.restore) == ("float32", None)
    assert student.training["epochs"] == config["training"]["epochs"]


def test_models_that_are_alike_share_a_seed(config):
    add(config, "again", "teacher")
    put(config, "models.again.like", "baseline")
    plan = make_plan(config)
    assert [plan[name].seed_group for name in ("teacher", "student", "baseline", "again")] == [
        "teacher",
        *["student"] * 3,
    ]


@pytest.mark.parametrize(
    "change", [{"restore": "runs/x/teacher"}, {"model": {"pretrained": "minilm"}}]
)
def test_a_model_with_weights_of_its_own_needs_no_objective(config, change):
    section = config["models"]["teacher"]
    section |= change
    del section["objective"]
    assert make_plan(config)["teacher"].objective == {}


def test_a_model_without_weights_and_without_objective_is_refused(config):
    del config["models"]["teacher"]["objective"]
    with pytest.raises(ValueError, match=r"^models.teacher has no objective: give it one"):
        make_plan(config)


def test_only_teachers_of_a_model_can_be_cached(config):
    put(config, "models.student.cached", ("teacher",))
    assert make_plan(config)["student"].cached == ("teacher",)
    put(config, "models.student.cached", ("teacher", "baseline"))
    with pytest.raises(
        ValueError, match=r"^models.student.cached names baseline; its teachers are teacher$"
    ):
        make_plan(config)


def test_a_student_that_keeps_logits_in_another_way_has_an_ordinary_baseline():
    given = dict(cached=("teacher",), cached_as=dict(top_k=3, dtype="float16"))
    student = dict(model=dict(name="cnn", widths=(4,), batch_norm=False), **given)
    plan = make_plan(resolve(experiment("few", start="digits", student=student)))
    assert plan["student"].cached_as == dict(top_k=3, dtype="float16")
    assert (plan["baseline"].cached, plan["baseline"].cached_as) == ((), {})


def test_a_model_like_another_one_without_cached_teachers_keeps_none_of_their_logits(config):
    config["models"]["student"] |= dict(cached=("teacher",), cached_as=dict(top_k=3, dtype=None))
    config["models"]["baseline"] |= dict(like="student", cached_as=dict(top_k=3, dtype=None))
    assert make_plan(config)["baseline"].cached_as == {}


def test_how_logits_are_kept_is_said_of_cached_teachers(config):
    put(config, "models.student.cached_as", dict(top_k=3, dtype=None))
    with pytest.raises(
        ValueError,
        match=r"^models.student.cached_as says how cached teachers are kept, and"
        r" models.student.cached names none; its teachers are teacher$",
    ):
        make_plan(config)


def test_the_largest_are_kept_only_of_logits_that_exclude_one_another():
    config = plain(load_config("goemotions"))
    config["models"]["student"] |= dict(cached=("teacher",), cached_as=dict(dtype="float16"))
    assert make_plan(config)["student"].cached_as == dict(dtype="float16")
    config["models"]["student"]["cached_as"] = dict(top_k=2)
    with pytest.raises(ValueError, match=r"cached_as.top_k is for outputs of which one is right"):
        make_plan(config)


# Keys and values


@pytest.mark.parametrize(
    "section",
    [
        "",
        "data.",
        "training.",
        "parallel.",
        "checkpoint.",
        "logging.",
        "compare.",
        "evaluations.extra.",
        "models.student.",
        "models.student.training.",
    ],
)
def test_an_unknown_key_is_refused_in_every_section(config, section):
    config["evaluations"] = {"extra": {"evaluation": "test"}}
    make_plan(config)
    put(config, f"{section}seeed", 1)
    owner = section.rstrip(".") or "the config"
    with pytest.raises(ValueError, match=f"^{owner} has no option 'seeed'; its options are .*"):
        make_plan(config)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("", "name"),
        ("data", "name"),
        ("data", "train"),
        ("data", "selection"),
        ("data", "evaluation"),
        ("data", "inputs"),
        ("", "view"),
        ("", "models"),
        ("models.student", "model"),
        ("models.student.model", "name"),
        ("training.optimizer", "momentum"),
    ],
)
def test_a_missing_key_is_asked_for(config, section, key):
    config["training"]["optimizer"] = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.0}
    inner = config
    for name in section.split(".") if section else ():
        inner = inner[name]
    del inner[key]
    with pytest.raises(ValueError, match=f"^{section or 'the config'} needs option '{key}'"):
        make_plan(config)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("checkpoint.use", "newest", "^checkpoint.use must be 'best' or 'latest', got 'newest'$"),
        (
            "models.teacher.training.epochs",
            0.0,
            "^models.teacher.training.epochs must be a positive number, got 0.0$",
        ),
        (
            "models.teacher.dtype",
            "int8",
            "^models.teacher.dtype must be one of 'float32', 'bfloat16', .* got 'int8'$",
        ),
        (
            "compare.student",
            "pupil",
            "^compare.student names 'pupil'; there are baseline, student, teacher$",
        ),
        (
            "evaluations.x",
            {"corruption": {"kind": "fog", "severity": 1}},
            "^unknown evaluations.x.corruption.kind 'fog'",
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(config, path, value, message):
    put(config, path, value)
    with pytest.raises(ValueError, match=message):
        make_plan(config)


# Fairness


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("model.widths", (4, 4), "differ in model (widths)"),
        ("view", {"size": 16, "channels": 3}, "differ in view (channels, mean, size, std)"),
        ("dtype", "bfloat16", "differ in dtype ('float32' and 'bfloat16')"),
        ("training.batch_size", 32, "differ in training (batch_size)"),
        ("training.epochs", 60.0, "differ in training (epochs)"),
        ("training.optimizer.learning_rate", 1.0, "differ in training (optimizer.learning_rate)"),
        ("training.schedule.name", "linear", "differ in training (schedule.name)"),
    ],
)
def test_an_unfair_comparison_is_refused_naming_what_differs(config, path, value, named):
    put(config, f"models.baseline.{path}", value)
    with pytest.raises(
        ValueError, match=r"^compare: student 'student' and baseline 'baseline' differ in"
    ) as refusal:
        make_plan(config)
    assert named in str(refusal.value)


def test_the_teacher_may_differ_from_the_student(config):
    put(config, "models.teacher.training.epochs", 1.0)
    assert make_plan(config)["teacher"].training["epochs"] == 1.0
