"""Published formats of weights: how their files name and arrange what our modules hold, for reading
  and for writing.

A folder of Hugging Face says in config.json what it is; a single file of PyTorch tensors is told by
their names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kd_jax.models.weights.formats import hf_modern_bert, hf_text, hf_vision
from kd_jax.models.weights.formats.weight_format import WeightFormat

FORMATS: dict[str, WeightFormat] = {
    "bert": hf_text.make("bert"),
    "camembert": hf_text.make("roberta"),  # Another tokenizer is all that differs.
    "deit": hf_vision.make_transformer("deit"),
    "distilbert": hf_text.make("distilbert"),
    "electra": hf_text.make("electra"),
    "modernbert": hf_modern_bert.make(),
    "mpnet": hf_text.make("mpnet"),
    "resnet": hf_vision.make_resnet(),
    "roberta": hf_text.make("roberta"),
    "vit": hf_vision.make_transformer("vit"),
    "xlm-roberta": hf_text.make("roberta"),
}
"""`model_type` of a config.json -> its layout."""


HEAD = "head.safetensors"
"""Where the classifier of a sentence encoder lies, `weight` [K, D] and `bias` [K]: neither its
class in transformers nor that in sentence-transformers has one."""


@dataclass(frozen=True)
class Counterpart:
    """What transformers calls a network of ours.

    Attributes:
      model_type: in config.json.
      layout: of its tensors.
      config: the content of config.json.
      pooling: "mean" or "first" of a sentence encoder; None where one class holds all of it.
    """

    model_type: str
    layout: WeightFormat
    config: dict[str, Any]
    pooling: str | None


def counterpart(options: Mapping[str, Any]) -> Counterpart:
    """Finds what transformers calls a module's options, its `name` among them.

    Raises:
      ValueError: if transformers has no such network, or not with these options.
    """
    kind = model_type_of(options)
    predicts = options.get("predicts", "example")
    layout = FORMATS[kind].of(predicts)
    assert layout.config is not None
    pooling = options.get("pooling", "cls")
    if predicts in ("token", "vocabulary"):
        # What the tokens are pooled to is read by nothing.
        return Counterpart(kind, layout, layout.config({**options, "pooling": "cls"}), None)
    if pooling == "cls" and predicts == "embedding":
        raise ValueError(
            "pooling 'cls' of an embedding, through a dense layer, has no counterpart in"
            " sentence-transformers; 'mean' and 'first' have"
        )
    if pooling == "cls":
        return Counterpart(kind, layout, layout.config(options), None)
    # The network is the same; how its outputs are pooled stands beside it.
    return Counterpart(kind, layout, layout.config({**options, "pooling": "cls"}), pooling)


def model_type_of(options: Mapping[str, Any]) -> str:
    """Returns the `model_type` that a module's options make it, its `name` among them.

    Raises:
      ValueError: if transformers has no such network.
    """
    if options["name"] == "encoder":
        return options["family"]
    if options["name"] == "modernbert":
        return "modernbert"
    if options["name"] == "vit":
        return "deit" if options["distillation"] else "vit"
    if options["name"] == "resnet":
        return "resnet"
    raise ValueError(
        f"model {options['name']!r} has no counterpart in transformers; encoder, modernbert, resnet"
        f" and vit have"
    )
