import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import losses
from kd_jax.core.types import ModelOutput
from kd_jax.objective import terms
from kd_jax.objective.objective import make_objective
from kd_jax.objective.terms import BoundTerm, StepContext, TermSpec

ROWS, CLASSES, TOKENS, WIDTH, KEY = 6, 4, 5, 3, jax.random.key(0)
HARD = {"term": "cross_entropy", "weight": 0.25}
SOFT = {"term": "soft_target_kl", "weight": 0.75, "temperature": 2.0}
HINT = {
    "term": "hidden_mse",
    "weight": 2.0,
    "student": "block_0",
    "teacher": "block_0",
    "mapping": None,
}
MAPPED = {
    "term": "hidden_mse",
    "weight": 1.0,
    "student": "pooled",
    "teacher": "pooled",
    "mapping": "linear",
}
ALL = {"hard": HARD, "soft": SOFT, "hint": HINT, "mapped": MAPPED}


def draw(seed):
    rng = np.random.default_rng(seed)

    def array(*shape):
        return rng.normal(size=shape).astype(np.float32)

    features = {"block_0": array(ROWS, TOKENS, WIDTH), "pooled": array(ROWS, WIDTH)}
    return ModelOutput(array(ROWS, CLASSES), features)


STUDENT, TEACHERS = draw(0), {"big": draw(1)}


def make(spec):
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), (STUDENT, TEACHERS)
    )
    return make_objective(
        spec, TermSpec("text", *shapes, TOKENS, {"big": "text"}, np.arange(ROWS) % CLASSES, CLASSES)
    )


@pytest.fixture
def batch(make_batch):
    """Row 1 has no label, rows 4 and 5 only fill; every row's last token is padding."""
    mask = np.ones((ROWS, TOKENS), bool)
    mask[:, -1] = False
    view = {"input_ids": np.ones((ROWS, TOKENS), np.int32), "attention_mask": mask}
    valid, label_valid = np.arange(ROWS) < 4, np.arange(ROWS) != 1
    return make_batch(
        {"text": view}, rows=ROWS, classes=CLASSES, valid=valid, label_valid=label_valid
    )


def means_of(objective, student, teachers, batch, step=0, memory=None):
    params, _ = objective.init(KEY)
    context = StepContext(student, teachers, batch, step, KEY)
    return objective.sums(params, memory or {}, context)[0]


def loss_of(objective, student, teachers, batch, step=0):
    return objective.weighted_sum(
        means_of(objective, student, teachers, batch, step), objective.normalizers(batch), step
    )


def rows(tree, chosen):
    return jax.tree.map(lambda leaf: leaf[chosen], tree)


def assert_same_means(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name].total, theirs[name].total, rtol=1e-6, err_msg=name)
        assert ours[name].count == theirs[name].count


# Masks


def test_rows_that_only_fill_change_nothing(batch):
    fill = ~batch.valid

    def garbage(leaf):
        return np.where(fill.reshape(-1, *[1] * (leaf.ndim - 1)), 1e4, leaf).astype(leaf.dtype)

    student, teachers = jax.tree.map(garbage, (STUDENT, TEACHERS))
    assert_same_means(
        means_of(
            make(ALL), student, teachers, batch.replace(labels=np.where(fill, -1, batch.labels))
        ),
        means_of(make(ALL), STUDENT, TEACHERS, batch),
    )


def test_masking_rows_is_dropping_them(batch):
    dropped = rows((STUDENT, TEACHERS, batch), slice(4))
    assert_same_means(means_of(make(ALL), STUDENT, TEACHERS, batch), means_of(make(ALL), *dropped))


def test_padded_tokens_change_nothing(batch):
    garbage = jax.tree.map(np.copy, STUDENT)
    garbage.features["block_0"][:, -1] = 1e4
    assert_same_means(
        means_of(make(ALL), garbage, TEACHERS, batch), means_of(make(ALL), STUDENT, TEACHERS, batch)
    )


