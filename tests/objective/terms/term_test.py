import jax
import jax.numpy as jnp
import numpy as np
import pytest
from term_specs import mean_of

from kd_jax import losses
from kd_jax.core.types import ModelOutput
from kd_jax.objective.objective import bind_term
from kd_jax.objective.terms import BoundTerm, StepContext, TermSpec

ROWS, CLASSES, TOKENS, WIDTH, EXAMPLES, KEY = 4, 3, 5, 6, 12, jax.random.key(0)


def draw(seed, width, classes=CLASSES, dtype=np.float32):
    """An output of a text model: `pooled`, `block_0` by token, and `grid` with two axes that are no
    tokens."""
    rng = np.random.default_rng(seed)
    features = {
        "pooled": rng.normal(size=(ROWS, width)),
        "block_0": rng.normal(size=(ROWS, TOKENS, width)),
        "grid": rng.normal(size=(ROWS, 2, 2, width)),
    }
    output = ModelOutput(rng.normal(size=(ROWS, classes)), features)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), output)


def site_of(student, **teachers):
    """What a term knows beforehand: shapes of one example."""
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), (student, teachers)
    )
    return TermSpec(
        "text",
        *shapes,
        TOKENS,
        dict.fromkeys(teachers, "text"),
        np.arange(EXAMPLES) % CLASSES,
        CLASSES,
    )


def build(site, **spec):
    return bind_term(spec, site)


@pytest.fixture
def batch(make_batch):
    lengths = np.array([5, 3, 1, 4])
    mask = np.arange(TOKENS) < lengths[:, None]
    return make_batch(
        {"text": {"input_ids": np.ones((ROWS, TOKENS), np.int32), "attention_mask": mask}},
        rows=ROWS,
        classes=CLASSES,
    )


@pytest.fixture
def student():
    return draw(0, WIDTH)


@pytest.fixture
def big():
    return draw(1, WIDTH)


def run(term, params, student, teachers, batch, step=0):
    mean, memory = mean_of(term, params, {}, StepContext(student, teachers, batch, step, KEY))
    assert memory == {}
    return mean


# What each term computes


def test_cross_entropy_is_the_mean_over_labelled_examples(student, batch):
    batch = batch.replace(label_valid=np.array([True, False, True, True]))
    term = build(site_of(student), term="cross_entropy")
    want = losses.cross_entropy(student.logits, batch.labels)[np.array([0, 2, 3])]
    mean = run(term, {}, student, {}, batch)
    np.testing.assert_allclose(mean.value(), want.mean(), rtol=1e-6)
    assert mean.count == 3


def test_soft_target_kl_needs_no_labels(student, big, batch):
    batch = batch.replace(label_valid=np.zeros(ROWS, bool))
    term = build(site_of(student, big=big), term="soft_target_kl", temperature=3.0)
    want = losses.soft_target_kl(student.logits, big.logits, temperature=3.0)
    np.testing.assert_allclose(
        run(term, {}, student, {"big": big}, batch).value(), want.mean(), rtol=1e-6
    )


def test_the_temperature_may_follow_the_step(student, big, batch):
    schedule = {"name": "linear", "start": 4.0, "stop": 2.0, "steps": 10}
    term = build(site_of(student, big=big), term="soft_target_kl", temperature=schedule)
    for step, temperature in ((0, 4.0), (5, 3.0), (20, 2.0)):
        want = losses.soft_target_kl(student.logits, big.logits, temperature=temperature).mean()
        np.testing.assert_allclose(
            run(term, {}, student, {"big": big}, batch, step).value(), want, rtol=1e-5
        )


def hint(layer="pooled", mapping=None):
    return {"term": "hidden_mse", "student": layer, "teacher": layer, "mapping": mapping}


