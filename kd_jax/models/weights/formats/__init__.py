"""Published formats of weights: how their files name and arrange what our modules hold, for reading
  and for writing.

A folder of Hugging Face says in config.json what it is; a single file of PyTorch tensors is told by
their names."""

from collections.abc import Mapping
from typing import Any

from kd_jax.models.weights.formats import hf_text, hf_vision
from kd_jax.models.weights.formats.weight_format import WeightFormat

FORMATS: dict[str, WeightFormat] = {
    "bert": hf_text.make("bert"),
    "camembert": hf_text.make("roberta"),  # Another tokenizer is all that differs.
    "deit": hf_vision.make_transformer("deit"),
    "distilbert": hf_text.make("distilbert"),
    "electra": hf_text.make("electra"),
    "resnet": hf_vision.make_resnet(),
    "roberta": hf_text.make("roberta"),
    "vit": hf_vision.make_transformer("vit"),
    "xlm-roberta": hf_text.make("roberta"),
}
"""`model_type` of a config.json -> its layout."""


def model_type_of(options: Mapping[str, Any]) -> str:
    """Returns the `model_type` that a module's options make it, its `name` among them.

    Raises:
      ValueError: if transformers has no such network.
    """
    if options["name"] == "encoder":
        return options["family"]
    if options["name"] == "vit":
        return "deit" if options["distillation"] else "vit"
    if options["name"] == "resnet":
        return "resnet"
    raise ValueError(
        f"model {options['name']!r} has no counterpart in transformers; encoder, resnet and vit"
        f" have"
    )
