"""What every model promises, and what build refuses."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from kd_jax.core import types
from kd_jax.models import registry

pytestmark = pytest.mark.grid

SPECS = {
    "bag_of_embeddings": {"vocabulary_size": 11, "width": 6, "hidden": (5,), "dropout": 0.3},
    "bilstm": {
        "vocabulary_size": 11,
        "width": 6,
        "state": 4,
        "layers": 1,
        "head": (5,),
        "dropout": 0.3,
    },
    "cifar_resnet": {"depth": 8, "stem": 4, "widths": (4, 6, 8), "shortcut": "projection"},
    "cnn": {"widths": (4, 6), "batch_norm": True},
    "encoder": {
        "vocabulary_size": 11,
        "width": 6,
        "layers": 2,
        "heads": 2,
        "intermediate": 10,
        "max_positions": 32,
    }
    | {"type_vocabulary": 2, "dropout": 0.3, "pooling": "cls"},
    "modernbert": {
        "vocabulary_size": 11,
        "width": 8,
        "layers": 2,
        "heads": 2,
        "intermediate": 10,
        "max_positions": 32,
        "dropout": 0.3,
        "pooling": "cls",
    },
    "vit": {
        "image_size": 8,
        "patch": 4,
        "width": 6,
        "layers": 2,
        "heads": 2,
        "intermediate": 10,
        "dropout": 0.3,
    }
    | {"distillation": False},
    "mobilenet_v2": {"width": 0.2, "expansion": 2},
    "resnet": {"stem": 4, "blocks": (1, 1, 1, 1), "widths": (2, 3, 4, 3), "bottleneck": True},
    "shufflenet_v1": {"stem": 12, "blocks": (2, 1, 1), "widths": (24, 48, 72), "groups": 3},
    "shufflenet_v2": {"stem": 4, "blocks": (2, 1, 1), "widths": (6, 8, 10), "last": 12},
    "text_cnn": {
        "vocabulary_size": 11,
        "width": 6,
        "kernels": (2, 3),
        "filters": 4,
        "dropout": 0.3,
    },
    "text_vgg": {
        "vocabulary_size": 11,
        "embedding": 6,
        "depth": 11,
        "width": 0.1,
        "batch_norm": True,
        "head": (7,),
    }
    | {"dropout": 0.3},
    "vgg": {"depth": 11, "width": 0.1, "batch_norm": True, "head": (7,), "dropout": 0.3},
    "wide_resnet": {"depth": 10, "widen": 1},
}
TEXT_MODELS = ("bag_of_embeddings", "bilstm", "encoder", "modernbert", "text_cnn", "text_vgg")
IMAGE_MODELS = tuple(sorted(set(SPECS) - set(TEXT_MODELS)))
BATCH_NORM_MODELS = (*(name for name in IMAGE_MODELS if name != "vit"), "text_vgg")


def view_for(name, rng=None):
    rng = rng or np.random.default_rng(0)
    if name in IMAGE_MODELS:
        return {"images": rng.normal(size=(3, 8, 8, 1)).astype(np.float32)}
    ids = rng.integers(0, 11, (3, 5)).astype(np.int32)
    return {"input_ids": ids, "attention_mask": np.arange(5)[None] < np.array([[5], [2], [1]])}


def make(name):
    module = registry.build({"name": name, "num_classes": 4} | SPECS[name])
    return module, jax.jit(module.init)(jax.random.key(0), **view_for(name))


@pytest.fixture(scope="module", params=sorted(registry.MODELS))
def model(request):
    return request.param, *make(request.param)


def test_every_model_keeps_the_output_contract(model):
    name, module, variables = model
    view = view_for(name)
    output = jax.jit(module.apply)(variables, **view)
    assert isinstance(output, types.ModelOutput)
    assert output.logits.shape == (3, 4)
    assert output.logits.dtype == jnp.float32
    assert output.features["pooled"].ndim == 2
    assert all(feature.shape[0] == 3 for feature in output.features.values())
    positional = jax.jit(lambda v, *inputs: module.apply(v, *inputs, train=False))(
        variables, *view.values()
    )
    np.testing.assert_allclose(output.logits, positional.logits, rtol=1e-5, atol=1e-6)


def test_the_classifier_reads_pooled(model):
    name, module, variables = model
    output = jax.jit(module.apply)(variables, **view_for(name))
    head = variables["params"]["classifier"]
    want = (
        np.asarray(output.features["pooled"]) @ np.asarray(head["kernel"])
        + np.asarray(head["bias"])[None]
    )
    np.testing.assert_allclose(output.logits, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_dtype_follows_the_variables(model, dtype):
    name, module, variables = model
    with jax.enable_x64(True):
        cast = jax.tree.map(lambda x: x.astype(dtype), variables)
        output = jax.jit(module.apply)(cast, **view_for(name))
        at_least = jnp.promote_types(dtype, jnp.float32)
        assert output.logits.dtype == at_least
        for key, feature in output.features.items():
            assert feature.dtype == (
                at_least if key.startswith("attention_") else jnp.dtype(dtype)
            ), key
        reference = jax.jit(module.apply)(variables, **view_for(name)).logits
        tolerance = 0.05 if dtype == "bfloat16" else 1e-5
        np.testing.assert_allclose(
            np.float64(output.logits), reference, rtol=tolerance, atol=tolerance
        )


def test_training_draws_dropout_and_evaluation_does_not(model):
    name, module, variables = model
    if "dropout" not in SPECS[name]:
        pytest.skip("this model has no dropout")

    def logits(seed, **kwargs):
        rngs = {"dropout": jax.random.key(seed)}
        return module.apply(
            variables, **view_for(name), rngs=rngs, mutable=["batch_stats"], **kwargs
        )[0].logits

    assert np.array_equal(logits(1, train=True), logits(1, train=True))
    assert not np.array_equal(logits(1, train=True), logits(2, train=True))
    assert np.array_equal(logits(1), logits(2, train=False))


def test_training_drops_out_what_the_classifier_reads(model):
    name, module, variables = model
    if "dropout" not in SPECS[name] or name == "vit":
        pytest.skip("this model has no dropout, or none before its classifier")
    rngs = {"dropout": jax.random.key(0)}
    output, _ = module.apply(
        variables, **view_for(name), train=True, rngs=rngs, mutable=["batch_stats"]
    )
    head = variables["params"]["classifier"]
    kept = output.features["pooled"] @ head["kernel"] + head["bias"][None]
    assert not np.allclose(output.logits, kept, rtol=1e-3, atol=1e-5)


def test_the_axis_name_reaches_every_batch_norm():
    for name in BATCH_NORM_MODELS:
        module, variables = make(name)
        options = {"train": True, "axis_name": "nowhere", "rngs": {"dropout": jax.random.key(0)}}
        with pytest.raises(NameError, match="unbound axis name: nowhere"):
            jax.eval_shape(
                lambda v, x, m=module, o=options: m.apply(v, **x, **o, mutable=["batch_stats"]),
                variables,
                view_for(name),
            )


def test_models_with_batch_norm_take_the_rows_that_count():
    huge = {"images": 1e9, "input_ids": 10, "attention_mask": True}
    for name in BATCH_NORM_MODELS:
        module, variables = make(name)
        assert "batch_stats" in variables
        view = view_for(name)
        other = {
            key: np.concatenate([x[:2], np.full_like(x[2:], huge[key])]) for key, x in view.items()
        }
        where = np.array([True, True, False])

        @jax.jit
        def run(view, module=module, variables=variables, where=where):
            rngs = {"dropout": jax.random.key(0)}
            return module.apply(
                variables, **view, train=True, where=where, rngs=rngs, mutable=["batch_stats"]
            )

        (first, stats), (second, other_stats) = run(view), run(other)
        np.testing.assert_allclose(first.logits[:2], second.logits[:2], rtol=1e-5, atol=1e-6)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), stats, other_stats
        )


def test_build_takes_config_dicts_and_lists():
    spec = {"name": "vgg", "num_classes": 4} | SPECS["vgg"]
    assert registry.build(ml_collections.ConfigDict(spec)) == registry.build(spec | {"head": [7]})
    assert registry.build(spec | {"head": ()}).head == ()
    assert registry.build(spec | {"width": 1}).width == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "resnet99"}, r"no model 'resnet99'; there are \['bag_of_embeddings', .*\]"),
        ({"name": None}, "no model None"),
        ({"name": ["vgg"]}, "no model"),
        (
            {"widht": 3},
            r"model 'encoder' has no option 'widht'; there are \['dropout', .*'heads'.*\]",
        ),
        (
            {"type_vocabulary": -1},
            "encoder.type_vocabulary must be a whole number, 0 or more, got -1",
        ),
        (
            {"type_vocabulary": False},
            "encoder.type_vocabulary must be a whole number, 0 or more, got False",
        ),
        (
            {"family": "albert"},
            r"encoder.family must be one of \['bert', 'roberta', .*\], got 'albert'",
        ),
        ({"parent": None}, "no option 'parent'"),
        ({"num_classes": None}, "encoder.num_classes must be a positive whole number, got None"),
        ({"width": -6}, "encoder.width must be a positive whole number, got -6"),
        ({"width": 6.0}, "encoder.width must be a positive whole number, got 6.0"),
        ({"layers": True}, "encoder.layers must be a positive whole number, got True"),
        ({"width": 7}, "width must be a multiple of heads, got width 7 and heads 2"),
        ({"dropout": 1.0}, r"encoder.dropout must be a rate in \[0, 1\), got 1.0"),
        ({"dropout": "0.1"}, r"encoder.dropout must be a rate"),
        (
            {"pooling": "max"},
            r"encoder.pooling must be one of \['cls', 'mean', 'first'\], got 'max'",
        ),
        (
            {"layer_norm_epsilon": 0.0},
            "encoder.layer_norm_epsilon must be a positive number, got 0.0",
        ),
    ],
)
def test_build_refuses_what_the_encoder_does_not_have(change, message):
    with pytest.raises(ValueError, match=message):
        registry.build({"name": "encoder", "num_classes": 4} | SPECS["encoder"] | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 12}, r"vgg.depth must be one of \[8, 11, 13, 16, 19\], got 12"),
        ({"pooling": "max"}, r"vgg.pooling must be one of \['mean', 'flatten'\], got 'max'"),
        ({"pools": 6}, "pools must be at most 5, one a stage, got 6"),
        ({"depth": [16]}, "vgg.depth must be one of"),
        ({"width": float("nan")}, "vgg.width must be a positive number, got nan"),
        ({"width": 0}, "vgg.width must be a positive number, got 0"),
        ({"batch_norm": 1}, "vgg.batch_norm must be True or False, got 1"),
        ({"head": 512}, "vgg.head must be a tuple of positive whole numbers, got 512"),
        ({"head": (512, 0)}, "vgg.head must be a positive whole number, got 0"),
    ],
)
def test_build_refuses_what_vgg_does_not_have(change, message):
    with pytest.raises(ValueError, match=message):
        registry.build({"name": "vgg", "num_classes": 4} | SPECS["vgg"] | change)


def test_options_have_no_defaults(model):
    name, *_ = model
    for option in SPECS[name]:
        spec = {"name": name, "num_classes": 4} | SPECS[name]
        del spec[option]
        with pytest.raises(ValueError, match=f"model '{name}' lacks '{option}'; it needs"):
            registry.build(spec)
    with pytest.raises(ValueError, match="lacks 'num_classes'"):
        registry.build({"name": name} | SPECS[name])