def test_hidden_mse_of_token_layers_counts_the_tokens_of_the_attention_mask(student, big, batch):
    term = build(site_of(student, big=big), **hint("block_0"))
    mask = batch.views["text"]["attention_mask"]
    want = losses.hidden_mse(student.features["block_0"], big.features["block_0"])[mask]
    mean = run(term, {}, student, {"big": big}, batch)
    np.testing.assert_allclose(mean.value(), want.mean(), rtol=1e-6)
    assert mean.count == mask.sum() == 13


def test_a_padded_row_has_no_tokens(student, big, batch):
    batch = batch.replace(valid=np.array([True, True, True, False]))
    term = build(site_of(student, big=big), **hint("block_0"))
    assert run(term, {}, student, {"big": big}, batch).count == 5 + 3 + 1


@pytest.mark.parametrize("layer", ["pooled", "grid"])
def test_hidden_mse_of_other_layers_is_averaged_within_an_example_first(student, big, batch, layer):
    term = build(site_of(student, big=big), **hint(layer))
    want = np.square(student.features[layer] - big.features[layer]).mean()
    mean = run(term, {}, student, {"big": big}, batch)
    np.testing.assert_allclose(mean.value(), want, rtol=1e-5)
    assert mean.count == ROWS


def test_hidden_mse_maps_the_student_to_the_width_of_the_teacher(student, batch):
    wide = draw(1, 2 * WIDTH)
    term = build(site_of(student, wide=wide), **hint("block_0", "linear"))
    params, memory = term.init(KEY)
    assert memory == {}
    assert {leaf.shape for leaf in jax.tree.leaves(params)} == {(WIDTH, 2 * WIDTH), (2 * WIDTH,)}
    mapped = student.features["block_0"] @ params["0"]["dense"]["kernel"] + 0.5
    params["0"]["dense"]["bias"] = jnp.full((2 * WIDTH,), 0.5)
    want = losses.hidden_mse(mapped, wide.features["block_0"])[
        batch.views["text"]["attention_mask"]
    ]
    np.testing.assert_allclose(
        run(term, params, student, {"wide": wide}, batch).value(), want.mean(), rtol=1e-5
    )


def test_the_mapping_is_trained_and_the_teacher_is_not(student, batch):
    wide = draw(1, 2 * WIDTH)
    term = build(site_of(student, wide=wide), **hint("pooled", "linear"))

    def loss(params, wide):
        return run(term, params, student, {"wide": wide}, batch).value()

    trained, taught = jax.grad(loss, argnums=(0, 1))(term.init(KEY)[0], wide)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(trained))
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), taught)


def test_a_mapping_of_bfloat16_features_is_kept_in_float32():
    student, wide = draw(0, WIDTH, dtype=jnp.bfloat16), draw(1, 2 * WIDTH)
    params, _ = build(site_of(student, wide=wide), **hint("pooled", "linear")).init(KEY)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


def test_a_float32_teacher_is_not_rounded_to_the_dtype_of_a_bfloat16_student(big, batch):
    student = draw(0, WIDTH, dtype=jnp.bfloat16)
    term = build(site_of(student, big=big), **hint())
    want = np.square(student.features["pooled"].astype(np.float32) - big.features["pooled"]).mean()
    np.testing.assert_allclose(run(term, {}, student, {"big": big}, batch).value(), want, rtol=1e-6)


def test_a_term_without_parameters_has_none(student, big):
    for spec in ({"term": "cross_entropy"}, {"term": "soft_target_kl", "temperature": 1.0}, hint()):
        assert build(site_of(student, big=big), **spec).init(KEY) == ({}, {})


# Which teacher


def test_the_only_teacher_need_not_be_named(student, big):
    assert site_of(student, big=big).teacher(None) == "big"


def test_a_source_chooses_among_teachers(student, big, batch):
    small = draw(2, WIDTH)
    term = build(
        site_of(student, big=big, small=small),
        term="soft_target_kl",
        temperature=1.0,
        source="small",
    )
    want = losses.soft_target_kl(student.logits, small.logits, temperature=1.0).mean()
    np.testing.assert_allclose(
        run(term, {}, student, {"big": big, "small": small}, batch).value(), want, rtol=1e-6
    )