def test_no_gradient_reaches_rows_that_only_fill_nor_any_teacher(batch):
    gradients = jax.grad(lambda *outputs: loss_of(make(ALL), *outputs, batch), argnums=(0, 1))(
        STUDENT, TEACHERS
    )
    student, teachers = gradients
    assert all(np.abs(leaf[:4]).max() > 0 for leaf in jax.tree.leaves(student))
    jax.tree.map(
        lambda leaf: np.testing.assert_array_equal(leaf, 0),
        (rows(student, slice(4, None)), teachers),
    )


def test_a_row_without_label_is_left_out_of_cross_entropy_only(batch):
    counts = make(ALL).normalizers(batch)
    assert {name: int(count) for name, count in counts.items()} == {
        "hard": 3,
        "soft": 4,
        "hint": 16,
        "mapped": 4,
    }
    elsewhere = batch.replace(labels=np.where(np.arange(ROWS) == 1, 0, batch.labels))
    turned = batch.replace(labels=np.where(np.arange(ROWS) == 1, 3, batch.labels))
    assert_same_means(*(means_of(make(ALL), STUDENT, TEACHERS, b) for b in (elsewhere, turned)))


def test_a_batch_in_which_nothing_counts_has_loss_and_gradient_zero(batch):
    empty = batch.replace(valid=np.zeros(ROWS, bool))
    value, gradient = jax.value_and_grad(lambda s: loss_of(make(ALL), s, TEACHERS, empty))(STUDENT)
    assert value == 0
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), gradient)


# Means, counts and the weighted sum


def test_the_loss_is_the_weighted_sum_of_the_means(batch):
    labelled = batch.valid & batch.label_valid
    hard = losses.cross_entropy(STUDENT.logits, batch.labels)[labelled].mean()
    soft = losses.soft_target_kl(STUDENT.logits, TEACHERS["big"].logits, temperature=2.0)[:4].mean()
    difference = STUDENT.features["block_0"] - TEACHERS["big"].features["block_0"]
    hint = np.square(difference)[:4, :-1].mean()
    loss = loss_of(make({"hard": HARD, "soft": SOFT, "hint": HINT}), STUDENT, TEACHERS, batch)
    np.testing.assert_allclose(loss, 0.25 * hard + 0.75 * soft + 2 * hint, rtol=1e-5)


def test_counts_are_those_of_the_means(batch):
    means, counts = means_of(make(ALL), STUDENT, TEACHERS, batch), make(ALL).normalizers(batch)
    assert counts == {name: mean.count for name, mean in means.items()}


