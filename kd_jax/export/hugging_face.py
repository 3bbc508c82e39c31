"""A Hugging Face folder that transformers' PyTorch classes open."""

import importlib.util
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from kd_jax.data.views.text import padding_id
from kd_jax.export import model_card, sentence_encoder
from kd_jax.export.student import Student, Unsupported, apply, task_of
from kd_jax.models import registry
from kd_jax.models.weights import formats, load
from kd_jax.models.weights.formats import weight_format
from kd_jax.models.weights.open import predicting

FOLDER = "huggingface"

SPECIAL = {
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
"""Role -> what tokenizers call it."""

log = logging.getLogger("kd_jax")


def write(student: Student, folder: Path) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Writes config.json, model.safetensors, the tokenizer or image processor, and the model card.

    What reads it back is PyTorch where it is installed, otherwise our own reader.

    Raises:
      Unsupported: if transformers has no such architecture, or not with these options.
    """
    options = registry.describe(student.module)
    # An architecture that transformers doesn't have is no error: other formats can hold it.
    try:
        found = formats.counterpart(options)
    except ValueError as error:
        raise Unsupported(str(error)) from None
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    tokenizer = None if student.tokenizer is None else student.ready_tokenizer()
    architecture = found.layout.bare if found.pooling else found.layout.architecture
    _write_config(student, target, found, architecture, tokenizer)
    # Always float32, which transformers' classes load by default.
    tensors = {
        name: tensor.astype(np.float32)
        for name, tensor in weight_format.write(found.layout, student.variables).items()
    }
    if found.pooling:
        assert student.max_length is not None
        tensors, head = sentence_encoder.split(found.layout, tensors)
        sentence_encoder.write(target, head, found.pooling, student.max_length, options["width"])
    # PyTorch counts each BatchNorm's batches, and misses the counter where there is none.
    tensors |= {
        name.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
        for name in tensors
        if name.endswith("running_mean")
    }
    # transformers looks for this entry to learn how the tensors were written.
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    if tokenizer is not None:
        # RoBERTa has one type, and would look up a second one beside its table.
        types = "token_type_ids" in student.description["inputs"]
        _write_tokenizer(student, target, tokenizer, types=types and options["type_vocabulary"] > 1)
    else:
        _write_processor(student, target)
    opener = "AutoModel" if found.pooling else _auto_class(found.model_type, architecture)
    card = model_card.make_for_transformers(student, opener, found.pooling)
    (target / model_card.FILE).write_text(card, encoding="utf-8")
    return _reader(target, architecture, found.pooling, student)


def _auto_class(kind: str, architecture: str) -> str:
    """Returns what people open such a folder with; the automatic class knows no DeiT of two
    heads.
    """
    # The class is named in full here, as the automatic one would build a model with one head.
    if kind == "deit":
        return formats.FORMATS[kind].architecture
    if kind in ("vit", "resnet"):
        return "AutoModelForImageClassification"
    return f"AutoModel{architecture[architecture.index('For') :]}"


def _write_config(
    student: Student,
    target: Path,
    found: formats.Counterpart,
    architecture: str,
    tokenizer: Any,
) -> None:
    # Imported late, because it takes seconds and only this format needs it.
    from transformers import AutoConfig

    # With names of the classes, transformers' pipelines print words instead of LABEL_0.
    task = task_of(student.description)
    labels = dict(enumerate(student.class_names))
    names = {"id2label": labels, "label2id": {name: i for i, name in labels.items()}}
    if tokenizer is not None:
        config = {"pad_token_id": padding_id(tokenizer), **found.config}
    else:
        config = {**found.config, "num_channels": student.description["inputs"]["images"][-1]}
    made = AutoConfig.for_model(
        found.model_type,
        **config,
        **(names if task.named else {}),
        architectures=[architecture],
        problem_type=task.problem_type,
    )
    made.save_pretrained(target)


def _write_tokenizer(student: Student, target: Path, tokenizer: Tokenizer, *, types: bool) -> None:
    from transformers import PreTrainedTokenizerFast

    # Only tokens that the tokenizer has: transformers would add missing ones as new tokens.
    roles = {
        role: name
        for role, names in SPECIAL.items()
        for name in names
        if tokenizer.token_to_id(name) is not None
    }
    # A model without token types would fail on an argument that it doesn't know.
    inputs = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=student.description["view"]["max_length"],
        pad_token=tokenizer.id_to_token(padding_id(tokenizer)),
        model_input_names=inputs,
        **roles,
    )
    wrapped.save_pretrained(target)
    # transformers 5 writes a class of its own here, which version 4 doesn't have.
    path = target / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _write_processor(student: Student, target: Path) -> None:
    view, (height, width, channels) = (
        student.description["view"],
        student.description["inputs"]["images"],
    )
    # One value stands for all channels in a view; transformers wants one for each channel.
    mean, std = (
        list(values) * (channels if len(values) == 1 else 1)
        for values in (view["mean"], view["std"])
    )
    # Written by hand, so that no vision package has to be installed; resample 2 is bilinear.
    content = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "resample": 2,
        "size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }
    (target / "preprocessor_config.json").write_text(json.dumps(content, indent=2) + "\n")


def _reader(
    target: Path, architecture: str, pooling: str | None, student: Student
) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    # PyTorch is large and optional, so its absence must not stop the export.
    if importlib.util.find_spec("torch") is None:
        log.info("huggingface: PyTorch is not installed; read back by our own reader")
        task = task_of(student.description)
        # Of vectors and words nothing in the folder says how many outputs there are.
        module, variables = load.from_source(
            predicting(load.open_weights(target), task.predicts),
            registry.describe(student.module)["num_classes"],
            problem_type=task.problem_type,
        )
        run = jax.jit(lambda inputs: apply(module, variables, inputs))
        return lambda inputs: np.asarray(run(dict(inputs)))
    import torch
    import transformers

    model = (
        getattr(transformers, architecture).from_pretrained(target, local_files_only=True).eval()
    )

    classify = sentence_encoder.classifier(target, model, pooling) if pooling else None

    def run_torch(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        # PyTorch has channels first; the copy makes the moved axes contiguous.
        if "images" in inputs:
            given = {"pixel_values": torch.tensor(np.moveaxis(inputs["images"], -1, 1).copy())}
        else:
            given = {name: torch.tensor(array.astype(np.int64)) for name, array in inputs.items()}
        # Without this PyTorch keeps what a backward pass would need.
        with torch.no_grad():
            return (classify(given) if classify else model(**given).logits).numpy()

    return run_torch