@pytest.mark.parametrize("spec", [{"term": "soft_target_kl", "temperature": 1.0}, hint()])
@pytest.mark.parametrize(
    ("names", "source", "message"),
    [
        ((), {}, "^it needs a teacher and the model has none"),
        (("a", "b"), {}, r"^it must say which teacher \(source=...\); there are a, b$"),
        (("a", "b"), {"source": "c"}, "^unknown teacher 'c'; there are a, b$"),
        (("a",), {"source": "c"}, "^unknown teacher 'c'; there are a$"),
    ],
)
def test_a_teacher_that_is_missing_ambiguous_or_unknown_is_refused(
    student, big, spec, names, source, message
):
    with pytest.raises(ValueError, match=message):
        build(site_of(student, **dict.fromkeys(names, big)), **spec, **source)


# What doesn't fit


@pytest.mark.parametrize(
    "temperature", [0, -1.0, {"name": "linear", "start": 4.0, "stop": 0.0, "steps": 10}]
)
def test_a_temperature_that_is_not_positive_throughout_is_refused(student, big, temperature):
    with pytest.raises(ValueError, match=r"^temperature must be positive, got"):
        build(site_of(student, big=big), term="soft_target_kl", temperature=temperature)


@pytest.mark.parametrize(
    "temperature", ["4", None, {"name": "linear", "stop": 1.0, "steps": 10}, {"name": "wave"}]
)
def test_a_temperature_that_is_no_number_and_no_schedule_is_refused_in_one_line(
    student, big, temperature
):
    with pytest.raises(ValueError, match="temperature"):
        build(site_of(student, big=big), term="soft_target_kl", temperature=temperature)


def test_class_counts_that_differ_are_refused(student):
    other = draw(1, WIDTH, classes=CLASSES + 1)
    with pytest.raises(
        ValueError, match=r"^the student has 3 classes and teacher 'other' has 4; student_classes"
    ):
        build(site_of(student, other=other), term="soft_target_kl", temperature=1.0)


def test_topk_kl_that_keeps_every_class_is_soft_target_kl(student, big, batch):
    term = build(site_of(student, big=big), term="topk_kl", k=CLASSES, temperature=3.0)
    want = losses.soft_target_kl(student.logits, big.logits, temperature=3.0).mean()
    np.testing.assert_allclose(run(term, {}, student, {"big": big}, batch).value(), want, rtol=1e-5)


@pytest.mark.parametrize("name", ["soft_target_kl", "dist", "standardized_kl"])
def test_the_classes_that_both_know_can_be_compared(student, batch, name):
    other = draw(1, WIDTH, classes=CLASSES + 2)
    term = build(
        site_of(student, other=other), term=name, student_classes=(0, 2), teacher_classes=(4, 1)
    )
    want = getattr(losses, name)(student.logits[:, [0, 2]], other.logits[:, [4, 1]]).mean()
    np.testing.assert_allclose(
        run(term, {}, student, {"other": other}, batch).value(), want, rtol=1e-5
    )