def test_counts_of_a_batch_are_the_sums_over_its_microbatches(batch):
    split = jax.tree.map(lambda leaf: leaf.reshape(2, ROWS // 2, *leaf.shape[1:]), batch)
    parts = [
        means_of(make(ALL), *rows((STUDENT, TEACHERS, batch), part))
        for part in (slice(3), slice(3, None))
    ]
    assert make(ALL).normalizers(split) == {
        name: parts[0][name].count + parts[1][name].count for name in ALL
    }


def test_shares_of_microbatches_and_their_gradients_add_up_to_the_whole_batch(batch):
    objective, counts = make(ALL), make(ALL).normalizers(batch)

    def share(student, part):
        taken = rows((student, TEACHERS, batch), part)
        return objective.weighted_sum(means_of(objective, *taken), counts, 0)

    value_and_gradient = jax.value_and_grad(share)
    # The second part holds one valid row, the first three: averaging the parts' means would be
    # wrong.
    parts = [value_and_gradient(STUDENT, part) for part in (slice(3), slice(3, None))]
    whole = value_and_gradient(STUDENT, slice(None))
    added = jax.tree.map(jnp.add, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), added, whole)


def test_a_term_of_weight_zero_is_reported_and_costs_nothing(batch):
    objective = make({"hard": HARD, "soft": SOFT | {"weight": 0}})
    assert means_of(objective, STUDENT, TEACHERS, batch)["soft"].value() > 0
    np.testing.assert_allclose(
        loss_of(objective, STUDENT, TEACHERS, batch),
        loss_of(make({"hard": HARD}), STUDENT, TEACHERS, batch),
    )


def test_eager_and_jit_agree(batch):
    objective = make(ALL)
    np.testing.assert_allclose(
        jax.jit(lambda *arrays: loss_of(objective, *arrays))(STUDENT, TEACHERS, batch, 3),
        loss_of(objective, STUDENT, TEACHERS, batch, 3),
        rtol=1e-5,
    )


# Schedules


def test_a_weight_may_follow_the_step(batch):
    objective = make(
        {"soft": SOFT | {"weight": {"name": "switch", "start": 0.0, "stop": 3.0, "at": 10}}}
    )
    mean = means_of(objective, STUDENT, TEACHERS, batch)["soft"].value()
    np.testing.assert_allclose(loss_of(objective, STUDENT, TEACHERS, batch, 9), 0.0)
    np.testing.assert_allclose(
        loss_of(objective, STUDENT, TEACHERS, batch, 10), 3 * mean, rtol=1e-6
    )


def test_a_temperature_may_follow_the_step(batch):
    falling = make(
        {"soft": SOFT | {"temperature": {"name": "linear", "start": 4.0, "stop": 2.0, "steps": 10}}}
    )
    for step, temperature in ((0, 4.0), (5, 3.0), (10, 2.0)):
        want = loss_of(
            make({"soft": SOFT | {"temperature": temperature}}), STUDENT, TEACHERS, batch
        )
        np.testing.assert_allclose(
            loss_of(falling, STUDENT, TEACHERS, batch, step), want, rtol=1e-5
        )


# Parameters, memory and draws of the terms


def test_only_terms_that_are_trained_have_parameters():
    params, memory = make(ALL).init(KEY)
    assert (set(params), memory) == ({"mapped"}, {})
    assert params["mapped"]["0"]["dense"]["kernel"].shape == (WIDTH, WIDTH)


def test_terms_of_one_kind_start_from_draws_of_their_own():
    params, _ = make({"one": MAPPED, "two": MAPPED}).init(KEY)
    again, _ = make({"two": MAPPED}).init(KEY)

    def kernel(params, name):
        return params[name]["0"]["dense"]["kernel"]

    assert not np.allclose(kernel(params, "one"), kernel(params, "two"))
    np.testing.assert_array_equal(kernel(params, "two"), kernel(again, "two"))


@pytest.fixture
def centroid(monkeypatch):
    """Registers a term over the batch that remembers the mean of the student's `pooled` and draws a
    number."""

    def build(site, *, rate):
        def values(_params, memory, seen):
            center = seen.student.features["pooled"].mean(axis=0)
            new = memory["center"] + rate * (center - memory["center"])
            return jnp.sum(new), {"center": new, "drawn": jax.random.uniform(seen.key)}

        return BoundTerm(
            "batch",
            values,
            site.view,
            init=lambda _: ({}, {"center": jnp.zeros(WIDTH), "drawn": 0.0}),
        )

    monkeypatch.setitem(terms.TERMS, "centroid", build)
    return {"term": "centroid", "weight": 1.0, "rate": 0.5}


def test_a_term_over_the_batch_sees_the_whole_microbatch_and_counts_once(batch, centroid):
    objective = make({"center": centroid, "hard": HARD})
    params, memory = objective.init(KEY)
    means, new = objective.sums(params, memory, StepContext(STUDENT, TEACHERS, batch, 0, KEY))
    want = 0.5 * STUDENT.features["pooled"].mean(axis=0)
    np.testing.assert_allclose(means["center"].total, want.sum(), rtol=1e-5)
    assert means["center"].count == 1
    np.testing.assert_allclose(new["center"]["center"], want, rtol=1e-6)


def test_memory_is_kept_for_the_terms_that_have_any_and_carried_on(batch, centroid):
    objective = make({"center": centroid, "hard": HARD})
    params, memory = objective.init(KEY)
    assert set(memory) == {"center"}
    for _ in range(2):
        _, memory = objective.sums(params, memory, StepContext(STUDENT, TEACHERS, batch, 0, KEY))
    assert set(memory) == {"center"}
    np.testing.assert_allclose(
        memory["center"]["center"], 0.75 * STUDENT.features["pooled"].mean(axis=0), rtol=1e-5
    )


def test_terms_draw_from_streams_of_their_own(batch, centroid):
    objective = make({"one": centroid, "two": centroid})
    params, memory = objective.init(KEY)
    _, new = objective.sums(params, memory, StepContext(STUDENT, TEACHERS, batch, 0, KEY))
    assert new["one"]["drawn"] != new["two"]["drawn"]


# Refusals: each names the term and what exists


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            HARD | {"term": "hinge"},
            "unknown term of objective 'x': 'hinge'; there are activation_boundary, attention_",
        ),
        ({"weight": 1.0}, "unknown term of objective 'x': None; there are activation_boundary"),
        ({"term": "cross_entropy"}, "^objective 'x' needs a weight$"),
        (HARD | {"weight": -0.5}, "^weight of objective 'x' must not be negative, got -0.5$"),
        (
            HARD | {"weight": {"name": "linear", "start": 1.0, "stop": -1.0, "steps": 5}},
            "must not be negative",
        ),
        (
            HARD | {"weight": "1"},
            "^weight of objective 'x' must be a finite number or a schedule, got '1'$",
        ),
        (
            HARD | {"weight": {"name": "wave"}},
            "unknown schedule for weight of objective 'x' 'wave'; there are cosine",
        ),
        (
            HARD | {"temperature": 4.0},
            "^objective 'x': term 'cross_entropy' has no option 'temperature'; its options are class_weights, label_smoothing$",
        ),
        (
            SOFT | {"temprature": 4.0},
            "^objective 'x': term .* no option 'temprature'; .* are source, .*, temperature$",
        ),
        (
            {"term": "topk_kl", "weight": 1.0},
            "^objective 'x': term 'topk_kl' needs option 'k'; its options are k,",
        ),
        (SOFT | {"temperature": 0.0}, "^objective 'x': temperature must be positive, got 0.0$"),
        (
            SOFT | {"temperature": {"name": "linear", "stop": 1.0, "steps": 5}},
            "^objective 'x': .* needs option 'start'",
        ),
        (SOFT | {"source": "huge"}, "^objective 'x': unknown teacher 'huge'; there are big$"),
        (
            HINT | {"student": "block_7"},
            "^objective 'x': the student has no layer 'block_7'; it has block_0, pooled$",
        ),
        (
            HINT | {"teacher": "block_7"},
            "^objective 'x': teacher 'big' has no layer 'block_7'; it has block_0, pooled$",
        ),
    ],
)
def test_an_objective_that_makes_no_sense_is_refused(section, message):
    with pytest.raises(ValueError, match=message):
        make({"x": section})


def test_class_counts_that_differ_are_refused():
    def one(*shape):
        return jax.ShapeDtypeStruct((1, *shape), jnp.float32)

    site = TermSpec(
        "text",
        ModelOutput(one(3), {}),
        {"big": ModelOutput(one(4), {})},
        None,
        {},
        np.zeros(1, np.int32),
        3,
    )
    with pytest.raises(
        ValueError, match=r"^objective 'x': the student has 3 classes and teacher 'big' has 4; "
    ):
        make_objective({"x": SOFT}, site)


def test_an_objective_without_terms_is_refused():
    with pytest.raises(ValueError, match="at least one term"):
        make({})