def test_sorted_probabilities_need_no_common_classes(student, batch):
    other = draw(1, WIDTH, classes=CLASSES + 2)
    term = build(site_of(student, other=other), term="universal_logit_distance")
    want = losses.universal_logit_distance(student.logits, other.logits).mean()
    np.testing.assert_allclose(
        run(term, {}, student, {"other": other}, batch).value(), want, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            {"student_classes": (0, 3)},
            r"^the classes of the student must be distinct numbers from 0 to 2, got \(0, 3\)$",
        ),
        (
            {"student_classes": (1, 1)},
            r"^the classes of the student must be distinct numbers from 0 to 2, got \(1, 1\)$",
        ),
        (
            {"teacher_classes": (-1,)},
            r"^the classes of teacher 'other' must be distinct numbers from 0 to 4, got \(-1,\)$",
        ),
        (
            {"teacher_classes": (0, 1)},
            "^the student has 3 classes and teacher 'other' has 2; student_classes and",
        ),
    ],
)
def test_classes_that_are_not_there_or_do_not_pair_are_refused(student, classes, message):
    with pytest.raises(ValueError, match=message):
        build(
            site_of(student, other=draw(1, WIDTH, classes=CLASSES + 2)),
            term="soft_target_kl",
            **classes,
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"student": "block_9"},
            "^the student has no layer 'block_9'; it has block_0, grid, pooled$",
        ),
        (
            {"teacher": "block_9"},
            "^teacher 'big' has no layer 'block_9'; it has block_0, grid, pooled$",
        ),
        ({"mapping": "cubic"}, "no mapping 'cubic'; there are"),
        (
            {"teacher": "block_0"},
            r"the student's 'pooled' \(1, 6\) can't be compared with big's 'block_0' \(1, 5, 6\)$",
        ),
        (
            {"teacher": "block_0", "mapping": "linear"},
            r"\(1, 6\) can't be compared with big's 'block_0' \(1, 5, 6\)$",
        ),
    ],
)
def test_a_layer_or_mapping_that_is_unknown_or_does_not_fit_is_refused(
    student, big, change, message
):
    with pytest.raises(ValueError, match=message):
        build(site_of(student, big=big), **(hint() | change))


def test_widths_that_differ_without_a_mapping_are_refused_with_a_hint(student):
    with pytest.raises(
        ValueError, match=r"\(1, 6\) .* \(1, 12\) \(a mapping would fit the widths\)$"
    ):
        build(site_of(student, wide=draw(1, 2 * WIDTH)), **hint())


# Masks


@pytest.mark.parametrize("valid", [[True] * 4, [False, False, True, False], [False] * 4])
def test_a_term_over_the_batch_counts_once_whatever_is_valid(batch, valid):
    term = BoundTerm("batch", lambda _params, memory, _seen: (jnp.asarray(5.0), memory), "text")
    mean = run(term, {}, None, {}, batch.replace(valid=np.array(valid)))
    assert (float(mean.total), int(mean.count)) == (5.0, 1)


@pytest.mark.parametrize(("kind", "count"), [("example", 6), ("token", 18), ("batch", 2)])
def test_counts_are_known_before_the_models_run_whatever_the_leading_axes(batch, kind, count):
    batch = batch.replace(valid=np.array([True, True, True, False]))
    microbatches = jax.tree.map(lambda leaf: np.stack([leaf, leaf[::-1]]), batch)
    assert BoundTerm(kind, lambda *_: None, "text").count(microbatches) == count


def test_a_labelled_term_leaves_out_rows_without_label_and_rows_that_only_fill(batch):
    batch = batch.replace(
        valid=np.array([True, True, False, False]), label_valid=np.array([True, False, True, False])
    )
    assert BoundTerm("example", lambda *_: None, "text", labelled=True).count(batch) == 1
    assert BoundTerm("example", lambda *_: None, "text").count(batch) == 2


@pytest.mark.parametrize(
    ("spec", "counted"),
    [
        # Its own view has two words and the other one the first: a label teaches both.
        (dict(term="cross_entropy"), 2),
        (dict(term="soft_target_kl"), 1),
        (dict(term="decoupled_kd"), 1),
    ],
)
def test_only_terms_of_a_teacher_leave_out_the_words_that_it_does_not_read(
    spec, counted, make_batch
):
    own = np.array([[1, 2, -1]] * ROWS)
    views = {"text": {"positions": own}, "short": {"positions": np.where(own == 1, 1, -1)}}
    labels = np.zeros((ROWS, 3), np.int32)
    batch = make_batch(views, rows=ROWS, labels=labels, positions=own == 1)
    of_words = ModelOutput(jnp.zeros((ROWS, 3, CLASSES)), {})
    bound = build(site_of(of_words, teacher=of_words), **spec)
    assert bound.count(batch) == ROWS * counted
